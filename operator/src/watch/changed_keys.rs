//! Subscriptions to the keys of the objects of a cache that change.
//!
//! Keys accumulate in a set between two reads, so a slow subscriber misses nothing and needs no more memory than the keys. They
//! include the objects that this replica wrote itself ([`Cache::learn`](super::Cache::learn)), which a watch does not report again.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::ObjectKey;

#[derive(Default)]
struct Mailbox {
    keys: Mutex<BTreeSet<ObjectKey>>,
    filled: Notify,
}

/// A subscription; dropping it ends it. It begins with the keys of all objects that exist.
pub struct ChangedKeys(Arc<Mailbox>);

/// The subscribers of one cache.
#[derive(Default)]
pub(super) struct Subscribers(Vec<Weak<Mailbox>>);

impl ChangedKeys {
    /// Waits until objects have changed, and returns the keys of all that were written or removed since the last call.
    /// A call that is dropped loses no key.
    pub async fn next(&mut self) -> BTreeSet<ObjectKey> {
        loop {
            let keys = std::mem::take(&mut *self.0.keys.lock());
            if !keys.is_empty() {
                return keys;
            }
            self.0.filled.notified().await;
        }
    }
}

impl Subscribers {
    pub(super) fn add(&mut self, present: BTreeSet<ObjectKey>) -> ChangedKeys {
        let mailbox = Arc::new(Mailbox {
            keys: Mutex::new(present),
            filled: Notify::new(),
        });
        self.0.retain(|subscriber| subscriber.strong_count() > 0);
        self.0.push(Arc::downgrade(&mailbox));
        ChangedKeys(mailbox)
    }

    pub(super) fn publish(&self, key: &ObjectKey) {
        for mailbox in self.0.iter().filter_map(Weak::upgrade) {
            mailbox.keys.lock().insert(key.clone());
            mailbox.filled.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use crds::HostClaim;

    use super::*;
    use crate::watch::Cache;

    fn claim(name: &str, version: &str) -> HostClaim {
        let metadata = serde_json::json!({ "name": name, "resourceVersion": version });
        let spec = serde_json::json!({ "host": name, "namespace": "shop" });
        serde_json::from_value(serde_json::json!({
            "apiVersion": "selvage.dev/v1alpha1", "kind": "HostClaim", "metadata": metadata, "spec": spec,
        }))
        .unwrap()
    }

    fn keys(names: &[&str]) -> BTreeSet<ObjectKey> {
        names.iter().map(|name| ObjectKey::new("", name)).collect()
    }

    #[tokio::test]
    async fn a_subscription_begins_with_what_exists_and_collects_what_changes() {
        let cache = Cache::<HostClaim>::default();
        cache.put(claim("a", "1"));
        cache.put(claim("b", "2"));
        let mut changed = cache.subscribe();
        assert_eq!(changed.next().await, keys(&["a", "b"]));
        // a write of this process, a change, and a deletion
        cache.learn(claim("b", "3"));
        cache.put(claim("c", "4"));
        cache.take(&ObjectKey::new("", "a"));
        assert_eq!(changed.next().await, keys(&["a", "b", "c"]));
        // older than what is known, and absent: no changes
        cache.learn(claim("b", "1"));
        cache.take(&ObjectKey::new("", "x"));
        cache.put(claim("d", "5"));
        assert_eq!(changed.next().await, keys(&["d"]));
    }
}
