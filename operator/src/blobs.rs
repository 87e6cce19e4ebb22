//! Component bytes that nodes cannot pull themselves: inline components and those behind a pull secret.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use crds::EdgeRevision;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::node_api::{BlobError, BlobWanted, Blobs};
use crate::resolve::{
    Credentials, CredentialsError, FairPermits, ResolveError, Resolver, credentials_of, digest_of,
};
use crate::watch::{Caches, ObjectKey, SecretState, Secrets, Term};

/// Size limit of the blobs cached in memory, in bytes, over all components.
const MAX_CACHED_BYTES: usize = 128 * 1024 * 1024;

/// Maximum number of pulls for nodes at a time, besides those that resolve images. Nodes must not wait for the registries of
/// new versions.
const PULLS: usize = 3;
/// How many of them are for functions of one namespace.
const PULLS_EACH: usize = 2;

/// Looks up component bytes by digest in the revisions that refer to them.
#[derive(Debug)]
pub struct Components {
    caches: Caches,
    secrets: Secrets,
    resolver: Arc<Resolver>,
    pulls: FairPermits,
    cached: Mutex<VecDeque<(String, Bytes)>>,
}

/// Why a revision did not lead to its component's bytes.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the revision names no repository")]
    NoRepository,
    #[error("the pull secret {0:?} is not readable")]
    Unreadable(String),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("the registry returned bytes with another digest")]
    OtherDigest,
    #[error("the operator is stopping")]
    Closed,
}

impl Components {
    /// Creates an empty store.
    #[must_use]
    pub fn new(caches: Caches, secrets: Secrets, resolver: Arc<Resolver>) -> Self {
        Self {
            caches,
            secrets,
            resolver,
            pulls: FairPermits::new(PULLS, PULLS_EACH),
            cached: Mutex::default(),
        }
    }

    async fn find(&self, wanted: BlobWanted) -> Result<Bytes, BlobError> {
        if let Some(bytes) = self.cached(&wanted.digest) {
            return Ok(bytes);
        }
        let mut last = None;
        for function in &wanted.functions {
            let key = ObjectKey::new(&function.namespace, &function.name);
            let refers = |revision: &Arc<EdgeRevision>| {
                revision.spec.component_digest.as_deref() == Some(&wanted.digest)
            };
            let revisions = self.caches.revisions.find(&Term::Function(key));
            for revision in revisions.into_iter().filter(refers) {
                match self
                    .of(&function.namespace, &revision, &wanted.digest)
                    .await
                {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => last = Some(error),
                }
            }
        }
        Err(last.map_or_else(
            || BlobError::Missing {
                digest: wanted.digest,
                reason: "no revision refers to it".to_owned(),
            },
            |error| BlobError::Unavailable(Box::new(error)),
        ))
    }

    /// The bytes with this digest, by one of the revisions that refer to it.
    async fn of(
        &self,
        namespace: &str,
        revision: &EdgeRevision,
        digest: &str,
    ) -> Result<Bytes, FetchError> {
        let _permit;
        let bytes = if let Some(inline) = &revision.spec.inline {
            Bytes::copy_from_slice(&inline.0)
        } else {
            let permit = self.pulls.acquire(namespace).await;
            // It is held until the bytes are cached.
            _permit = permit.ok_or(FetchError::Closed)?;
            // Many nodes ask for a new component at the same time, and the first pull is enough.
            if let Some(bytes) = self.cached(digest) {
                return Ok(bytes);
            }
            self.pull(namespace, revision).await?
        };
        if digest_of(&bytes) != digest {
            return Err(FetchError::OtherDigest);
        }
        self.cache(digest, &bytes);
        Ok(bytes)
    }

    async fn pull(&self, namespace: &str, revision: &EdgeRevision) -> Result<Bytes, FetchError> {
        let repository = revision.spec.repository.as_deref();
        let repository = repository.ok_or(FetchError::NoRepository)?;
        let mut credentials = Credentials::default();
        for secret in &revision.spec.image_pull_secrets {
            let state = self.secrets.get(&ObjectKey::new(namespace, &secret.name));
            let SecretState::Present(found) = state else {
                return Err(FetchError::Unreadable(secret.name.clone()));
            };
            credentials.merge(credentials_of(&found)?);
        }
        let image = format!("{repository}@{}", revision.spec.digest);
        Ok(self.resolver.pull(&image, &credentials).await?.bytes)
    }

    fn cached(&self, digest: &str) -> Option<Bytes> {
        let mut cached = self.cached.lock();
        let at = cached.iter().position(|(known, _)| known == digest)?;
        let entry = cached.remove(at)?;
        let bytes = entry.1.clone();
        cached.push_back(entry);
        Some(bytes)
    }

    fn cache(&self, digest: &str, bytes: &Bytes) {
        let mut cached = self.cached.lock();
        if cached.iter().any(|(known, _)| known == digest) {
            return;
        }
        cached.push_back((digest.to_owned(), bytes.clone()));
        while cached.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > MAX_CACHED_BYTES
            && cached.len() > 1
        {
            cached.pop_front();
        }
    }
}

impl Blobs for Components {
    fn fetch(&self, wanted: BlobWanted) -> BoxFuture<'_, Result<Bytes, BlobError>> {
        Box::pin(self.find(wanted))
    }
}
