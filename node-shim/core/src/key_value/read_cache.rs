//! Copies of entries of another store in the memory of the node (`localCacheTTL`).
//!
//! A copy is answered for a limited time after it was read. The writes of this node remove it, and a read that a write
//! of the same key overlaps keeps no copy: it may have seen the value from before the write. Copies are entries of the
//! memory store, so the quota of the namespace and the order of use decide how many there are.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::{BucketId, MemoryStore, Value};

/// Number of groups into which keys are divided. A write keeps reads of the keys of its group from leaving copies.
const GROUPS: usize = 64;

/// Decides which reads of one store are answered from copies. Times are those of a clock that never goes back.
#[derive(Debug)]
pub struct ReadCache {
    bucket: BucketId,
    groups: [Group; GROUPS],
}

/// Writes of the keys of one group.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// Number of writes that were started.
    started: u64,
    /// Number of writes that have not finished.
    running: u32,
}

/// What was known when a read started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadStart {
    at: Duration,
    /// Number of writes that were started; `None` when one was running.
    started: Option<u64>,
}

impl ReadCache {
    /// Returns a cache whose copies are in a bucket of the memory store that no component can open.
    #[must_use]
    pub const fn new(bucket: BucketId) -> Self {
        Self {
            bucket,
            groups: [Group {
                started: 0,
                running: 0,
            }; GROUPS],
        }
    }

    /// Returns the bucket of the copies.
    #[must_use]
    pub const fn bucket(&self) -> &BucketId {
        &self.bucket
    }

    /// Returns the value of a copy that was read at most `ttl` before `now`.
    pub fn get(
        &self,
        memory: &mut MemoryStore,
        key: &str,
        ttl: Duration,
        now: Duration,
    ) -> Option<Value> {
        memory.read_copy(&self.bucket, key, now.saturating_sub(ttl))
    }

    /// Starts a read of the other store.
    #[must_use]
    pub fn start_read(&self, key: &str, now: Duration) -> ReadStart {
        let group = self.groups.get(group_of(key)).copied().unwrap_or_default();
        ReadStart {
            at: now,
            started: (group.running == 0).then_some(group.started),
        }
    }

    /// Keeps a copy of the value that a read returned, unless a write of this node overlapped the read or there is no
    /// memory for it.
    pub fn finish_read(&self, memory: &mut MemoryStore, key: &str, value: Value, start: ReadStart) {
        if start.started.is_some() && self.start_read(key, start.at) == start {
            // without memory, the next read asks the other store again
            let _ = memory.write_copy(&self.bucket, key, value, start.at);
        }
    }

    /// Starts a write of the other store, which removes the copy.
    pub fn start_write(&mut self, memory: &mut MemoryStore, key: &str) {
        memory.delete(&self.bucket, key);
        if let Some(group) = self.groups.get_mut(group_of(key)) {
            group.started += 1;
            group.running += 1;
        }
    }

    /// Finishes a write, whether it succeeded or not.
    pub fn finish_write(&mut self, key: &str) {
        if let Some(group) = self.groups.get_mut(group_of(key)) {
            group.running = group.running.saturating_sub(1);
        }
    }
}

fn group_of(key: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % GROUPS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_value::MemoryLimits;

    const TTL: Duration = Duration::from_secs(10);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn cache() -> (ReadCache, MemoryStore) {
        let bucket = BucketId {
            namespace: "ns".into(),
            label: "cart#1".into(),
        };
        let memory = MemoryStore::new(MemoryLimits::default());
        (ReadCache::new(bucket), memory)
    }

    fn value(text: &str) -> Value {
        text.as_bytes().into()
    }

    /// Reads `text` from the other store at `now`.
    fn fill(cache: &ReadCache, memory: &mut MemoryStore, key: &str, text: &str, now: Duration) {
        let start = cache.start_read(key, now);
        cache.finish_read(memory, key, value(text), start);
    }

    #[test]
    fn a_copy_is_answered_until_its_time_ends() {
        let (cache, mut memory) = cache();
        assert_eq!(cache.get(&mut memory, "k", TTL, seconds(1)), None);
        fill(&cache, &mut memory, "k", "1", seconds(100));
        for (at, found) in [(100, true), (110, true), (111, false), (100, false)] {
            let copy = cache.get(&mut memory, "k", TTL, seconds(at));
            assert_eq!(copy.is_some(), found, "at {at} s; an old copy is removed");
        }
        assert_eq!(memory.used(), 0);
        fill(&cache, &mut memory, "k", "2", seconds(200));
        let short = seconds(1);
        assert_eq!(
            cache.get(&mut memory, "k", TTL, seconds(203)),
            Some(value("2"))
        );
        assert_eq!(cache.get(&mut memory, "k", short, seconds(203)), None);
    }

    /// The time of a copy begins with the read, which may have waited for long.
    #[test]
    fn the_time_of_a_slow_read_counts() {
        let (cache, mut memory) = cache();
        let start = cache.start_read("k", seconds(100));
        cache.finish_read(&mut memory, "k", value("1"), start);
        assert!(cache.get(&mut memory, "k", TTL, seconds(111)).is_none());
    }

    #[test]
    fn a_write_of_the_node_removes_the_copy_at_once() {
        let (mut cache, mut memory) = cache();
        fill(&cache, &mut memory, "k", "1", seconds(1));
        cache.start_write(&mut memory, "k");
        assert_eq!(cache.get(&mut memory, "k", TTL, seconds(1)), None);
        cache.finish_write("k");
        fill(&cache, &mut memory, "k", "2", seconds(2));
        assert_eq!(
            cache.get(&mut memory, "k", TTL, seconds(2)),
            Some(value("2"))
        );
    }

    #[test]
    fn a_read_that_overlaps_a_write_keeps_no_copy() {
        type Step = fn(&mut ReadCache, &mut MemoryStore, &mut Option<ReadStart>);
        let read: Step = |cache, _, start| *start = Some(cache.start_read("k", seconds(1)));
        let answer: Step = |cache, memory, start| {
            cache.finish_read(memory, "k", value("1"), start.take().unwrap());
        };
        let write: Step = |cache, memory, _| cache.start_write(memory, "k");
        let done: Step = |cache, _, _| cache.finish_write("k");
        let table: [(&str, &[Step], bool); 5] = [
            ("no write", &[read, answer], true),
            ("a write before", &[write, done, read, answer], true),
            ("a write during", &[read, write, done, answer], false),
            ("ends after", &[read, write, answer, done], false),
            ("starts before", &[write, read, done, answer], false),
        ];
        for (name, steps, kept) in table {
            let (mut cache, mut memory) = cache();
            let mut start = None;
            for step in steps {
                step(&mut cache, &mut memory, &mut start);
            }
            let copy = cache.get(&mut memory, "k", TTL, seconds(1));
            assert_eq!(copy.is_some(), kept, "{name}");
        }
    }

    #[test]
    fn copies_are_charged_to_the_quota_of_the_namespace() {
        let (cache, _) = cache();
        let mut memory = MemoryStore::new(MemoryLimits {
            total: 4_096,
            namespace: 1_024,
        });
        for key in ["a", "b", "c", "d"] {
            fill(&cache, &mut memory, key, &"x".repeat(200), seconds(1));
        }
        assert!(memory.used() <= 1_024);
        assert_eq!(
            cache.get(&mut memory, "a", TTL, seconds(1)),
            None,
            "evicted"
        );
        assert!(cache.get(&mut memory, "d", TTL, seconds(1)).is_some());
        fill(&cache, &mut memory, "e", &"x".repeat(2_000), seconds(1));
        assert_eq!(
            cache.get(&mut memory, "e", TTL, seconds(1)),
            None,
            "no room"
        );
    }
}
