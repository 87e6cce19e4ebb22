//! Outbound requests to an origin whose certificate is signed by a private authority.

use crate::{
    scenarios,
    world::{LATER, SOON, World},
};
use anyhow::{Context, Result, ensure};
use e2e::selvage::{self, Kind};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

scenarios![together: [an_authority_of_a_function_is_trusted_and_replaced]];

const PATIENCE: Duration = Duration::from_secs(30);

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Without the authority the handshake fails. With it the origin is reached, by this function only. Another content of the
/// ConfigMap is a new revision, and a content without certificates is refused.
async fn an_authority_of_a_function_is_trusted_and_replaced(world: &World) -> Result<()> {
    let ns = world.namespace("t-authorities").await?;
    let (old, new) = (authority()?, authority()?);
    let origin = start_origin(world, &new)?;
    let spec = |host: &str, trusting: bool| {
        let mut spec = world.spec("v1", host);
        spec["rollout"] = json!({ "strategy": "AllAtOnce", "bake": { "duration": "5s" } });
        spec["env"] = json!([{ "name": "UPSTREAM", "value": format!("https://{origin}") }]);
        spec["egress"] = json!({ "allow": [format!("https://{origin}")] });
        if trusting {
            spec["egress"]["caConfigMapRef"] = json!({ "name": "company-ca" });
        }
        spec
    };
    world
        .serve(&ns, "plain", spec("plain.authorities.example", false))
        .await?;
    answers(world, "plain.authorities.example", "TlsCertificateError").await?;

    // the ConfigMap is applied after the function
    let host = "trusting.authorities.example";
    world.apply(&ns, "trusting", spec(host, true)).await?;
    refused(world, &ns, "MissingReference", "ca.crt").await?;
    write(world, &ns, &old.pem()).await?;
    let first = stable(&world.ready(&ns, "trusting").await?);
    answers(world, host, "TlsCertificateError").await?;

    write(world, &ns, &format!("{}{}", old.pem(), new.pem())).await?;
    let changed = world
        .function(&ns, "trusting", LATER, |f| {
            stable(f) != first && selvage::condition(f, "Ready").0 == "True"
        })
        .await?;
    answers(world, host, "answered 200").await?;
    answers(world, "plain.authorities.example", "TlsCertificateError").await?;
    let name = stable(&changed).as_str().context("no revision")?.to_owned();
    let revision = world.objects.api(Kind::Revision, &ns).get(&name).await?;
    let copied = revision.data["spec"]["caCertificates"].to_string();
    ensure!(copied.matches("BEGIN CERTIFICATE").count() == 2, "{copied}");

    // what is served continues without a usable ConfigMap
    write(world, &ns, "no certificate").await?;
    refused(world, &ns, "InvalidSpec", "no certificate in PEM").await?;
    answers(world, host, "answered 200").await
}

fn stable(function: &Value) -> Value {
    function["status"]["stable"]["revision"].clone()
}

async fn refused(world: &World, ns: &str, reason: &str, part: &str) -> Result<()> {
    let refused = world
        .function(ns, "trusting", SOON, |f| {
            selvage::condition(f, "Accepted") == ("False", reason)
        })
        .await?;
    let status = refused["status"].to_string();
    ensure!(
        status.contains("spec.egress.caConfigMapRef") && status.contains(part),
        "{status}"
    );
    Ok(())
}

/// Waits until every node answers requests to the host with a body that contains this text.
async fn answers(world: &World, host: &str, text: &str) -> Result<()> {
    for node in world.nodes() {
        world
            .until(async |w: &World| Ok(w.edge.get(node, host, "/").await?.body.contains(text)))
            .await
            .with_context(|| format!("{host} on {node} does not answer {text:?}"))?;
    }
    Ok(())
}

async fn write(world: &World, ns: &str, certificates: &str) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(world.cluster.client(), ns);
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "company-ca" },
        "data": { "ca.crt": certificates },
    });
    let manager = PatchParams::apply("e2e").force();
    api.patch("company-ca", &manager, &Patch::Apply(&map))
        .await?;
    Ok(())
}

fn authority() -> Result<Authority> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// Starts an origin on the address of the registry, which functions reach. It answers every request with 200.
fn start_origin(world: &World, issuer: &Authority) -> Result<SocketAddr> {
    let registry = world.cluster.registry.as_ref().context("no registry")?;
    let registry: SocketAddr = registry.address().parse()?;
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new([registry.ip().to_string()])?.signed_by(&key, issuer)?;
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind((registry.ip(), 0))?;
    let address = listener.local_addr()?;
    // ends with the process
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            // a client that does not trust the certificate breaks off
            std::thread::spawn(move || answer(config, stream).ok());
        }
    });
    Ok(address)
}

fn answer(config: Arc<ServerConfig>, stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut received = Vec::new();
    let mut part = [0; 1024];
    loop {
        let read = stream.read(&mut part)?;
        ensure!(read > 0, "the client has closed the connection");
        received.extend_from_slice(&part[..read]);
        if received.ends_with(b"\r\n\r\n") {
            received.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        }
    }
}
