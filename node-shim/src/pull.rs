//! Fetches components from a registry or from the operator. The size is limited by the declared size and checked
//! while the bytes arrive. The bytes are hashed on arrival, and the file gets its name only if the digest matches.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use node_api::v1::Source;
use node_shim_core::desired::{Failure, LoadFailure};
use oci::{Credentials, MAX_COMPONENT};
use sha2::{Digest, Sha256};

use crate::disk::{Blobs, Draft};
pub(crate) use oci::sha256_hex;

/// Source of components that only the operator can read.
pub trait OperatorBlobs: Send + Sync {
    /// Streams the component with this digest. The caller limits the size and verifies the digest.
    fn blob(
        &self,
        digest: &str,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Failure>>, Failure>>;
}

/// Reference to a component: digest, size and location.
#[derive(Clone, Debug)]
pub struct ComponentRef {
    /// Digest of the component (`sha256:<hex>`).
    pub digest: String,
    /// Size in bytes; 0 = unknown.
    pub size: u64,
    /// Location of the component.
    pub source: Source,
    /// The only namespace on this node that uses the component; `None` when several do. Functions that earlier
    /// compilations of this namespace produced may be reused.
    pub namespace: Option<String>,
}

/// Fetches components and stores them on disk.
#[derive(Clone)]
pub struct Puller {
    registry: oci::Client,
    blobs: Blobs,
    operator: Arc<dyn OperatorBlobs>,
}

impl std::fmt::Debug for Puller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Puller")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

impl Puller {
    /// Creates a puller. `insecure` lists registries (`host:port`) that are contacted over plain HTTP.
    ///
    /// # Errors
    /// Fails when the HTTP client cannot be created.
    pub fn new(
        insecure: impl IntoIterator<Item = String>,
        blobs: Blobs,
        operator: Arc<dyn OperatorBlobs>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            registry: oci::Client::new(insecure)?,
            blobs,
            operator,
        })
    }

    /// Fetches a component. The returned file is positioned at its start, and its content has the digest.
    ///
    /// # Errors
    /// Returns the reason, and whether the failure is permanent.
    pub async fn fetch(&self, component: &ComponentRef) -> Result<File, Failure> {
        let hex = sha256_hex(&component.digest).ok_or_else(|| {
            Failure::new(
                LoadFailure::WrongContent,
                "the digest is not a sha256 digest",
            )
        })?;
        if component.size > MAX_COMPONENT {
            let message = format!(
                "the component has {} bytes; the limit is {MAX_COMPONENT}",
                component.size
            );
            return Err(Failure::new(LoadFailure::InvalidSource, message));
        }
        let draft = if component.source.via_operator || component.source.repository.is_empty() {
            let content = self.operator.blob(&component.digest).await?;
            let size = Some(component.size).filter(|size| *size != 0);
            self.receive(
                oci::verified(content, &component.digest, size, pull_failure)
                    .map_err(pull_failure)?,
            )
            .await?
        } else {
            self.pull_image(component, hex).await?
        };
        let blobs = self.blobs.clone();
        let hex = hex.to_string();
        blocking(move || blobs.keep(draft, &hex).map_err(|error| disk(&error))).await
    }

    /// Pulls from the registry without credentials, because a node has none.
    async fn pull_image(&self, component: &ComponentRef, hex: &str) -> Result<Draft, Failure> {
        let Source {
            repository,
            manifest_digest,
            ..
        } = &component.source;
        let image = format!("{repository}@{manifest_digest}");
        let image: oci::Reference = image.parse().map_err(|error| {
            let message = format!("{image} is not an image reference: {error}");
            Failure::new(LoadFailure::InvalidSource, message)
        })?;
        let pull = self.registry.pull(&image, &Credentials::default());
        let mut pull = pull.map_err(pull_failure)?;
        let layer = pull.image().await.map_err(pull_failure)?.layer;
        if !layer.is_archive() && layer.digest != component.digest {
            let message = format!("the image contains component {}", layer.digest);
            return Err(Failure::new(LoadFailure::WrongContent, message));
        }
        let content = pull.blob(&layer).await.map_err(pull_failure)?;
        let packed = self.receive(content.map_err(pull_failure).boxed()).await?;
        if !layer.is_archive() {
            return Ok(packed);
        }
        let draft = self.blobs.draft().map_err(|error| disk(&error))?;
        let hex = hex.to_string();
        blocking(move || unpack(&packed, &layer, draft, &hex)).await
    }

    /// Writes content to a draft. The stream verifies the content.
    async fn receive(
        &self,
        mut content: BoxStream<'static, Result<Bytes, Failure>>,
    ) -> Result<Draft, Failure> {
        let mut draft = self.blobs.draft().map_err(|error| disk(&error))?;
        while let Some(chunk) = content.try_next().await? {
            // Chunks are small, and a disk that hangs blocks only this component.
            draft = blocking(move || {
                draft
                    .write_all(&chunk)
                    .map_err(|error| disk(&error))
                    .map(|()| draft)
            })
            .await?;
        }
        Ok(draft)
    }
}

/// Unpacks the component from an archive layer and verifies its digest.
fn unpack(
    packed: &Draft,
    layer: &oci::Layer,
    mut draft: Draft,
    hex: &str,
) -> Result<Draft, Failure> {
    let mut source = packed.handle().map_err(|error| disk(&error))?;
    source.rewind().map_err(|error| disk(&error))?;
    oci::unpack(source, layer, &mut draft).map_err(|error| pull_failure(error.into()))?;
    let mut unpacked = draft.handle().map_err(|error| disk(&error))?;
    if hex::encode(hash(&mut unpacked).map_err(|error| disk(&error))?) == hex {
        Ok(draft)
    } else {
        Err(Failure::new(
            LoadFailure::WrongContent,
            "the archive contains another component",
        ))
    }
}

/// Returns the SHA-256 of a whole file and positions the file at its start.
pub(crate) fn hash(file: &mut File) -> io::Result<[u8; 32]> {
    file.rewind()?;
    let mut hash = Sha256::new();
    io::copy(file, &mut hash)?;
    file.rewind()?;
    Ok(hash.finalize().into())
}

/// Runs blocking work on a separate thread, in the current span.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .unwrap_or_else(|error| Err(Failure::new(LoadFailure::Load, error)))
}

fn disk(error: &io::Error) -> Failure {
    Failure::new(LoadFailure::DiskFull, error)
}

/// Converts a pull error.
fn pull_failure(error: oci::Error) -> Failure {
    use oci::{Error, UnpackError};
    let cause = match &error {
        Error::Unpack(UnpackError::Write(error)) => return disk(error),
        error if error.is_unauthorized() => LoadFailure::Unauthorized,
        Error::SizeMismatch { .. }
        | Error::DigestMismatch { .. }
        | Error::UnsupportedDigest { .. } => LoadFailure::WrongContent,
        Error::Manifest(_) | Error::Unpack(_) => LoadFailure::NotAComponent,
        Error::TooLarge { .. } => LoadFailure::InvalidSource,
        Error::Unreachable { .. }
        | Error::Timeout { .. }
        | Error::TooSlow { .. }
        | Error::Interrupted { .. }
        | Error::Denied { .. }
        | Error::Status { .. }
        | Error::Unauthorized { .. } => LoadFailure::Pull,
    };
    Failure {
        retry_after: error.retry_after(),
        ..Failure::new(cause, error)
    }
}
