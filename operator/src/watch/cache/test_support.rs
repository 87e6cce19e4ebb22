//! Changes of a cache without an API server, for tests.

use std::sync::Arc;

use kube::Resource;

use super::{Cache, ObjectKey, Undecodable};
use crate::watch::Indexed;

impl<K> Cache<K> {
    /// Stores an object as a watch would.
    pub(crate) fn put(&self, object: K)
    where
        K: Resource + Indexed,
    {
        self.write(|objects| objects.insert(ObjectKey::of(&object), Arc::new(object)));
        self.filled.send_replace(true);
    }

    /// Removes an object as a watch would.
    pub(crate) fn take(&self, key: &ObjectKey)
    where
        K: Indexed,
    {
        self.write(|objects| objects.remove(key));
    }

    /// Records that the newest version of an object cannot be decoded, as a watch would.
    pub(crate) fn put_unreadable(&self, key: &ObjectKey, why: &str) {
        let newest = Undecodable {
            error: why.to_owned(),
            uid: format!("uid-{}", key.name),
        };
        self.unreadable.write().insert(key.clone(), newest);
    }

    /// Marks the cache as complete, as the end of the first list would.
    pub(crate) fn fill(&self) {
        self.filled.send_replace(true);
    }
}
