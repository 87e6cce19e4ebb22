//! From an image string to bytes that are known: tag to manifest digest, manifest to component, component
//! to its imports. Nothing here decides anything; what it finds is kept in `status.resolved` and in the
//! `EdgeRevision`, so a tag is asked once per change of the image string.
//!
//! The crate `oci` bounds and verifies what a registry sends. At most four resolves run at a time, which bounds memory.

mod component;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use crds::conditions::reasons;
use futures::TryStreamExt;
use tokio::sync::Semaphore;

pub use component::{Inspection, inspect};
pub use oci::{Credentials, digest_of, parse_pull_secret};

const CONCURRENT: usize = 4;

/// What an image string stands for.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// `registry/name`, without tag or digest.
    pub repository: String,
    /// `sha256:…` of the manifest; what a user sees in the registry.
    pub manifest_digest: String,
    /// `sha256:…` of the component's bytes.
    pub component_digest: String,
    /// Media type of the layer that held the component.
    pub media_type: String,
    /// What the component is and wants.
    pub inspection: Inspection,
    /// The component.
    pub bytes: Bytes,
    /// Credentials were needed: nodes, which hold none, get the bytes from the operator.
    pub private: bool,
}

/// The reason of a `Resolved=False` condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The registry did not answer, or not with what was asked for.
    PullFailed,
    /// The registry does not have it.
    NotFound,
    /// The registry wants other credentials, or none were accepted.
    Unauthorized,
    /// The bytes are not one WebAssembly component.
    NotAComponent,
    /// The bytes are not those of the digest.
    DigestMismatch,
}

/// Why an image string could not be resolved.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    /// Its class.
    pub failure: Failure,
    /// One sentence without secrets.
    pub message: String,
    /// What the registry asked for with `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// Resolves image strings; cheap to share.
#[derive(Debug)]
pub struct Resolver {
    client: oci::Client,
    permits: Semaphore,
}

// === impl Failure ===

impl Failure {
    /// The condition's reason.
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

    /// How long to wait after the `attempt`-th failure (from 1): full jitter under a doubling ceiling of 1 s
    /// to 5 min, never less than the registry asked for. `dice` is in [0, 1).
    #[must_use]
    pub fn backoff(&self, attempt: u32, dice: f64) -> Duration {
        let ceiling = Duration::from_secs(1 << attempt.saturating_sub(1).min(8))
            .min(Duration::from_secs(300));
        let floor = Duration::from_millis(500);
        let wait = floor + ceiling.saturating_sub(floor).mul_f64(dice);
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
    /// A resolver that speaks plain HTTP to `insecure` registries (`host:port`) and TLS to all others.
    ///
    /// # Errors
    /// The TLS client cannot be built.
    pub fn new(insecure: impl IntoIterator<Item = String>) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: oci::Client::new(insecure)?,
            permits: Semaphore::new(CONCURRENT),
        })
    }

    /// Asks the registry what `image` is now, fetches and inspects it.
    ///
    /// # Errors
    /// With the class that the condition names.
    pub async fn resolve(
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
        let Ok(_permit) = self.permits.acquire().await else {
            return Err(ResolveError::new(
                Failure::PullFailed,
                "the resolver is closed",
            ));
        };
        let mut pull = self.client.pull(&reference, credentials)?;
        let oci::Image {
            manifest_digest,
            layer,
        } = pull.image().await?;
        let packed = fetch(&mut pull, &layer).await?;
        let media_type = layer.media_type.clone();
        // Unpacking and parsing are CPU work on input that is not trusted: away from the timers.
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
            private: pull.used_credentials(),
        })
    }
}

/// The whole layer in memory.
async fn fetch(pull: &mut oci::Pull, layer: &oci::Layer) -> Result<Bytes, oci::Error> {
    let capacity = usize::try_from(layer.size).unwrap_or_default();
    let mut chunks = pull.blob(layer).await?;
    let mut bytes = BytesMut::with_capacity(capacity);
    while let Some(chunk) = chunks.try_next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// The component in its layer.
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
