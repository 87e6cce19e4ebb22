//! Caches Secrets by name, only in namespaces that have granted access.
//!
//! A grant cannot be watched, so a refused name is retried every [`RETRY`]. Values that were read stay in memory
//! under their keyed hash while a revision refers to them: changing or deleting a Secret does not remove the value
//! from the revision that was created with it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::BACKOFF;
use super::ObjectKey;

/// Interval between two attempts to read a refused Secret.
pub const RETRY: Duration = Duration::from_secs(30);

/// State of one Secret.
#[derive(Clone, Default)]
pub enum SecretState {
    /// The Secret has not been read yet.
    #[default]
    Unknown,
    /// The namespace has not granted its Secrets to the operator.
    NotGranted,
    /// The Secret does not exist.
    Missing,
    /// Content of the Secret.
    Present(Arc<Secret>),
}

/// Secrets by name. Clones are cheap and share the content.
#[derive(Clone)]
pub struct Secrets {
    client: Client,
    known: Arc<Mutex<HashMap<ObjectKey, Entry>>>,
    changed: mpsc::UnboundedSender<ObjectKey>,
}

struct Entry {
    state: SecretState,
    watch: AbortHandle,
}

impl fmt::Debug for SecretState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "Unknown",
            Self::NotGranted => "NotGranted",
            Self::Missing => "Missing",
            Self::Present(_) => "Present",
        })
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("known", &self.known.lock().len())
            .finish_non_exhaustive()
    }
}

impl SecretState {
    /// Returns the bytes of one key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        match self {
            Self::Present(secret) => secret
                .data
                .as_ref()?
                .get(key)
                .map(|bytes| bytes.0.as_slice()),
            _ => None,
        }
    }
}

impl Secrets {
    /// Creates an empty cache; `changed` receives the key of every Secret whose state changes.
    #[must_use]
    pub fn new(client: Client, changed: mpsc::UnboundedSender<ObjectKey>) -> Self {
        Self {
            client,
            known: Arc::default(),
            changed,
        }
    }

    /// Returns the state of a Secret; starts to watch it on the first call.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> SecretState {
        let mut known = self.known.lock();
        if let Some(entry) = known.get(key) {
            return entry.state.clone();
        }
        let watch = tokio::spawn(self.clone().follow(key.clone())).abort_handle();
        known.insert(
            key.clone(),
            Entry {
                state: SecretState::Unknown,
                watch,
            },
        );
        SecretState::Unknown
    }

    /// Forgets every Secret that is not in `referred`.
    pub fn retain(&self, referred: &HashSet<ObjectKey>) {
        self.known.lock().retain(|key, entry| {
            let keep = referred.contains(key);
            if !keep {
                entry.watch.abort();
            }
            keep
        });
    }

    async fn follow(self, key: ObjectKey) {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        loop {
            let mut states = watcher::watch_object(api.clone(), &key.name)
                .backoff(BACKOFF.delays())
                .boxed();
            loop {
                match states.try_next().await {
                    Ok(Some(found)) => {
                        let state = found.map_or(SecretState::Missing, |mut secret| {
                            secret.metadata.managed_fields = None;
                            SecretState::Present(Arc::new(secret))
                        });
                        self.learn(&key, state);
                    }
                    Ok(None) => break,
                    Err(error) if is_forbidden(&error) => {
                        self.learn(&key, SecretState::NotGranted);
                        break;
                    }
                    // The error contains no content; the stream retries by itself.
                    Err(error) => {
                        tracing::debug!(secret = %key, %error, "a Secret could not be watched")
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn learn(&self, key: &ObjectKey, state: SecretState) {
        let news = {
            let mut known = self.known.lock();
            let Some(entry) = known.get_mut(key) else {
                return;
            };
            let news = !same(&entry.state, &state);
            entry.state = state;
            news
        };
        if news {
            // The receiver lives until the process ends.
            let _ = self.changed.send(key.clone());
        }
    }
}

#[cfg(test)]
impl Secrets {
    /// Stores the state of a Secret that was requested before, as a watch would.
    pub(crate) fn put(&self, key: &ObjectKey, state: SecretState) {
        self.learn(key, state);
    }
}

fn same(old: &SecretState, new: &SecretState) -> bool {
    match (old, new) {
        (SecretState::Present(old), SecretState::Present(new)) => {
            old.data == new.data && old.type_ == new.type_
        }
        _ => std::mem::discriminant(old) == std::mem::discriminant(new),
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 403,
        watcher::Error::WatchError(status) => status.code == 403,
        _ => false,
    }
}
