//! From an image string to bytes that are known: tag to manifest digest, manifest to component, component
//! to its imports. Nothing here decides anything; what it finds is kept in `status.resolved` and in the
//! `EdgeRevision`, so a tag is asked once per change of the image string.
//!
//! Everything a registry sends is bounded before it is believed: manifests 1 MiB, components 50 MiB,
//! counted and hashed while they stream in. At most four resolves run at a time, which bounds memory.

mod component;
mod credentials;
mod layer;
mod manifest;
mod registry;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use crds::conditions::reasons;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

pub use component::{Inspection, inspect};
pub use credentials::{Credentials, parse_pull_secret};

/// Largest component, packed or not, in bytes.
pub const MAX_COMPONENT: usize = 50 * 1024 * 1024;
/// Largest manifest, in bytes.
pub const MAX_MANIFEST: usize = 1024 * 1024;

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
    registry: registry::Registry,
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

// === impl Resolver ===

impl Resolver {
    /// A resolver that speaks plain HTTP to `insecure` registries (`host:port`) and TLS to all others.
    ///
    /// # Errors
    /// The TLS client cannot be built.
    pub fn new(insecure: impl IntoIterator<Item = String>) -> Result<Self, reqwest::Error> {
        let registry = registry::Registry::new(insecure.into_iter().collect::<BTreeSet<_>>())?;
        Ok(Self {
            registry,
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
        let reference: oci_client::Reference = image.parse().map_err(|error| {
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
        let mut session = self.registry.session(&reference, credentials);
        let (manifest, manifest_digest) = self.component_manifest(&mut session, &reference).await?;
        let descriptor = manifest::component_layer(&manifest)?;
        let packed = session.blob(&descriptor).await?;
        let media_type = descriptor.media_type.clone();
        let private = session.authenticated();
        // Unpacking and parsing are CPU work on input that is not trusted: away from the timers.
        let work = tokio::task::spawn_blocking(move || {
            let bytes = layer::unpack(&descriptor.media_type, packed)?;
            let inspection = inspect(&bytes)?;
            Ok::<_, ResolveError>((digest_of(&bytes), inspection, bytes))
        });
        let (component_digest, inspection, bytes) = work.await.map_err(|_| {
            ResolveError::new(Failure::NotAComponent, "the component could not be parsed")
        })??;
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        Ok(Artifact {
            repository,
            manifest_digest,
            component_digest,
            media_type,
            inspection,
            bytes,
            private,
        })
    }

    /// The image manifest behind the reference: directly, or the only entry for this system in an index.
    async fn component_manifest(
        &self,
        session: &mut registry::Session<'_>,
        reference: &oci_client::Reference,
    ) -> Result<(manifest::ImageManifest, String), ResolveError> {
        let pinned = reference.digest().map(ToOwned::to_owned);
        let wanted = pinned
            .clone()
            .or_else(|| reference.tag().map(ToOwned::to_owned))
            .unwrap_or_else(|| "latest".into());
        let body = session.manifest(&wanted).await?;
        let digest = digest_of(&body);
        expect_digest(pinned.as_deref(), &digest)?;
        match manifest::parse(&body)? {
            manifest::Parsed::Image(image) => Ok((image, digest)),
            manifest::Parsed::Index(entry) => {
                let body = session.manifest(&entry).await?;
                let inner = digest_of(&body);
                expect_digest(Some(&entry), &inner)?;
                match manifest::parse(&body)? {
                    manifest::Parsed::Image(image) => Ok((image, inner)),
                    manifest::Parsed::Index(_) => Err(ResolveError::new(
                        Failure::NotAComponent,
                        "the index names another index",
                    )),
                }
            }
        }
    }
}

fn expect_digest(wanted: Option<&str>, got: &str) -> Result<(), ResolveError> {
    match wanted {
        Some(wanted) if wanted != got => Err(ResolveError::new(
            Failure::DigestMismatch,
            format!("the registry answered with bytes of {got} when asked for {wanted}"),
        )),
        _ => Ok(()),
    }
}

/// `sha256:<hex>` of some bytes.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod registry_tests;

#[cfg(test)]
mod tests {
    use super::*;

    /// HS-9: pauses double up to five minutes and are never shorter than the registry asked for.
    #[test]
    fn backoff_doubles_to_a_ceiling_and_honours_the_registry() {
        let error = ResolveError::new(Failure::PullFailed, "x");
        let worst: Vec<u64> = (1..=11)
            .map(|attempt| error.backoff(attempt, 1.0).as_secs())
            .collect();
        assert_eq!(worst, [1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
        assert_eq!(error.backoff(9, 0.0), Duration::from_millis(500));
        let asked = ResolveError {
            retry_after: Some(Duration::from_secs(77)),
            ..error
        };
        assert_eq!(asked.backoff(1, 0.3), Duration::from_secs(77));
    }
}
