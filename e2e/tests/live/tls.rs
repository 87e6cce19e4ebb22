//! HTTPS with a certificate from a Secret.

use crate::{
    scenarios,
    world::{LATER, TLS_PORT, World},
};
use anyhow::{Context, Result, ensure};
use e2e::{cluster::wait, selvage::NAMESPACE};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use std::{net::Ipv4Addr, time::Duration};

scenarios![together: [a_certificate_of_a_secret_is_used_and_renewed]];

const HOST: &str = "tls.example";

/// The Secret is created after the node-shims have started, and changes later: neither needs a restart.
async fn a_certificate_of_a_secret_is_used_and_renewed(world: &World) -> Result<()> {
    let ns = world.namespace("t-tls").await?;
    world.serve(&ns, "hello", world.spec("v1", HOST)).await?;
    let mut before: Option<reqwest::Certificate> = None;
    for _ in 0..2 {
        let certificate = replace_certificate(world).await?;
        for node in world.nodes() {
            let ask = async || Ok(get(node, &certificate).await.ok());
            let (status, version) = wait::until(LATER, Duration::from_millis(500), ask)
                .await
                .with_context(|| format!("{node} does not use the certificate"))?;
            ensure!(
                (status, version) == (200, http::Version::HTTP_2),
                "{node}: {status} {version:?}"
            );
            if let Some(before) = &before {
                ensure!(
                    get(node, before).await.is_err(),
                    "{node}: the old certificate"
                );
            }
        }
        before = Some(certificate);
    }
    Ok(())
}

/// Writes a new self-signed certificate into the Secret that the chart values name.
async fn replace_certificate(world: &World) -> Result<reqwest::Certificate> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([HOST.to_owned()])?.self_signed(&key)?;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "edge-tls" },
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": certificate.pem(), "tls.key": key.serialize_pem() },
    });
    let api: Api<Secret> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let manager = PatchParams::apply("e2e").force();
    api.patch("edge-tls", &manager, &Patch::Apply(&secret))
        .await?;
    Ok(reqwest::Certificate::from_pem(
        certificate.pem().as_bytes(),
    )?)
}

/// Sends a request to a node over a new connection that trusts one certificate.
async fn get(node: Ipv4Addr, trusted: &reqwest::Certificate) -> Result<(u16, http::Version)> {
    let client = reqwest::Client::builder()
        .tls_certs_only([trusted.clone()])
        .resolve(HOST, (node, TLS_PORT).into())
        .timeout(Duration::from_secs(10))
        .no_proxy()
        .build()?;
    let response = client
        .get(format!("https://{HOST}:{TLS_PORT}/"))
        .send()
        .await?;
    Ok((response.status().as_u16(), response.version()))
}
