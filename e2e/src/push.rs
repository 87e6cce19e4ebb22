//! Pushes components to a registry as OCI artifacts, like `wkg` and `oras`.

use anyhow::{Context, Result};
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol, Config, ImageLayer},
    manifest::OciImageManifest,
    secrets::RegistryAuth,
};
use std::path::Path;

const LAYER: &str = "application/wasm";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// Pushes the component in `file` to `reference` (`host:port/name:tag`) over plain HTTP, with `login` = (user,
/// password) if the registry requires it. Returns the digest of the manifest.
///
/// # Errors
/// Returns an error when the file cannot be read or the registry refuses.
pub async fn push_component(
    reference: &str,
    file: &Path,
    login: Option<(&str, &str)>,
) -> Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    push_bytes(reference, bytes, login).await
}

/// Pushes a component in memory, like [`push_component`].
///
/// # Errors
/// Returns an error when the registry refuses.
pub async fn push_bytes(
    reference: &str,
    component: Vec<u8>,
    login: Option<(&str, &str)>,
) -> Result<String> {
    let reference: Reference = reference.parse()?;
    let client = Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..Default::default()
    });
    let auth = login.map_or(RegistryAuth::Anonymous, |(user, password)| {
        RegistryAuth::Basic(user.into(), password.into())
    });
    let layers = vec![ImageLayer::new(component, LAYER.into(), None)];
    let config = Config::new(b"{}".to_vec(), CONFIG.into(), None);
    let manifest = OciImageManifest::build(&layers, &config, None);
    client
        .push(&reference, &layers, config, &auth, Some(manifest))
        .await
        .with_context(|| format!("push {reference}"))?;
    client
        .fetch_manifest_digest(&reference, &auth)
        .await
        .context("read the pushed digest")
}
