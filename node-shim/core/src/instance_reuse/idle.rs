//! The idle instances of a node. A request takes the one of its revision that was used last, so that the others become old
//! and expire. The one that was used first gives way to whatever needs its place.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Idle instances of type `T`, by revisions with keys of type `K`.
#[derive(Debug)]
pub struct IdleSet<K, T> {
    /// Number of the next instance. Instances have ascending numbers in the order in which they became idle.
    next: u64,
    instances: BTreeMap<u64, Idle<K, T>>,
    /// Numbers of the instances of each revision, in ascending order.
    by_revision: BTreeMap<K, VecDeque<u64>>,
}

#[derive(Debug)]
struct Idle<K, T> {
    revision: K,
    expires: Instant,
    instance: T,
}

impl<K, T> Default for IdleSet<K, T> {
    fn default() -> Self {
        Self {
            next: 0,
            instances: BTreeMap::new(),
            by_revision: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone, T> IdleSet<K, T> {
    /// Adds an instance that expires at `expires`.
    pub fn put(&mut self, revision: K, instance: T, expires: Instant) {
        let number = self.next;
        self.next += 1;
        let numbers = self.by_revision.entry(revision.clone()).or_default();
        numbers.push_back(number);
        let idle = Idle {
            revision,
            expires,
            instance,
        };
        self.instances.insert(number, idle);
    }

    /// Removes and returns the instance of a revision that became idle last.
    pub fn take(&mut self, revision: &K) -> Option<T> {
        let number = *self.by_revision.get(revision)?.back()?;
        self.remove(number)
    }

    /// Removes and returns the instance that became idle first.
    pub fn evict(&mut self) -> Option<T> {
        let number = *self.instances.first_key_value()?.0;
        self.remove(number)
    }

    /// Removes and returns the instances that have expired at `now`.
    pub fn expire(&mut self, now: Instant) -> Vec<T> {
        self.remove_where(|_, idle| idle.expires <= now)
    }

    /// Returns when the next instance expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.instances.values().map(|idle| idle.expires).min()
    }

    /// Removes and returns the instances of all revisions for which `kept` returns false.
    pub fn retain(&mut self, mut kept: impl FnMut(&K, &T) -> bool) -> Vec<T> {
        self.remove_where(|revision, idle| !kept(revision, &idle.instance))
    }

    /// Removes and returns all instances.
    pub fn clear(&mut self) -> Vec<T> {
        self.remove_where(|_, _| true)
    }

    /// Returns the number of instances.
    #[must_use]
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Returns whether there are no instances.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    fn remove_where(&mut self, mut removed: impl FnMut(&K, &Idle<K, T>) -> bool) -> Vec<T> {
        let numbers: Vec<u64> = self
            .instances
            .iter()
            .filter(|(_, idle)| removed(&idle.revision, idle))
            .map(|(number, _)| *number)
            .collect();
        let removed = numbers.into_iter().filter_map(|number| self.remove(number));
        removed.collect()
    }

    fn remove(&mut self, number: u64) -> Option<T> {
        let idle = self.instances.remove(&number)?;
        if let Some(numbers) = self.by_revision.get_mut(&idle.revision) {
            if let Ok(at) = numbers.binary_search(&number) {
                numbers.remove(at);
            }
            if numbers.is_empty() {
                self.by_revision.remove(&idle.revision);
            }
        }
        Some(idle.instance)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "a test needs some point in time")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Returns a set with instances named by revision and order, which expire after that many seconds.
    fn set(start: Instant, instances: &[(char, u64)]) -> IdleSet<char, String> {
        let mut set = IdleSet::default();
        for (at, (revision, seconds)) in instances.iter().enumerate() {
            let expires = start + Duration::from_secs(*seconds);
            set.put(*revision, format!("{revision}{at}"), expires);
        }
        set
    }

    #[test]
    fn a_request_takes_the_newest_instance_and_eviction_the_oldest() {
        let mut set = set(start(), &[('a', 1), ('b', 1), ('a', 1), ('b', 1)]);
        assert_eq!(set.take(&'a').unwrap(), "a2");
        assert_eq!(set.take(&'c'), None);
        assert_eq!(set.evict().unwrap(), "a0");
        assert_eq!(set.take(&'a'), None);
        assert_eq!(set.evict().unwrap(), "b1");
        assert_eq!(set.len(), 1);
        assert_eq!(set.take(&'b').unwrap(), "b3");
        assert!(set.evict().is_none() && set.is_empty());
        assert!(set.by_revision.is_empty(), "nothing is left of a revision");
    }

    #[test]
    fn instances_expire_in_any_order() {
        let start = start();
        let mut set = set(start, &[('a', 5), ('b', 1), ('a', 6), ('b', 2)]);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(set.next_expiry(), Some(after(1)));
        assert!(set.expire(start).is_empty());
        assert_eq!(set.expire(after(2)), ["b1", "b3"]);
        assert_eq!(set.next_expiry(), Some(after(5)));
        assert_eq!(set.expire(after(9)), ["a0", "a2"]);
        assert_eq!(set.next_expiry(), None);
    }

    #[test]
    fn revisions_that_leave_take_their_instances_with_them() {
        let mut set = set(start(), &[('a', 1), ('b', 1), ('a', 1)]);
        assert_eq!(set.retain(|revision, _| *revision == 'b'), ["a0", "a2"]);
        assert_eq!(set.take(&'a'), None);
        assert_eq!(set.clear(), ["b1"]);
        assert!(set.is_empty());
    }
}
