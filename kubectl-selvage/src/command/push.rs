//! `push`: writes a component to a registry, as the artifact that `wkg` and other tools for components write, too.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use http::HeaderValue;
use oci_client::client::{ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciImageManifest};
use oci_client::{Client, Reference, RegistryOperation};
use sha2::{Digest, Sha256};

use super::registry_login;
use crate::Code;
use crate::cli::PushArgs;
use crate::component;
use crate::screen::write_all;

const LAYER: &str = "application/wasm";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn push(args: &PushArgs) -> Result<Code> {
    let (file, image) = (args.file.display(), &args.image);
    let bytes = std::fs::read(&args.file).with_context(|| format!("{file} cannot be read"))?;
    let interfaces = match component::inspect(&bytes) {
        Ok(interfaces) => interfaces,
        Err(why) => {
            eprintln!("push: nothing was pushed. {file} {why}");
            return Ok(Code::Refused);
        }
    };
    let layer = ImageLayer::new(bytes, LAYER.to_owned(), None);
    let config = component::configuration(&interfaces, &layer.sha256_digest())?;
    let config = Config::new(config, CONFIG.to_owned(), None);
    let digest = upload(args, layer, config)
        .await
        .map_err(|error| explain(error, image))?;
    // standard output has nothing else, so that a script can put it into a manifest
    let (registry, repository) = (image.registry(), image.repository());
    let tag = image.tag().unwrap_or("latest");
    write_all(format!("{registry}/{repository}:{tag}@{digest}\n").as_bytes())?;
    Ok(Code::Done)
}

/// Uploads layer, configuration and manifest, in this order. Returns the digest of the manifest.
async fn upload(args: &PushArgs, layer: ImageLayer, config: Config) -> Result<String> {
    let image = &args.image;
    let client = Client::try_from(ClientConfig {
        protocol: if args.plain_http {
            ClientProtocol::Http
        } else {
            ClientProtocol::Https
        },
        // one request for each layer: some registries accept no pieces
        use_monolithic_push: true,
        connect_timeout: Some(CONNECT_TIMEOUT),
        user_agent: concat!("kubectl-selvage/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    })?;
    let login = registry_login::read(image.resolve_registry())?;
    // uploads would send requests without a token after this fails
    client.auth(image, &login, RegistryOperation::Push).await?;
    let layers = [layer];
    let mut manifest = OciImageManifest::build(&layers, &config, None);
    manifest.media_type = Some(OCI_IMAGE_MEDIA_TYPE.to_owned());
    let blobs = layers.into_iter().map(|layer| layer.data);
    let digests = manifest.layers.iter().map(|layer| &layer.digest);
    let layers = blobs.zip(digests);
    for (blob, digest) in layers.chain([(config.data, &manifest.config.digest)]) {
        // a registry that does not answer this question gets the blob
        if !client.blob_exists(image, digest).await.unwrap_or(false) {
            client.push_blob(image, blob, digest).await?;
        }
    }
    let manifest = serde_json::to_vec(&manifest)?;
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&manifest)));
    let media_type = HeaderValue::from_static(OCI_IMAGE_MEDIA_TYPE);
    client
        .push_manifest_raw(image, manifest, media_type)
        .await?;
    Ok(digest)
}

/// Returns an error with what a user can do about it.
fn explain(error: anyhow::Error, image: &Reference) -> anyhow::Error {
    let (registry, repository) = (image.registry(), image.repository());
    let refused = format!(
        "{registry} refuses to write {repository}; `docker login {registry}` stores a user name and a password"
    );
    let unreachable =
        format!("{registry} cannot be reached; a registry without TLS needs --plain-http");
    match error.downcast_ref() {
        Some(
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_)
            | OciDistributionError::ServerError {
                code: 401 | 403, ..
            },
        ) => anyhow!(refused),
        Some(OciDistributionError::RequestError(cause)) if cause.is_connect() => {
            error.context(unreachable)
        }
        _ => error.context(format!("{image} cannot be pushed")),
    }
}
