//! Instance slots and guest memory of the node, divided between namespaces. A namespace over its share gets no new
//! instances and no more memory; the others do not notice.

use std::sync::{Arc, OnceLock, Weak};

use node_shim_core::fair_shares::FairShares;
use parking_lot::Mutex;

/// The slots of the pool and the bytes of guest memory of one process.
pub(crate) struct InstanceBudget {
    shares: Mutex<Shares>,
    /// What gives way when a share is used up; set once, because it holds shares itself.
    idle: OnceLock<Weak<dyn GiveWay>>,
}

/// Holds shares that are not in use.
pub(crate) trait GiveWay: Send + Sync {
    /// Gives one share back. Returns false when there is none. Must be called without a lock that a dropped share takes.
    fn give_way(&self) -> bool;
}

#[derive(Debug)]
struct Shares {
    slots: FairShares,
    memory: FairShares,
}

/// What one instance uses; given back when dropped.
pub(crate) struct InstanceShare {
    budget: Arc<InstanceBudget>,
    namespace: Arc<str>,
    slots: u64,
    memory: u64,
}

impl InstanceBudget {
    /// `memory` is in bytes.
    pub(crate) fn new(slots: u64, memory: u64) -> Arc<Self> {
        let shares = Shares {
            slots: FairShares::new(slots),
            memory: FairShares::new(memory),
        };
        Arc::new(Self {
            shares: Mutex::new(shares),
            idle: OnceLock::new(),
        })
    }

    /// Sets what gives way when a share is used up.
    pub(crate) fn set_idle(&self, idle: Weak<dyn GiveWay>) {
        // set by the data plane when it starts
        let _ = self.idle.set(idle);
    }

    /// Takes something from the shares, for as long as idle instances give way until it succeeds.
    fn take(&self, take: impl Fn(&mut Shares) -> bool) -> bool {
        loop {
            if take(&mut self.shares.lock()) {
                return true;
            }
            let idle = self.idle.get().and_then(Weak::upgrade);
            if !idle.is_some_and(|idle| idle.give_way()) {
                return false;
            }
        }
    }

    /// Takes the slots of one instance. Returns `None` when the namespace has used up its share.
    pub(crate) fn admit(
        self: &Arc<Self>,
        namespace: &Arc<str>,
        slots: u32,
    ) -> Option<InstanceShare> {
        let slots = u64::from(slots);
        let admitted = self.take(|shares| shares.slots.take(namespace, slots));
        admitted.then(|| InstanceShare {
            budget: self.clone(),
            namespace: namespace.clone(),
            slots,
            memory: 0,
        })
    }

    pub(crate) fn free_slots(&self) -> u64 {
        self.shares.lock().slots.free()
    }

    /// Returns the guest memory that is free, in bytes.
    pub(crate) fn free_memory(&self) -> u64 {
        self.shares.lock().memory.free()
    }
}

impl InstanceShare {
    /// Takes more memory, in bytes. Returns false when the namespace has used up its share.
    pub(crate) fn grow(&mut self, more: u64) -> bool {
        let budget = &self.budget;
        let grown = budget.take(|shares| shares.memory.take(&self.namespace, more));
        if grown {
            self.memory += more;
        }
        grown
    }

    /// Gives memory back, in bytes.
    pub(crate) fn shrink(&mut self, less: u64) {
        let less = less.min(self.memory);
        self.memory -= less;
        let mut shares = self.budget.shares.lock();
        shares.memory.give_back(&self.namespace, less);
    }

    /// Gives all memory back. The slots stay taken, for another instance.
    pub(crate) fn without_memory(mut self) -> Self {
        self.shrink(u64::MAX);
        self
    }
}

impl Drop for InstanceShare {
    fn drop(&mut self) {
        let mut shares = self.budget.shares.lock();
        shares.slots.give_back(&self.namespace, self.slots);
        shares.memory.give_back(&self.namespace, self.memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_given_back_when_its_instance_ends() {
        let budget = InstanceBudget::new(90, 9_000);
        let mut share = budget.admit(&"a".into(), 3).unwrap();
        assert!(share.grow(1_000) && share.grow(500));
        assert!(!share.grow(8_000));
        assert_eq!((budget.free_slots(), budget.free_memory()), (87, 7_500));
        share.shrink(500);
        assert_eq!(budget.free_memory(), 8_000);
        let share = share.without_memory();
        assert_eq!((budget.free_slots(), budget.free_memory()), (87, 9_000));
        drop(share);
        assert_eq!((budget.free_slots(), budget.free_memory()), (90, 9_000));
    }

    /// Shares of idle instances.
    struct IdleShares(Mutex<Vec<InstanceShare>>);

    impl GiveWay for IdleShares {
        fn give_way(&self) -> bool {
            let share = self.0.lock().pop();
            share.is_some()
        }
    }

    #[test]
    fn idle_instances_give_way_only_as_far_as_needed() {
        let budget = InstanceBudget::new(90, 9_000);
        let shares = (0..8).map(|_| {
            let mut share = budget.admit(&"idle".into(), 10).unwrap();
            assert!(share.grow(1_000));
            share
        });
        let idle = Arc::new(IdleShares(Mutex::new(shares.collect())));
        let weak: Weak<dyn GiveWay> = Arc::downgrade(&(idle.clone() as Arc<dyn GiveWay>));
        budget.set_idle(weak);
        let left = || idle.0.lock().len();
        let mut share = budget.admit(&"a".into(), 9).unwrap();
        assert_eq!(left(), 7, "one idle instance gave way for a slot");
        assert!(share.grow(3_000));
        assert_eq!(left(), 5, "and two for memory, of which a part stays free");
        assert!(!share.grow(9_000));
        assert_eq!(left(), 0);
        assert!(budget.admit(&"a".into(), 90).is_none());
        drop(idle);
        assert!(budget.admit(&"a".into(), 90).is_none());
    }
}
