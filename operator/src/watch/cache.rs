//! One kind of object, held in memory as the API server last said.
//!
//! A list is compared with what is held, so a re-list tells only differences. Objects that cannot be decoded
//! are skipped one by one: the last good version stays, and the watch goes on. Many deletions at once are confirmed by
//! the API server before they are believed; see `mass_deletion.rs`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use futures::future::BoxFuture;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use super::index::{Indexed, Inserted, Objects, Term};
use super::mass_deletion::{MassDeletionGuard, Pending};
use super::backoff::WatchBackoff;

/// Namespace (empty for cluster scope) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace, empty for cluster scope.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// What happened to an object.
#[derive(Debug, Clone)]
pub enum Change<K> {
    /// It is new or different; the terms that its former version had and this one does not.
    Applied(Arc<K>, Vec<Term>),
    /// It is gone: its last state, and the version of its deletion (0 when a list no longer had it).
    Deleted(Arc<K>, u64),
}

/// The objects of one kind. Cheap to clone; clones share.
pub struct Cache<K> {
    objects: Arc<RwLock<Objects<K>>>,
    unreadable: Arc<RwLock<BTreeMap<ObjectKey, String>>>,
    filled: Arc<watch::Sender<bool>>,
}

// === impl ObjectKey ===

impl ObjectKey {
    /// From parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Of an object.
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
    /// The object, whatever happened to it.
    #[must_use]
    pub fn into_object(self) -> Arc<K> {
        match self {
            Self::Applied(object, _) | Self::Deleted(object, _) => object,
        }
    }
}

// === impl Cache ===

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            objects: Arc::clone(&self.objects),
            unreadable: Arc::clone(&self.unreadable),
            filled: Arc::clone(&self.filled),
        }
    }
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            objects: Arc::default(),
            unreadable: Arc::default(),
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
    /// The object, if there is one.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.read(|objects| objects.get(key).cloned())
    }

    /// All objects, in order of their keys.
    #[must_use]
    pub fn all(&self) -> BTreeMap<ObjectKey, Arc<K>> {
        self.read(|objects| (**objects).clone())
    }

    /// Those for which `wanted` holds, in no order.
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

    /// Keys of all objects of a namespace, in order of their names.
    pub(super) fn keys_in_namespace(&self, namespace: &str) -> Vec<ObjectKey> {
        let from = ObjectKey::new(namespace, "");
        self.read(|objects| {
            let keys = objects.range(from..).map(|(key, _)| key);
            keys.take_while(|key| &*key.namespace == namespace)
                .cloned()
                .collect()
        })
    }

    /// Those with a term, in order of their keys. The cost grows with their number, not with that of all objects.
    #[must_use]
    pub fn find(&self, term: &Term) -> Vec<Arc<K>> {
        self.read(|objects| objects.find(term))
    }

    /// Objects whose newest version cannot be decoded, and why; an older version may still be held.
    #[must_use]
    pub fn unreadable(&self) -> BTreeMap<ObjectKey, String> {
        self.unreadable
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes an object as a write of our own returned it, ahead of the watch.
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

    /// Puts an object in as a watch would.
    #[cfg(test)]
    pub(crate) fn put(&self, object: K)
    where
        K: Resource + Indexed,
    {
        self.write(|objects| objects.insert(ObjectKey::of(&object), Arc::new(object)));
        self.filled.send_replace(true);
    }

    /// Says that the newest version of an object cannot be decoded, as a watch would.
    #[cfg(test)]
    pub(crate) fn put_unreadable(&self, key: &ObjectKey, why: &str) {
        self.unreadable
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), why.to_owned());
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read(|objects| objects.len())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a complete list has been seen.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        *self.filled.borrow()
    }

    /// Waits for the first complete list.
    pub async fn filled(&self) {
        // The sender lives as long as this cache.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    fn read<T>(&self, look: impl FnOnce(&Objects<K>) -> T) -> T {
        look(&self.objects.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Objects<K>) -> T) -> T {
        change(&mut self.objects.write().unwrap_or_else(PoisonError::into_inner))
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
    /// Keeps the cache in step with the API server, for ever; `told` hears of every difference.
    pub fn watch(
        &self,
        api: Api<K>,
        brake: MassDeletionGuard,
        slim: impl Fn(&mut K) + Send + 'static,
        told: impl Fn(Change<K>) + Send + 'static,
    ) -> BoxFuture<'static, ()>
    where
        DeserializeGuard<K>: Resource<DynamicType = ()>,
    {
        Box::pin(self.clone().follow(api, brake, slim, |_, _| true, told))
    }

    /// Like [`Cache::watch`], but tells of a change only if `differs(old, new)`.
    pub fn watch_if(
        &self,
        api: Api<K>,
        slim: impl Fn(&mut K) + Send + 'static,
        differs: impl Fn(&K, &K) -> bool + Send + 'static,
        told: impl Fn(Change<K>) + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        Box::pin(self.clone().follow(api, MassDeletionGuard::Free, slim, differs, told))
    }

    async fn follow(
        self,
        api: Api<K>,
        brake: MassDeletionGuard,
        slim: impl Fn(&mut K) + Send,
        differs: impl Fn(&K, &K) -> bool + Send,
        told: impl Fn(Change<K>) + Send,
    ) {
        let client = api.into_client();
        let mut pending = Pending::new(brake, client.clone());
        let guarded: Api<DeserializeGuard<K>> = Api::all(client);
        let mut events = watcher(guarded, watcher::Config::default())
            .backoff(WatchBackoff::default())
            .boxed();
        let mut listed: Option<HashMap<ObjectKey, ()>> = None;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                gone = pending.confirmed(&self) => {
                    for (object, version) in gone {
                        self.forget(object, version, &told);
                    }
                    continue;
                }
            };
            match event {
                Some(Ok(watcher::Event::Init)) => listed = Some(HashMap::new()),
                Some(Ok(watcher::Event::InitApply(guard) | watcher::Event::Apply(guard))) => {
                    let key = ObjectKey::of(&guard);
                    if let Some(listed) = listed.as_mut() {
                        listed.insert(key.clone(), ());
                    }
                    pending.came_back(&key);
                    self.accept(key, guard, &slim, &differs, &told);
                }
                Some(Ok(watcher::Event::Delete(guard))) => {
                    let key = ObjectKey::of(&guard);
                    self.set_readable(&key);
                    self.lose(vec![(key, version(&guard))], &mut pending, &told);
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
                    self.lose(gone, &mut pending, &told);
                    self.unreadable
                        .write()
                        .unwrap_or_else(PoisonError::into_inner)
                        .retain(|key, _| listed.contains_key(key));
                    self.filled.send_replace(true);
                }
                Some(Err(error)) => {
                    tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted; what is known stays in use");
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
        told: &impl Fn(Change<K>),
    ) {
        let mut object = match guard.0 {
            Ok(object) => object,
            Err(invalid) => {
                tracing::error!(kind = %K::kind(&()), object = %key, error = %invalid.error, "cannot be read and is skipped");
                self.unreadable
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(key, invalid.error);
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
            told(Change::Applied(object, dropped));
        }
    }

    fn lose(
        &self,
        keys: Vec<(ObjectKey, u64)>,
        pending: &mut Pending<K>,
        told: &impl Fn(Change<K>),
    ) {
        let now = Instant::now();
        let total = self.len();
        let gone = keys
            .iter()
            .filter_map(|(key, version)| Some((self.get(key)?, *version)))
            .collect();
        for (object, version) in pending.sort(gone, total, now) {
            self.forget(object, version, told);
        }
    }

    fn forget(&self, object: Arc<K>, version: u64, told: &impl Fn(Change<K>)) {
        self.write(|objects| objects.remove(&ObjectKey::of(&*object)));
        told(Change::Deleted(object, version));
    }

    fn set_readable(&self, key: &ObjectKey) {
        self.unreadable
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

/// The object's `resourceVersion` as a number; 0 when it has none.
pub(crate) fn version<K: Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
#[path = "cache_watch_tests.rs"]
mod watch_tests;
