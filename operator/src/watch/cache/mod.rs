//! An in-memory cache of the objects of one kind, as last received from the API server.
//!
//! A list is compared with the cache, so that a re-list reports only differences. An object that cannot be decoded is
//! skipped: its last good version stays, and the watch continues. Many deletions at once are confirmed by the API
//! server before they are applied; see `mass_deletion.rs`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use super::BACKOFF;
use super::changed_keys::ChangedKeys;
use super::index::{Indexed, Inserted, Objects, Term};
use super::mass_deletion::{Doubted, MassDeletionGuard, Pending};
use crate::failure_log::FailureLog;

/// Namespace (empty for cluster-scoped objects) and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
}

/// A change of an object.
#[derive(Debug, Clone)]
pub enum Change<K> {
    /// The object was created or changed. With the terms that its previous version had and this one does not.
    Applied(Arc<K>, Vec<Term>),
    /// The object was deleted. With its last state, and the version of its deletion (0 when a list no longer had it).
    Deleted(Arc<K>, u64),
    /// An object that could never be decoded was deleted. With the version of its deletion, as above.
    Vanished(ObjectKey, u64),
}

/// The objects of one kind. Clones are cheap and share the content.
pub struct Cache<K> {
    objects: Arc<RwLock<Objects<K>>>,
    unreadable: Arc<RwLock<BTreeMap<ObjectKey, Undecodable>>>,
    doubted: Doubted,
    filled: Arc<watch::Sender<bool>>,
}

/// The newest version of an object, which cannot be decoded.
#[derive(Debug, Clone, Default)]
struct Undecodable {
    error: String,
    uid: String,
}

// === impl ObjectKey ===

impl ObjectKey {
    /// Creates a key from its parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Returns the key of an object.
    #[must_use]
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

// === impl Change ===

impl<K> Change<K> {
    /// Returns the object, whether it was applied or deleted. `None` if it could never be decoded.
    #[must_use]
    pub fn into_object(self) -> Option<Arc<K>> {
        match self {
            Self::Applied(object, _) | Self::Deleted(object, _) => Some(object),
            Self::Vanished(..) => None,
        }
    }
}

// === impl Cache ===

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            objects: Arc::clone(&self.objects),
            unreadable: Arc::clone(&self.unreadable),
            doubted: Arc::clone(&self.doubted),
            filled: Arc::clone(&self.filled),
        }
    }
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            objects: Arc::default(),
            unreadable: Arc::default(),
            doubted: Arc::default(),
            filled: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl<K> fmt::Debug for Cache<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("objects", &self.len())
            .finish_non_exhaustive()
    }
}

impl<K> Cache<K> {
    /// Returns an object, or `None` if it does not exist.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.read(|objects| objects.get(key).cloned())
    }

    /// Returns all objects, in order of their keys.
    #[must_use]
    pub fn all(&self) -> BTreeMap<ObjectKey, Arc<K>> {
        self.read(|objects| (**objects).clone())
    }

    /// Returns the objects for which `wanted` holds, in no particular order.
    #[must_use]
    pub fn filter(&self, wanted: impl Fn(&ObjectKey, &K) -> bool) -> Vec<Arc<K>> {
        self.read(|objects| {
            objects
                .iter()
                .filter(|(key, object)| wanted(key, object))
                .map(|(_, object)| Arc::clone(object))
                .collect()
        })
    }

    /// Returns the keys of all objects of a namespace, in order of their names.
    pub(super) fn keys_in_namespace(&self, namespace: &str) -> Vec<ObjectKey> {
        let from = ObjectKey::new(namespace, "");
        self.read(|objects| {
            let keys = objects.range(from..).map(|(key, _)| key);
            keys.take_while(|key| &*key.namespace == namespace)
                .cloned()
                .collect()
        })
    }

    /// Returns the objects with a term, in order of their keys. The cost grows with the number of results, not with
    /// that of all objects.
    #[must_use]
    pub fn find(&self, term: &Term) -> Vec<Arc<K>> {
        self.read(|objects| objects.find(term))
    }

    /// Subscribes to the keys of objects that change, beginning with all that exist.
    #[must_use]
    pub fn subscribe(&self) -> ChangedKeys {
        self.write(Objects::subscribe)
    }

    /// Whether the object disappeared together with many others and the API server has not confirmed its deletion.
    #[must_use]
    pub fn is_doubted(&self, key: &ObjectKey) -> bool {
        self.doubted.read().contains(key)
    }

    /// Objects whose newest version cannot be decoded, with the error; an older version may still be cached.
    #[must_use]
    pub fn unreadable(&self) -> BTreeMap<ObjectKey, String> {
        let unreadable = self.unreadable.read();
        let errors = unreadable.iter();
        errors
            .map(|(key, newest)| (key.clone(), newest.error.clone()))
            .collect()
    }

    /// Objects of which no version could be decoded, with their uids.
    #[must_use]
    pub fn never_decoded(&self) -> BTreeMap<ObjectKey, String> {
        let unreadable = self.unreadable.read();
        let never = unreadable.iter();
        never
            .filter(|(key, _)| self.get(key).is_none())
            .map(|(key, newest)| (key.clone(), newest.uid.clone()))
            .collect()
    }

    /// Stores an object that the API server returned to a write of this process, ahead of the watch.
    pub fn learn(&self, object: K)
    where
        K: Resource + Indexed,
    {
        let key = ObjectKey::of(&object);
        self.write(|objects| {
            if objects
                .get(&key)
                .is_none_or(|held| version(&**held) < version(&object))
            {
                objects.insert(key, Arc::new(object));
            }
        });
    }

    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read(|objects| objects.len())
    }

    /// Whether the cache has no objects.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a complete list has been received.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        *self.filled.borrow()
    }

    /// Waits for the first complete list.
    pub async fn filled(&self) {
        // The sender lives as long as this cache, so this wait cannot fail.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    fn read<T>(&self, f: impl FnOnce(&Objects<K>) -> T) -> T {
        f(&self.objects.read())
    }

    fn write<T>(&self, change: impl FnOnce(&mut Objects<K>) -> T) -> T {
        change(&mut self.objects.write())
    }
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()>
        + Indexed
        + DeserializeOwned
        + Clone
        + fmt::Debug
        + Send
        + Sync
        + 'static,
{
    /// Keeps the cache in step with the API server and never returns. Calls `on_change` with every difference.
    pub fn watch(
        &self,
        api: Api<K>,
        deletion_guard: MassDeletionGuard,
        slim: impl Fn(&mut K) + Send + 'static,
        on_change: impl Fn(Change<K>) + Send + 'static,
    ) -> BoxFuture<'static, ()>
    where
        DeserializeGuard<K>: Resource<DynamicType = ()>,
    {
        Box::pin(
            self.clone()
                .follow(api, deletion_guard, slim, |_, _| true, on_change),
        )
    }

    /// Like [`Cache::watch`], but reports a change only if `differs(old, new)`.
    pub fn watch_if(
        &self,
        api: Api<K>,
        slim: impl Fn(&mut K) + Send + 'static,
        differs: impl Fn(&K, &K) -> bool + Send + 'static,
        on_change: impl Fn(Change<K>) + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        Box::pin(
            self.clone()
                .follow(api, MassDeletionGuard::Free, slim, differs, on_change),
        )
    }

    async fn follow(
        self,
        api: Api<K>,
        deletion_guard: MassDeletionGuard,
        slim: impl Fn(&mut K) + Send,
        differs: impl Fn(&K, &K) -> bool + Send,
        on_change: impl Fn(Change<K>) + Send,
    ) {
        let client = api.into_client();
        let mut pending = Pending::new(deletion_guard, client.clone(), Arc::clone(&self.doubted));
        let guarded: Api<DeserializeGuard<K>> = Api::all(client);
        let mut events = watcher(guarded, watcher::Config::default())
            .backoff(BACKOFF.delays())
            .boxed();
        let mut listed: Option<HashMap<ObjectKey, ()>> = None;
        let mut log = FailureLog::default();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                gone = pending.confirmed(&self) => {
                    for (object, version) in gone {
                        self.forget(object, version, &on_change);
                    }
                    continue;
                }
            };
            // A list begins with an event before the API server is asked.
            if matches!(&event, Some(Ok(event)) if !matches!(event, watcher::Event::Init))
                && let Some(failures) = log.succeeded()
            {
                tracing::info!(kind = %K::kind(&()), failures, "watching again");
            }
            match event {
                Some(Ok(watcher::Event::Init)) => listed = Some(HashMap::new()),
                Some(Ok(watcher::Event::InitApply(guard) | watcher::Event::Apply(guard))) => {
                    let key = ObjectKey::of(&guard);
                    if let Some(listed) = listed.as_mut() {
                        listed.insert(key.clone(), ());
                    }
                    pending.came_back(&key);
                    self.accept(key, guard, &slim, &differs, &on_change);
                }
                Some(Ok(watcher::Event::Delete(guard))) => {
                    let (key, version) = (ObjectKey::of(&guard), version(&guard));
                    if self.set_readable(&key) && self.get(&key).is_none() {
                        on_change(Change::Vanished(key, version));
                    } else {
                        self.lose(vec![(key, version)], &mut pending, &on_change);
                    }
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    let listed = listed.take().unwrap_or_default();
                    let gone = self.read(|objects| {
                        objects
                            .keys()
                            .filter(|key| !listed.contains_key(key))
                            .map(|key| (key.clone(), 0))
                            .collect()
                    });
                    self.lose(gone, &mut pending, &on_change);
                    // A list that many others are missing from is doubted.
                    if pending.is_empty() {
                        self.forget_unreadable(&listed, &on_change);
                    }
                    self.filled.send_replace(true);
                }
                Some(Err(error)) => {
                    if let Some(failures) = log.failed(&error) {
                        tracing::warn!(kind = %K::kind(&()), %error, failures, "watch interrupted; cached objects stay in use");
                    }
                }
                None => return,
            }
        }
    }

    fn accept(
        &self,
        key: ObjectKey,
        guard: DeserializeGuard<K>,
        slim: &impl Fn(&mut K),
        differs: &impl Fn(&K, &K) -> bool,
        on_change: &impl Fn(Change<K>),
    ) {
        let mut object = match guard.0 {
            Ok(object) => object,
            Err(invalid) => {
                tracing::error!(kind = %K::kind(&()), object = %key, error = %invalid.error, "the object cannot be decoded; its last good version stays in use");
                let newest = Undecodable {
                    error: invalid.error,
                    uid: invalid.metadata.uid.unwrap_or_default(),
                };
                self.unreadable.write().insert(key, newest);
                return;
            }
        };
        self.set_readable(&key);
        slim(&mut object);
        let object = Arc::new(object);
        let Inserted { old, dropped } =
            self.write(|objects| objects.insert(key, Arc::clone(&object)));
        let news = old.is_none_or(|old| {
            old.resource_version() != object.resource_version() && differs(&old, &object)
        });
        if news {
            on_change(Change::Applied(object, dropped));
        }
    }

    fn lose(
        &self,
        keys: Vec<(ObjectKey, u64)>,
        pending: &mut Pending<K>,
        on_change: &impl Fn(Change<K>),
    ) {
        let now = Instant::now();
        let total = self.len();
        let gone = keys
            .iter()
            .filter_map(|(key, version)| Some((self.get(key)?, *version)))
            .collect();
        for (object, version) in pending.sort(gone, total, now) {
            self.forget(object, version, on_change);
        }
    }

    fn forget(&self, object: Arc<K>, version: u64, on_change: &impl Fn(Change<K>)) {
        self.write(|objects| objects.remove(&ObjectKey::of(&*object)));
        on_change(Change::Deleted(object, version));
    }

    /// Returns whether the newest version could not be decoded.
    fn set_readable(&self, key: &ObjectKey) -> bool {
        self.unreadable.write().remove(key).is_some()
    }

    /// Forgets objects that could not be decoded and that a list no longer has.
    fn forget_unreadable(&self, listed: &HashMap<ObjectKey, ()>, on_change: &impl Fn(Change<K>)) {
        let mut gone = self.never_decoded();
        gone.retain(|key, _| !listed.contains_key(key));
        self.unreadable
            .write()
            .retain(|key, _| listed.contains_key(key));
        for key in gone.into_keys() {
            on_change(Change::Vanished(key, 0));
        }
    }
}

/// Returns the object's `resourceVersion` as a number; 0 when it has none.
pub(crate) fn version<K: Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
