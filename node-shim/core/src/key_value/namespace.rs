//! Entries of one namespace in the memory store, and the order in which they were used.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::{KeyPage, PAGE_BYTES, PAGE_KEYS, Value, Version, VersionedValue};

/// Size in bytes for which an entry is charged in addition to its key and its value. It covers the indices.
const ENTRY_OVERHEAD: u64 = 256;

/// Returns the size in bytes for which an entry is charged.
pub(super) fn cost(key: &str, value: &[u8]) -> u64 {
    ENTRY_OVERHEAD + key.len() as u64 + value.len() as u64
}

/// Entries of all buckets of one namespace.
#[derive(Default)]
pub(super) struct Namespace {
    buckets: BTreeMap<Arc<str>, Bucket>,
    /// Label and number of each entry by its last use.
    recency: BTreeMap<u64, (Arc<str>, u64)>,
    bytes: u64,
}

#[derive(Default)]
struct Bucket {
    /// Number of the entry with each key.
    numbers: BTreeMap<Arc<str>, u64>,
    /// Entries by number, which is the order of their creation.
    entries: BTreeMap<u64, Entry>,
}

struct Entry {
    key: Arc<str>,
    value: Value,
    version: Version,
    used: u64,
    /// Time at which the value was read from another store; zero for an entry of this one.
    fetched: Duration,
}

impl Namespace {
    /// Returns the size in bytes for which all entries are charged.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the number of entries.
    pub(super) fn entries(&self) -> usize {
        self.recency.len()
    }

    /// Returns the size for which the entry of a key is charged; 0 without an entry.
    pub(super) fn cost_of(&self, label: &str, key: &str) -> u64 {
        self.entry(label, key)
            .map_or(0, |entry| cost(&entry.key, &entry.value))
    }

    pub(super) fn version(&self, label: &str, key: &str) -> Option<Version> {
        self.entry(label, key).map(|entry| entry.version)
    }

    fn entry(&self, label: &str, key: &str) -> Option<&Entry> {
        let bucket = self.buckets.get(label)?;
        bucket.entries.get(bucket.numbers.get(key)?)
    }

    /// Returns the time at which the value of a key was read from another store.
    pub(super) fn fetched(&self, label: &str, key: &str) -> Option<Duration> {
        self.entry(label, key).map(|entry| entry.fetched)
    }

    /// Returns the value of a key and marks its entry as used at `now`.
    pub(super) fn read(&mut self, label: &str, key: &str, now: u64) -> Option<VersionedValue> {
        let bucket = self.buckets.get_mut(label)?;
        let entry = bucket.entries.get_mut(bucket.numbers.get(key)?)?;
        if let Some(place) = self.recency.remove(&entry.used) {
            self.recency.insert(now, place);
        }
        entry.used = now;
        Some(VersionedValue {
            value: entry.value.clone(),
            version: entry.version,
        })
    }

    /// Creates or replaces the entry of a key. `now` becomes its last use and its version.
    pub(super) fn write(
        &mut self,
        label: &Arc<str>,
        key: &str,
        value: Value,
        now: u64,
        fetched: Duration,
    ) {
        let bucket = self.buckets.entry(label.clone()).or_default();
        let (key, number) = match bucket.numbers.get_key_value(key) {
            Some((key, number)) => (key.clone(), *number),
            None => {
                let key: Arc<str> = key.into();
                bucket.numbers.insert(key.clone(), now);
                (key, now)
            }
        };
        self.bytes += cost(&key, &value);
        let entry = Entry {
            key,
            value,
            version: Version::Number(now),
            used: now,
            fetched,
        };
        if let Some(old) = bucket.entries.insert(number, entry) {
            self.bytes -= cost(&old.key, &old.value);
            self.recency.remove(&old.used);
        }
        self.recency.insert(now, (label.clone(), number));
    }

    /// Removes the entry of a key, if there is one.
    pub(super) fn remove(&mut self, label: &str, key: &str) {
        let Some(bucket) = self.buckets.get_mut(label) else {
            return;
        };
        let Some(number) = bucket.numbers.remove(key) else {
            return;
        };
        if let Some(entry) = bucket.entries.remove(&number) {
            self.bytes -= cost(&entry.key, &entry.value);
            self.recency.remove(&entry.used);
        }
        if bucket.entries.is_empty() {
            self.buckets.remove(label);
        }
    }

    /// Removes all entries of the labels that are not kept.
    pub(super) fn retain(&mut self, keep: impl Fn(&Arc<str>) -> bool) {
        let labels = self.buckets.keys().filter(|label| !keep(label));
        let labels: Vec<Arc<str>> = labels.cloned().collect();
        let removed = labels.iter().filter_map(|label| self.buckets.remove(label));
        for entry in removed.flat_map(|bucket| bucket.entries.into_values()) {
            self.bytes -= cost(&entry.key, &entry.value);
            self.recency.remove(&entry.used);
        }
    }

    /// Removes the entry that was not used for the longest time, except that of `kept` (label and key). Returns false
    /// when there is no other entry.
    pub(super) fn evict(&mut self, kept: Option<(&str, &str)>) -> bool {
        let number_kept = kept.and_then(|(label, key)| {
            let number = self.buckets.get(label)?.numbers.get(key)?;
            Some((label, *number))
        });
        let mut oldest = self.recency.values();
        let Some((label, number)) = oldest
            .find(|(label, number)| number_kept != Some((&**label, *number)))
            .cloned()
        else {
            return false;
        };
        let key = self.buckets.get(&label).and_then(|bucket| {
            let entry = bucket.entries.get(&number)?;
            Some(entry.key.clone())
        });
        if let Some(key) = key {
            self.remove(&label, &key);
        }
        true
    }

    /// Returns the keys whose entries were created after the position `after`.
    pub(super) fn list(&self, label: &str, after: Option<u64>) -> KeyPage {
        let Some(bucket) = self.buckets.get(label) else {
            return KeyPage::default();
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = KeyPage::default();
        let (mut bytes, mut last) = (0, None);
        for (number, entry) in bucket.entries.range((start, Bound::Unbounded)) {
            if page.keys.len() == PAGE_KEYS || bytes >= PAGE_BYTES {
                page.next = last;
                break;
            }
            bytes += entry.key.len();
            last = Some(*number);
            page.keys.push(entry.key.clone());
        }
        page
    }
}
