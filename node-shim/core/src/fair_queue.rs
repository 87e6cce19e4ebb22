//! A queue that is fair between tenants: namespaces take turns, within a namespace its functions, and within a function
//! the oldest entry is next.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::table::FunctionKey;

/// Entries of functions that wait for a turn. A namespace with many entries delays another namespace by one turn.
#[derive(Debug)]
pub struct FairQueue<T> {
    namespaces: Rotation<Rotation<VecDeque<T>>>,
}

/// Members that take turns.
#[derive(Debug)]
struct Rotation<Q> {
    order: VecDeque<Arc<str>>,
    queues: HashMap<Arc<str>, Q>,
}

impl<Q> Default for Rotation<Q> {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            queues: HashMap::new(),
        }
    }
}

impl<Q: Default> Rotation<Q> {
    /// Returns the queue of a member. A new member is the last in the order.
    fn member(&mut self, key: &Arc<str>) -> &mut Q {
        let order = &mut self.order;
        self.queues.entry(key.clone()).or_insert_with(|| {
            order.push_back(key.clone());
            Q::default()
        })
    }

    /// Takes an entry of the next member that has one, which is the last in the order afterwards. `take` empties a queue
    /// before it returns `None`, and a member whose queue is empty leaves.
    fn turn<T>(
        &mut self,
        take: impl Fn(&mut Q) -> Option<T>,
        is_empty: impl Fn(&Q) -> bool,
    ) -> Option<T> {
        loop {
            let key = self.order.pop_front()?;
            let queue = self.queues.get_mut(&key)?;
            let taken = take(queue);
            if is_empty(queue) {
                self.queues.remove(&key);
            } else {
                self.order.push_back(key);
            }
            if taken.is_some() {
                return taken;
            }
        }
    }
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            namespaces: Rotation::default(),
        }
    }
}

impl<T> FairQueue<T> {
    /// Appends an entry of a function.
    pub fn push(&mut self, function: &FunctionKey, entry: T) {
        self.namespaces
            .member(&function.namespace)
            .member(&function.name)
            .push_back(entry);
    }

    /// Takes the entry whose turn it is. Those before it for which `waits` is false are dropped: they take no turn of their
    /// function. Returns `None` when no entry waits.
    pub fn pop(&mut self, waits: impl Fn(&T) -> bool) -> Option<T> {
        let next = |entries: &mut VecDeque<T>| {
            std::iter::from_fn(|| entries.pop_front()).find(|entry| waits(entry))
        };
        self.namespaces.turn(
            |functions| functions.turn(next, VecDeque::is_empty),
            |functions| functions.order.is_empty(),
        )
    }

    /// Returns whether no entry waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.namespaces.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(entries: &[(&str, &str, u32)]) -> Vec<u32> {
        let mut queue = FairQueue::default();
        for (namespace, name, entry) in entries {
            queue.push(&FunctionKey::new(*namespace, *name), *entry);
        }
        std::iter::from_fn(|| queue.pop(|_| true)).collect()
    }

    #[test]
    fn namespaces_take_turns_then_functions_then_the_oldest() {
        let entries = [
            ("a", "f", 1),
            ("a", "f", 2),
            ("a", "f", 3),
            ("a", "g", 4),
            ("b", "f", 5),
            ("b", "f", 6),
        ];
        assert_eq!(drain(&entries), [1, 5, 4, 6, 2, 3]);
    }

    #[test]
    fn a_namespace_that_returns_waits_behind_the_others() {
        let mut queue = FairQueue::default();
        let [a, b] = ["a", "b"].map(|namespace| FunctionKey::new(namespace, "f"));
        queue.push(&a, 1);
        queue.push(&b, 2);
        assert_eq!(queue.pop(|_| true), Some(1));
        queue.push(&a, 3);
        queue.push(&b, 4);
        assert_eq!(queue.pop(|_| true), Some(2));
        assert_eq!(queue.pop(|_| true), Some(3));
        assert_eq!(queue.pop(|_| true), Some(4));
        assert!(queue.is_empty() && queue.pop(|_| true).is_none());
    }

    #[test]
    fn an_entry_that_waits_no_longer_takes_no_turn() {
        let mut queue = FairQueue::default();
        let [f, g] = ["f", "g"].map(|name| FunctionKey::new("a", name));
        for entry in [1, 2, 3, 4] {
            queue.push(&f, entry);
        }
        queue.push(&g, 5);
        queue.push(&g, 6);
        queue.push(&FunctionKey::new("b", "f"), 7);
        let waits = |entry: &u32| ![1, 2, 5, 6].contains(entry);
        assert_eq!(queue.pop(waits), Some(3));
        assert_eq!(queue.pop(waits), Some(7));
        // `g` has left, and `a` keeps its turn
        assert_eq!(queue.pop(waits), Some(4));
        assert!(queue.is_empty() && queue.pop(waits).is_none());
        queue.push(&f, 1);
        assert!(queue.pop(waits).is_none() && queue.is_empty());
    }

    proptest! {
        /// Nothing is lost, and between two turns of a namespace every other waiting one has a turn.
        #[test]
        fn no_namespace_has_two_turns_while_another_waits(
            entries in proptest::collection::vec((0_u8..4, 0_u8..3), 0..40)
        ) {
            let mut queue = FairQueue::default();
            for (at, (namespace, name)) in entries.iter().enumerate() {
                queue.push(&FunctionKey::new(format!("n{namespace}"), format!("f{name}")), at);
            }
            let order: Vec<usize> = std::iter::from_fn(|| queue.pop(|_| true)).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..entries.len()).collect::<Vec<_>>());
            let namespace = |entry: usize| entries[entry].0;
            for waiting in 0..4 {
                let turns: Vec<_> = order.iter().map(|entry| namespace(*entry)).collect();
                let Some(last) = turns.iter().rposition(|n| *n == waiting) else { continue };
                for other in (0..4).filter(|other| *other != waiting) {
                    let mut since = 0;
                    for turn in &turns[..=last] {
                        if *turn == waiting { since = 0 } else if *turn == other { since += 1 }
                        prop_assert!(since <= 1, "{turns:?}");
                    }
                }
            }
        }
    }
}
