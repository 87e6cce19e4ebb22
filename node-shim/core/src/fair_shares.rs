//! Division of a capacity of the node between namespaces: a namespace may use at most a fixed multiple of what is free.
//! One that is alone uses nearly everything; the more others use, the less remains for it, and something is always free
//! for a namespace that uses nothing yet. Known as dynamic thresholds from the shared buffers of network switches.

use std::collections::HashMap;
use std::sync::Arc;

/// A namespace may use this multiple of what is free. Alone it can use 8 of 9 parts, two 8 of 17 each.
const MULTIPLE_OF_FREE: u64 = 8;

/// What the namespaces use of one capacity, such as instance slots or bytes of memory.
#[derive(Debug)]
pub struct FairShares {
    capacity: u64,
    used: u64,
    namespaces: HashMap<Arc<str>, u64>,
}

impl FairShares {
    /// All of `capacity` is free.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            used: 0,
            namespaces: HashMap::new(),
        }
    }

    /// Takes `amount` for a namespace and returns true, or returns false when the namespace would then use more than
    /// its share.
    pub fn take(&mut self, namespace: &Arc<str>, amount: u64) -> bool {
        let before = self.namespaces.get(namespace).copied().unwrap_or(0);
        let (Some(own), Some(all)) = (before.checked_add(amount), self.used.checked_add(amount))
        else {
            return false;
        };
        let free = self.capacity.saturating_sub(all);
        if own > free.saturating_mul(MULTIPLE_OF_FREE) {
            return false;
        }
        if amount > 0 {
            self.namespaces.insert(namespace.clone(), own);
            self.used = all;
        }
        true
    }

    /// Returns `amount` that was taken for the namespace.
    pub fn give_back(&mut self, namespace: &Arc<str>, amount: u64) {
        let Some(own) = self.namespaces.get_mut(namespace) else {
            return;
        };
        let returned = amount.min(*own);
        *own -= returned;
        self.used -= returned;
        if *own == 0 {
            self.namespaces.remove(namespace);
        }
    }

    /// Returns what no namespace uses.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.capacity - self.used
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take_all(shares: &mut FairShares, namespace: &str) -> u64 {
        let namespace = namespace.into();
        let mut taken = 0;
        while shares.take(&namespace, 1) {
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_namespace_that_is_alone_leaves_a_ninth_for_others() {
        let mut shares = FairShares::new(900);
        assert_eq!(take_all(&mut shares, "a"), 800);
        assert_eq!(take_all(&mut shares, "b"), 88);
        assert_eq!(take_all(&mut shares, "c"), 10);
        assert_eq!(shares.free(), 2);
    }

    #[test]
    fn what_is_given_back_goes_to_those_below_their_share() {
        let mut shares = FairShares::new(900);
        take_all(&mut shares, "a");
        take_all(&mut shares, "b");
        shares.give_back(&"a".into(), 100);
        assert!(!shares.take(&"a".into(), 300), "far above its share");
        assert_eq!(take_all(&mut shares, "b"), 89);
        shares.give_back(&"a".into(), 700);
        shares.give_back(&"b".into(), 177);
        assert_eq!(shares.free(), 900);
        assert!(shares.namespaces.is_empty());
    }

    #[test]
    fn an_amount_above_the_capacity_is_never_granted() {
        let mut shares = FairShares::new(8);
        for amount in [9, u64::MAX] {
            assert!(!shares.take(&"a".into(), amount));
        }
        assert!(shares.take(&"a".into(), 0) && shares.free() == 8);
    }

    proptest! {
        /// The sum is kept, and no namespace exceeds its share at the time of taking.
        #[test]
        fn the_sum_of_all_shares_stays_within_the_capacity(
            steps in proptest::collection::vec((0_u8..5, any::<bool>(), 0_u64..40), 0..200)
        ) {
            let mut shares = FairShares::new(100);
            let mut held = [0_u64; 5];
            for (who, takes, amount) in steps {
                let namespace: Arc<str> = format!("n{who}").into();
                let own = &mut held[usize::from(who)];
                if takes {
                    if shares.take(&namespace, amount) {
                        *own += amount;
                        prop_assert!(*own <= 8 * shares.free());
                    }
                } else {
                    let amount = amount.min(*own);
                    shares.give_back(&namespace, amount);
                    *own -= amount;
                }
                prop_assert_eq!(shares.free(), 100 - held.iter().sum::<u64>());
            }
        }
    }
}
