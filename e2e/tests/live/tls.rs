//! HTTPS with a certificate from a Secret: one of the whole cluster, and one of the namespace of a function.

use crate::{
    scenarios,
    secrets::granted,
    world::{LATER, SOON, TLS_PORT, World},
};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::wait,
    selvage::{NAMESPACE, condition},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use std::{net::Ipv4Addr, time::Duration};

scenarios![together: [
    a_certificate_of_a_secret_is_used_and_renewed,
    a_certificate_of_a_function_is_used_and_renewed_without_a_rollout,
]];

const HOST: &str = "tls.example";
/// Host of a function with a certificate of its namespace.
const OWN_HOST: &str = "own.tls.example";
/// Host of a function of another namespace.
const OTHER_HOST: &str = "other.tls.example";

/// The Secret is created after the node-shims have started, and changes later: neither needs a restart.
async fn a_certificate_of_a_secret_is_used_and_renewed(world: &World) -> Result<()> {
    let ns = world.namespace("t-tls").await?;
    world.serve(&ns, "hello", world.spec("v1", HOST)).await?;
    let mut before: Option<reqwest::Certificate> = None;
    for _ in 0..2 {
        let pair = Pair::of(&[HOST])?;
        write_pair(world, NAMESPACE, "edge-tls", &pair).await?;
        is_used(world, HOST, &pair.trusted, before.as_ref()).await?;
        before = Some(pair.trusted);
    }
    Ok(())
}

/// A certificate of the namespace is used before that of the cluster. A renewed one starts no rollout, an unusable one is a condition, and no other
/// namespace is served with it.
async fn a_certificate_of_a_function_is_used_and_renewed_without_a_rollout(
    world: &World,
) -> Result<()> {
    let ns = granted(world, "t-tls-own").await?;
    let other = world.namespace("t-tls-other").await?;
    let first = Pair::of(&[OWN_HOST, OTHER_HOST])?;
    write_pair(world, &ns, "own", &first).await?;
    let mut spec = world.spec("v1", OWN_HOST);
    spec["routes"][0]["tls"] = json!({ "secretRef": { "name": "own" } });
    let served = world.serve(&ns, "hello", spec).await?;
    let other_spec = world.spec("v1", OTHER_HOST);
    world.serve(&other, "hello", other_spec).await?;
    is_used(world, OWN_HOST, &first.trusted, None).await?;
    for node in world.nodes() {
        // the certificate names the host, but the host belongs to another namespace
        let refused = get(node, OTHER_HOST, &first.trusted).await;
        ensure!(refused.is_err(), "{node}: {refused:?}");
    }

    let traffic = world.load(OWN_HOST, 50)?;
    let second = Pair::of(&[OWN_HOST])?;
    write_pair(world, &ns, "own", &second).await?;
    is_used(world, OWN_HOST, &second.trusted, Some(&first.trusted)).await?;
    let report = traffic.finish().await?;
    ensure!(report.failed == 0, "{report:?}");

    let broken = Pair {
        key: first.key.clone(),
        ..second.clone()
    };
    write_pair(world, &ns, "own", &broken).await?;
    let stalled = world
        .function(&ns, "hello", SOON, |f| {
            condition(f, "Distributed") == ("False", "CertificateUnusable")
        })
        .await?;
    let message = stalled["status"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("Secret \"own\""), "{message}");
    ensure!(condition(&stalled, "Accepted").0 == "True", "{message}");
    is_used(world, OWN_HOST, &second.trusted, None).await?;

    write_pair(world, &ns, "own", &second).await?;
    let restored = world.ready(&ns, "hello").await?;
    for field in ["stable", "candidate", "accepted"] {
        let (before, after) = (&served["status"][field], &restored["status"][field]);
        ensure!(before == after, "{field}: {before} became {after}");
    }
    Ok(())
}

/// Waits until every node serves `host` with this certificate, and no longer with the one before.
async fn is_used(
    world: &World,
    host: &str,
    trusted: &reqwest::Certificate,
    before: Option<&reqwest::Certificate>,
) -> Result<()> {
    for node in world.nodes() {
        let ask = async || Ok(get(node, host, trusted).await.ok());
        let (status, version) = wait::until(LATER, Duration::from_millis(500), ask)
            .await
            .with_context(|| format!("{node} does not use the certificate"))?;
        ensure!(
            (status, version) == (200, http::Version::HTTP_2),
            "{node}: {status} {version:?}"
        );
        if let Some(before) = before {
            let old = get(node, host, before).await;
            ensure!(old.is_err(), "{node}: the old certificate");
        }
    }
    Ok(())
}

/// A self-signed certificate with its key in PEM format.
#[derive(Clone)]
struct Pair {
    chain: String,
    key: String,
    trusted: reqwest::Certificate,
}

impl Pair {
    fn of(hosts: &[&str]) -> Result<Self> {
        let key = KeyPair::generate()?;
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let chain = CertificateParams::new(hosts)?.self_signed(&key)?.pem();
        Ok(Self {
            trusted: reqwest::Certificate::from_pem(chain.as_bytes())?,
            key: key.serialize_pem(),
            chain,
        })
    }
}

/// Writes a pair into a Secret.
async fn write_pair(world: &World, namespace: &str, name: &str, pair: &Pair) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name },
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": pair.chain, "tls.key": pair.key },
    });
    let api: Api<Secret> = Api::namespaced(world.cluster.client(), namespace);
    let manager = PatchParams::apply("e2e").force();
    api.patch(name, &manager, &Patch::Apply(&secret)).await?;
    Ok(())
}

/// Sends a request to a node over a new connection that trusts one certificate.
async fn get(
    node: Ipv4Addr,
    host: &str,
    trusted: &reqwest::Certificate,
) -> Result<(u16, http::Version)> {
    let client = reqwest::Client::builder()
        .tls_certs_only([trusted.clone()])
        .resolve(host, (node, TLS_PORT).into())
        .timeout(Duration::from_secs(10))
        .no_proxy()
        .build()?;
    let response = client
        .get(format!("https://{host}:{TLS_PORT}/"))
        .send()
        .await?;
    Ok((response.status().as_u16(), response.version()))
}
