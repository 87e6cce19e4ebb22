//! Component bytes that nodes cannot pull themselves: inline components and those behind a pull secret.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use crds::EdgeRevision;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::node_api::{BlobError, BlobWanted, Blobs};
use crate::resolve::{Credentials, Resolver, digest_of, parse_pull_secret};
use crate::watch::{Caches, ObjectKey, SecretState, Secrets, Term};

/// Size limit of the blobs cached in memory, in bytes, over all components.
const MAX_CACHED_BYTES: usize = 128 * 1024 * 1024;

/// Looks up component bytes by digest in the revisions that refer to them.
#[derive(Debug)]
pub struct Components {
    caches: Caches,
    secrets: Secrets,
    resolver: Arc<Resolver>,
    cached: Mutex<VecDeque<(String, Bytes)>>,
}

impl Components {
    /// Creates an empty store.
    #[must_use]
    pub fn new(caches: Caches, secrets: Secrets, resolver: Arc<Resolver>) -> Self {
        Self {
            caches,
            secrets,
            resolver,
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
                match self.of(&function.namespace, &revision).await {
                    Ok(bytes) if digest_of(&bytes) == wanted.digest => {
                        self.cache(&wanted.digest, &bytes);
                        return Ok(bytes);
                    }
                    Ok(_) => {
                        last = Some("the registry returned bytes with another digest".to_owned())
                    }
                    Err(why) => last = Some(why),
                }
            }
        }
        Err(last.map_or_else(
            || BlobError::Missing {
                digest: wanted.digest,
                reason: "no revision refers to it".to_owned(),
            },
            BlobError::Unavailable,
        ))
    }

    async fn of(&self, namespace: &str, revision: &EdgeRevision) -> Result<Bytes, String> {
        if let Some(inline) = &revision.spec.inline {
            return Ok(Bytes::copy_from_slice(&inline.0));
        }
        let repository = revision
            .spec
            .repository
            .as_deref()
            .ok_or("the revision names no repository")?;
        let mut credentials = Credentials::default();
        for secret in &revision.spec.image_pull_secrets {
            let SecretState::Present(found) =
                self.secrets.get(&ObjectKey::new(namespace, &secret.name))
            else {
                return Err(format!("the pull secret {:?} is not readable", secret.name));
            };
            let data = found
                .data
                .iter()
                .flatten()
                .map(|(name, value)| (name.clone(), value.0.clone()))
                .collect();
            let kind = found.type_.as_deref().unwrap_or_default();
            let parsed = parse_pull_secret(kind, &data).map_err(|error| error.to_string())?;
            credentials.merge(parsed);
        }
        let image = format!("{repository}@{}", revision.spec.digest);
        self.resolver
            .resolve(&image, &credentials)
            .await
            .map(|artifact| artifact.bytes)
            .map_err(|error| error.to_string())
    }

    fn cached(&self, digest: &str) -> Option<Bytes> {
        let mut cached = self.lock();
        let at = cached.iter().position(|(known, _)| known == digest)?;
        let entry = cached.remove(at)?;
        let bytes = entry.1.clone();
        cached.push_back(entry);
        Some(bytes)
    }

    fn cache(&self, digest: &str, bytes: &Bytes) {
        let mut cached = self.lock();
        cached.push_back((digest.to_owned(), bytes.clone()));
        while cached.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > MAX_CACHED_BYTES
            && cached.len() > 1
        {
            cached.pop_front();
        }
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, VecDeque<(String, Bytes)>> {
        self.cached.lock()
    }
}

impl Blobs for Components {
    fn fetch(&self, wanted: BlobWanted) -> BoxFuture<'_, Result<Bytes, BlobError>> {
        Box::pin(self.find(wanted))
    }
}
