//! Key-value store in the memory of a node.
//!
//! The store is a cache: it evicts entries that were not used for the longest time. A namespace has a quota, and
//! evicts its own entries to stay within it. When all namespaces together need more than the node has, the namespace
//! that uses the most loses entries. A namespace that uses at most the capacity divided by the number of namespaces
//! with entries therefore never loses an entry because of another one. Shares as those of
//! [`FairShares`](crate::fair_shares::FairShares) would not do: they are for what is given back soon, and entries stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::namespace::{Namespace, cost};
use super::{
    BucketId, KeyPage, KeyValueError, SwapError, Value, Version, VersionedValue, add_to_text,
};

/// Memory of the store. An entry is charged for its key, its value and 256 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Size of all entries in bytes. Default: 64 MiB.
    pub total: u64,
    /// Size of the entries of one namespace in bytes. Default: 16 MiB.
    pub namespace: u64,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self {
            total: 64 << 20,
            namespace: 16 << 20,
        }
    }
}

/// Number of evicted entries by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evictions {
    /// Evicted because their namespace had reached its quota.
    pub namespace: u64,
    /// Evicted because all namespaces together had reached the capacity of the node.
    pub node: u64,
}

/// Entries of all namespaces. It has no `Debug` output, because values are confidential.
pub struct MemoryStore {
    limits: MemoryLimits,
    namespaces: BTreeMap<Arc<str>, Namespace>,
    /// The namespaces by the size of their entries.
    by_size: BTreeSet<(u64, Arc<str>)>,
    used: u64,
    entries: usize,
    /// Counts reads and writes: time of the last use, version, and order of creation.
    sequence: u64,
    evictions: Evictions,
}

impl MemoryStore {
    /// Returns an empty store.
    #[must_use]
    pub fn new(limits: MemoryLimits) -> Self {
        Self {
            limits,
            namespaces: BTreeMap::new(),
            by_size: BTreeSet::new(),
            used: 0,
            entries: 0,
            sequence: 0,
            evictions: Evictions::default(),
        }
    }

    /// Returns the limits.
    #[must_use]
    pub fn limits(&self) -> MemoryLimits {
        self.limits
    }

    /// Returns the size in bytes for which all entries are charged.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Returns the number of entries.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Returns the number of evicted entries.
    #[must_use]
    pub fn evictions(&self) -> Evictions {
        self.evictions
    }

    /// Returns the value and the version of an entry.
    pub fn read(&mut self, bucket: &BucketId, key: &str) -> Option<VersionedValue> {
        let now = self.next();
        let namespace = self.namespaces.get_mut(&bucket.namespace)?;
        namespace.read(&bucket.label, key, now)
    }

    /// Returns the version of an entry. It does not count as a use.
    #[must_use]
    pub fn version(&self, bucket: &BucketId, key: &str) -> Option<Version> {
        let namespace = self.namespaces.get(&bucket.namespace)?;
        namespace.version(&bucket.label, key)
    }

    /// Creates or replaces an entry, and evicts others if it needs their memory.
    ///
    /// # Errors
    /// Fails when the entry does not fit into the quota of the namespace, or needs memory of namespaces that use less.
    pub fn write(
        &mut self,
        bucket: &BucketId,
        key: &str,
        value: Value,
    ) -> Result<(), KeyValueError> {
        self.write_copy(bucket, key, value, Duration::ZERO)
    }

    /// Creates or replaces a copy of an entry of another store, which was read at `fetched`.
    ///
    /// # Errors
    /// Fails like [`write`](Self::write).
    pub(super) fn write_copy(
        &mut self,
        bucket: &BucketId,
        key: &str,
        value: Value,
        fetched: Duration,
    ) -> Result<(), KeyValueError> {
        self.make_room(bucket, key, cost(key, &value))?;
        let now = self.next();
        self.change(&bucket.namespace, |namespace| {
            namespace.write(&bucket.label, key, value, now, fetched);
        });
        Ok(())
    }

    /// Returns the copy of an entry of another store if it was read after `oldest`; removes an older one.
    pub(super) fn read_copy(
        &mut self,
        bucket: &BucketId,
        key: &str,
        oldest: Duration,
    ) -> Option<Value> {
        let namespace = self.namespaces.get(&bucket.namespace)?;
        if namespace.fetched(&bucket.label, key)? < oldest {
            self.delete(bucket, key);
            return None;
        }
        self.read(bucket, key).map(|read| read.value)
    }

    /// Replaces an entry if it still has the version `expected`; with `None`, creates it if it does not exist.
    ///
    /// # Errors
    /// Fails with the present version when that is another one, and like [`write`](Self::write).
    pub fn swap(
        &mut self,
        bucket: &BucketId,
        key: &str,
        expected: Option<Version>,
        value: Value,
    ) -> Result<(), SwapError> {
        let present = self.version(bucket, key);
        if present != expected {
            return Err(SwapError::Changed(present));
        }
        Ok(self.write(bucket, key, value)?)
    }

    /// Adds `delta` to the number in an entry and returns the sum. An absent entry counts as 0.
    ///
    /// # Errors
    /// Fails when the entry holds no number, when the sum is below `lowest` or too large, and like
    /// [`write`](Self::write). The entry is unchanged then.
    pub fn increment(
        &mut self,
        bucket: &BucketId,
        key: &str,
        delta: i64,
        lowest: i64,
    ) -> Result<i64, KeyValueError> {
        let present = self.read(bucket, key);
        let sum = add_to_text(present.as_ref().map(|read| &*read.value), delta, lowest)?;
        self.write(bucket, key, sum.to_string().into_bytes().into())?;
        Ok(sum)
    }

    /// Removes an entry, if it exists.
    pub fn delete(&mut self, bucket: &BucketId, key: &str) {
        if self.namespaces.contains_key(&bucket.namespace) {
            self.change(&bucket.namespace, |namespace| {
                namespace.remove(&bucket.label, key);
            });
        }
    }

    /// Returns the keys of a bucket after a position that an earlier page ended with. An entry that exists during the
    /// whole listing is on exactly one page.
    #[must_use]
    pub fn list(&self, bucket: &BucketId, after: Option<u64>) -> KeyPage {
        let namespace = self.namespaces.get(&bucket.namespace);
        namespace.map_or_else(KeyPage::default, |namespace| {
            namespace.list(&bucket.label, after)
        })
    }

    /// Removes the entries of all buckets but these.
    pub fn retain(&mut self, kept: &BTreeSet<BucketId>) {
        let names: Vec<Arc<str>> = self.namespaces.keys().cloned().collect();
        for name in names {
            self.change(&name, |namespace| {
                namespace.retain(|label| {
                    kept.contains(&BucketId {
                        namespace: name.clone(),
                        label: label.clone(),
                    })
                });
            });
        }
    }

    fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Evicts entries until an entry of `needed` bytes can replace that of the key.
    fn make_room(
        &mut self,
        bucket: &BucketId,
        key: &str,
        needed: u64,
    ) -> Result<(), KeyValueError> {
        let own = self.namespaces.get(&bucket.namespace);
        let replaced = own.map_or(0, |own| own.cost_of(&bucket.label, key));
        let kept = Some((&*bucket.label, key));
        let after = |store: &Self| {
            let own = store.namespaces.get(&bucket.namespace);
            own.map_or(0, Namespace::bytes) - replaced + needed
        };
        let quota = self.limits.namespace.min(self.limits.total);
        while after(self) > quota {
            if !self.evict(&bucket.namespace, kept) {
                return Err(KeyValueError::NoRoom);
            }
            self.evictions.namespace += 1;
        }
        while self.used - replaced + needed > self.limits.total {
            let mut by_size = self.by_size.iter().rev();
            let largest_other = by_size.find(|(_, name)| *name != bucket.namespace);
            let evicted = match largest_other {
                Some((size, name)) if *size > after(self) => {
                    let name = name.clone();
                    self.evict(&name, None)
                }
                _ => self.evict(&bucket.namespace, kept),
            };
            if !evicted {
                return Err(KeyValueError::NoRoom);
            }
            self.evictions.node += 1;
        }
        Ok(())
    }

    /// Evicts one entry of a namespace. Returns false when it has none but `kept`.
    fn evict(&mut self, namespace: &Arc<str>, kept: Option<(&str, &str)>) -> bool {
        self.namespaces.contains_key(namespace)
            && self.change(namespace, |namespace| namespace.evict(kept))
    }

    /// Changes a namespace and updates what the store knows about it.
    fn change<T>(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Namespace) -> T) -> T {
        let namespace = self.namespaces.entry(name.clone()).or_default();
        let before = (namespace.bytes(), namespace.entries());
        let result = change(namespace);
        let after = (namespace.bytes(), namespace.entries());
        self.used = self.used - before.0 + after.0;
        self.entries = self.entries - before.1 + after.1;
        self.by_size.remove(&(before.0, name.clone()));
        if after.1 == 0 {
            self.namespaces.remove(name);
        } else {
            self.by_size.insert((after.0, name.clone()));
        }
        result
    }
}

#[cfg(test)]
mod tests;
