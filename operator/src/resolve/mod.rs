//! Resolves an image reference to verified bytes: tag to manifest digest, manifest to component, component to its
//! imports. This module makes no decisions; its result is stored in `status.resolved` and in the `EdgeRevision`, so
//! the registry is asked for a tag once per change of the image reference.
//!
//! The crate `oci` limits and verifies what a registry sends. The number of resolves at a time is limited, which bounds
//! memory, and one namespace gets only a part of them, so that a slow registry delays the functions of its users alone.

mod component;
mod permits;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use crds::conditions::reasons;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Secret;
use tokio::sync::Semaphore;

pub use component::{Inspection, inspect};
pub use oci::{Credentials, CredentialsError, digest_of};
pub(crate) use permits::FairPermits;

use crate::backoff::Backoff;

/// Maximum number of resolves at a time, each with at most one packed component in memory.
const CONCURRENT: usize = 6;
/// How many of them one namespace may have.
const EACH: usize = 3;
/// Maximum number of components that are unpacked at a time, for functions and for nodes together.
const UNPACKING: usize = 2;
/// Maximum time of a pull. Each answer has limits of its own, but a registry may need many of them.
const PULL: Duration = Duration::from_secs(180);
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));

/// Result of resolving an image reference.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Repository as `registry/name`, without tag or digest.
    pub repository: String,
    /// Digest of the manifest (`sha256:…`), as users see it in the registry.
    pub manifest_digest: String,
    /// Digest of the component's bytes (`sha256:…`).
    pub component_digest: String,
    /// Media type of the layer that held the component.
    pub media_type: String,
    /// Imports and exports of the component.
    pub inspection: Inspection,
    /// Bytes of the component.
    pub bytes: Bytes,
    /// Whether credentials were needed. Nodes have none, so they get the bytes from the operator.
    pub private: bool,
}

/// Reason of a condition `Resolved=False`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The registry did not answer, or sent an invalid answer.
    PullFailed,
    /// The registry does not have the image.
    NotFound,
    /// The registry requires other credentials, or accepted none.
    Unauthorized,
    /// The content is not exactly one WebAssembly component.
    NotAComponent,
    /// The bytes do not match their digest.
    DigestMismatch,
}

/// Why an image reference could not be resolved.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    /// Class of the failure.
    pub failure: Failure,
    /// Explanation in one sentence, without secrets.
    pub message: String,
    /// Delay that the registry requested with `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// Resolves image references. Sharing it is cheap.
#[derive(Debug)]
pub struct Resolver {
    client: oci::Client,
    permits: FairPermits,
    unpacking: Semaphore,
}

// === impl Failure ===

impl Failure {
    /// Reason of the condition.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::PullFailed => reasons::PULL_FAILED,
            Self::NotFound => reasons::NOT_FOUND,
            Self::Unauthorized => reasons::UNAUTHORIZED,
            Self::NotAComponent => reasons::NOT_A_COMPONENT,
            Self::DigestMismatch => reasons::DIGEST_MISMATCH,
        }
    }
}

// === impl ResolveError ===

impl ResolveError {
    fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self {
            failure,
            message: message.into(),
            retry_after: None,
        }
    }

    fn closed() -> Self {
        Self::new(Failure::PullFailed, "the resolver is closed")
    }

    /// Delay after the `attempt`-th failure (from 1): full jitter below a ceiling that doubles from 1 s to 5 min, and
    /// never shorter than the registry requested. `dice` is in [0, 1).
    #[must_use]
    pub fn backoff(&self, attempt: u32, dice: f64) -> Duration {
        let floor = Duration::from_millis(500);
        let room = RETRY.ceiling(attempt).saturating_sub(floor);
        let wait = floor + room.mul_f64(dice);
        wait.max(
            self.retry_after
                .unwrap_or_default()
                .min(Duration::from_secs(3600)),
        )
    }
}

impl From<oci::Error> for ResolveError {
    fn from(error: oci::Error) -> Self {
        use oci::Error;
        let failure = match &error {
            Error::Status { status: 404, .. } => Failure::NotFound,
            error if error.is_unauthorized() => Failure::Unauthorized,
            Error::SizeMismatch { .. }
            | Error::DigestMismatch { .. }
            | Error::UnsupportedDigest { .. } => Failure::DigestMismatch,
            Error::Manifest(_) | Error::Unpack(_) => Failure::NotAComponent,
            _ => Failure::PullFailed,
        };
        Self {
            failure,
            retry_after: error.retry_after(),
            message: error.to_string(),
        }
    }
}

// === impl Resolver ===

impl Resolver {
    /// Creates a resolver that uses plain HTTP for `insecure` registries (`host:port`) and TLS for all others.
    ///
    /// # Errors
    /// The TLS client cannot be built.
    pub fn new(insecure: impl IntoIterator<Item = String>) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: oci::Client::new(insecure)?,
            permits: FairPermits::new(CONCURRENT, EACH),
            unpacking: Semaphore::new(UNPACKING),
        })
    }

    /// Looks up the current content of `image` in the registry for a function of `namespace`, downloads it and inspects
    /// it. Waits while the namespace has its part of the resolves, or all are in use.
    ///
    /// # Errors
    /// The image cannot be resolved; the error has the class that the condition names.
    #[tracing::instrument(level = "debug", skip(self, credentials))]
    pub async fn resolve(
        &self,
        namespace: &str,
        image: &str,
        credentials: &Credentials,
    ) -> Result<Artifact, ResolveError> {
        let Some(_permit) = self.permits.acquire(namespace).await else {
            return Err(ResolveError::closed());
        };
        self.pull(image, credentials).await
    }

    /// Like [`Resolver::resolve`], without a limit on the number of pulls. The caller limits it.
    ///
    /// # Errors
    /// The image cannot be resolved; the error has the class that the condition names.
    pub(crate) async fn pull(
        &self,
        image: &str,
        credentials: &Credentials,
    ) -> Result<Artifact, ResolveError> {
        let reference: oci::Reference = image.parse().map_err(|error| {
            ResolveError::new(
                Failure::NotFound,
                format!("{image} is not an image reference: {error}"),
            )
        })?;
        let download = tokio::time::timeout(PULL, self.download(&reference, credentials));
        let Download {
            manifest_digest,
            layer,
            packed,
            private,
        } = download.await.map_err(|_| {
            let host = reference.registry();
            let message = format!("{host} did not send the image within {} s", PULL.as_secs());
            ResolveError::new(Failure::PullFailed, message)
        })??;
        let Ok(_permit) = self.unpacking.acquire().await else {
            return Err(ResolveError::closed());
        };
        let media_type = layer.media_type.clone();
        // Unpacking and parsing use the CPU on untrusted input, so they run outside the threads that run timers.
        let work = tokio::task::spawn_blocking(move || {
            let bytes = unpack(packed, &layer)?;
            let inspection = inspect(&bytes)?;
            Ok::<_, ResolveError>((digest_of(&bytes), inspection, bytes))
        });
        let (component_digest, inspection, bytes) = work.await.map_err(|_| {
            ResolveError::new(Failure::NotAComponent, "the component could not be parsed")
        })??;
        Ok(Artifact {
            repository: format!("{}/{}", reference.registry(), reference.repository()),
            manifest_digest,
            component_digest,
            media_type,
            inspection,
            bytes,
            private,
        })
    }

    async fn download(
        &self,
        reference: &oci::Reference,
        credentials: &Credentials,
    ) -> Result<Download, oci::Error> {
        let mut pull = self.client.pull(reference, credentials)?;
        let oci::Image {
            manifest_digest,
            layer,
        } = pull.image().await?;
        let packed = fetch(&mut pull, &layer).await?;
        Ok(Download {
            manifest_digest,
            layer,
            packed,
            private: pull.used_credentials(),
        })
    }
}

/// What a registry sent for an image.
struct Download {
    manifest_digest: String,
    layer: oci::Layer,
    /// Content of the layer.
    packed: Bytes,
    /// Whether credentials were needed.
    private: bool,
}

/// Reads the credentials of a pull secret.
///
/// # Errors
/// The Secret is not a pull secret, or it is malformed.
pub fn credentials_of(secret: &Secret) -> Result<Credentials, CredentialsError> {
    let data = secret.data.iter().flatten();
    let data = data.map(|(name, value)| (name.clone(), value.0.clone()));
    let kind = secret.type_.as_deref().unwrap_or_default();
    oci::parse_pull_secret(kind, &data.collect())
}

/// Downloads the whole layer into memory.
async fn fetch(pull: &mut oci::Pull, layer: &oci::Layer) -> Result<Bytes, oci::Error> {
    let capacity = usize::try_from(layer.size).unwrap_or_default();
    let mut chunks = pull.blob(layer).await?;
    let mut bytes = BytesMut::with_capacity(capacity);
    while let Some(chunk) = chunks.try_next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// Extracts the component from its layer.
fn unpack(packed: Bytes, layer: &oci::Layer) -> Result<Bytes, oci::Error> {
    if !layer.is_archive() {
        return Ok(packed);
    }
    let mut bytes = Vec::new();
    oci::unpack(packed.as_ref(), layer, &mut bytes)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests;
