//! Objects that functions refer to by name, each with a watch of its own.
//!
//! The first read of an object starts its watch, and the watch ends when nothing refers to the object any longer. The
//! memory and the permissions that the operator needs therefore follow the references, not the objects of the cluster.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::core::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::{BACKOFF, ObjectKey};

/// Interval between two attempts to read an object that the operator is not permitted to read. A permission cannot be
/// watched.
pub const RETRY: Duration = Duration::from_secs(30);

/// Kinds whose objects functions refer to by name.
pub trait Referable:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + DeserializeOwned
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
    /// Removes the parts that are never read, so that they are not kept in memory.
    fn slim(&mut self);

    /// Whether both versions of an object have the same content. Other changes concern no function.
    fn has_content_of(&self, other: &Self) -> bool;
}

/// State of one object.
#[derive(Clone)]
pub enum ObjectState<K> {
    /// The object has not been read yet. Nothing follows from that, in particular not that it does not exist.
    Unknown,
    /// The operator is not permitted to read the object.
    NotGranted,
    /// The object does not exist.
    Missing,
    /// Content of the object.
    Present(Arc<K>),
}

/// Objects of one kind by name. Clones are cheap and share the content.
#[derive(Clone)]
pub struct ReferencedObjects<K> {
    client: Client,
    known: Arc<Mutex<HashMap<ObjectKey, Entry<K>>>>,
    changed: mpsc::UnboundedSender<ObjectKey>,
}

struct Entry<K> {
    state: ObjectState<K>,
    watch: AbortHandle,
}

// === impl ObjectState ===

impl<K> fmt::Debug for ObjectState<K> {
    /// Writes no content, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "Unknown",
            Self::NotGranted => "NotGranted",
            Self::Missing => "Missing",
            Self::Present(_) => "Present",
        })
    }
}

impl<K: Referable> ObjectState<K> {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present(one), Self::Present(other)) => one.has_content_of(other),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

// === impl ReferencedObjects ===

impl<K: Resource<DynamicType = ()>> fmt::Debug for ReferencedObjects<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReferencedObjects")
            .field("kind", &K::kind(&()))
            .field("known", &self.known.lock().len())
            .finish_non_exhaustive()
    }
}

impl<K: Referable> ReferencedObjects<K> {
    /// Creates an empty cache; `changed` receives the key of every object whose state changes.
    #[must_use]
    pub fn new(client: Client, changed: mpsc::UnboundedSender<ObjectKey>) -> Self {
        Self {
            client,
            known: Arc::default(),
            changed,
        }
    }

    /// Returns the state of an object; starts to watch it on the first call.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> ObjectState<K> {
        let mut known = self.known.lock();
        if let Some(entry) = known.get(key) {
            return entry.state.clone();
        }
        let watch = tokio::spawn(self.clone().follow(key.clone())).abort_handle();
        let state = ObjectState::Unknown;
        known.insert(key.clone(), Entry { state, watch });
        ObjectState::Unknown
    }

    /// Forgets every object for which `is_referred` does not hold, and ends its watch.
    pub fn retain(&self, is_referred: impl Fn(&ObjectKey) -> bool) {
        self.known.lock().retain(|key, entry| {
            let keep = is_referred(key);
            if !keep {
                entry.watch.abort();
            }
            keep
        });
    }

    async fn follow(self, key: ObjectKey) {
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        loop {
            let mut states = watcher::watch_object(api.clone(), &key.name)
                .backoff(BACKOFF.delays())
                .boxed();
            loop {
                match states.try_next().await {
                    Ok(Some(found)) => {
                        let state = found.map_or(ObjectState::Missing, |mut object| {
                            object.slim();
                            ObjectState::Present(Arc::new(object))
                        });
                        self.learn(&key, state);
                    }
                    Ok(None) => break,
                    Err(error) if is_forbidden(&error) => {
                        self.learn(&key, ObjectState::NotGranted);
                        break;
                    }
                    // The error contains no content; the stream retries by itself.
                    Err(error) => {
                        tracing::debug!(kind = %K::kind(&()), object = %key, %error, "a referenced object could not be watched")
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn learn(&self, key: &ObjectKey, state: ObjectState<K>) {
        let is_news = {
            let mut known = self.known.lock();
            let Some(entry) = known.get_mut(key) else {
                return;
            };
            let is_news = !entry.state.is_same(&state);
            entry.state = state;
            is_news
        };
        if is_news {
            // The receiver lives until the process ends.
            let _ = self.changed.send(key.clone());
        }
    }
}

#[cfg(test)]
impl<K: Referable> ReferencedObjects<K> {
    /// Stores the state of an object that was requested before, as a watch would.
    pub(crate) fn put(&self, key: &ObjectKey, state: ObjectState<K>) {
        self.learn(key, state);
    }

    /// Keys of the objects that are watched, in order.
    pub(crate) fn watched(&self) -> Vec<ObjectKey> {
        let mut keys: Vec<ObjectKey> = self.known.lock().keys().cloned().collect();
        keys.sort();
        keys
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
