//! Limit on the number of places that each key holds at the same time, for example each peer or function.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts the places that each key holds.
#[derive(Debug)]
pub(crate) struct KeyedLimit<K> {
    held: Mutex<HashMap<K, u32>>,
}

/// A place of a key, counted until dropped.
pub(crate) struct KeyedPermit<K: Eq + Hash> {
    limit: Arc<KeyedLimit<K>>,
    key: K,
}

impl<K: Clone + Eq + Hash> KeyedLimit<K> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            held: Mutex::default(),
        })
    }

    /// Returns a place, or `None` when the key holds `max` places already.
    pub(crate) fn try_acquire(self: &Arc<Self>, key: K, max: u32) -> Option<KeyedPermit<K>> {
        let mut held = self.held.lock();
        let before = held.get(&key).copied().unwrap_or_default();
        if before >= max {
            return None;
        }
        held.insert(key.clone(), before + 1);
        drop(held);
        Some(KeyedPermit {
            limit: Arc::clone(self),
            key,
        })
    }
}

impl<K: Eq + Hash> Drop for KeyedPermit<K> {
    fn drop(&mut self) {
        let mut held = self.limit.held.lock();
        if let Some(count) = held.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_places() {
        let limit = KeyedLimit::new();
        let first = limit.try_acquire("a", 2);
        let second = limit.try_acquire("a", 2);
        assert!(first.is_some() && second.is_some());
        assert!(limit.try_acquire("a", 2).is_none());
        assert!(limit.try_acquire("b", 2).is_some());
        drop(first);
        assert!(limit.try_acquire("a", 2).is_some());
        drop(second);
        assert!(limit.held.lock().is_empty(), "unused keys cost nothing");
    }
}
