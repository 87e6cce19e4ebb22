//! Instance slots and guest memory of the node, divided between namespaces. A namespace over its share gets no new
//! instances and no more memory; the others do not notice.

use std::sync::Arc;

use node_shim_core::fair_shares::FairShares;
use parking_lot::Mutex;

/// The slots of the pool and the bytes of guest memory of one process.
#[derive(Debug)]
pub(crate) struct InstanceBudget {
    shares: Mutex<Shares>,
}

#[derive(Debug)]
struct Shares {
    slots: FairShares,
    memory: FairShares,
}

/// What one instance uses; given back when dropped.
#[derive(Debug)]
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
        })
    }

    /// Takes the slots of one instance. Returns `None` when the namespace has used up its share.
    pub(crate) fn admit(
        self: &Arc<Self>,
        namespace: &Arc<str>,
        slots: u32,
    ) -> Option<InstanceShare> {
        let slots = u64::from(slots);
        let admitted = self.shares.lock().slots.take(namespace, slots);
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
        let grown = self.budget.shares.lock().memory.take(&self.namespace, more);
        if grown {
            self.memory += more;
        }
        grown
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
        drop(share);
        assert_eq!((budget.free_slots(), budget.free_memory()), (90, 9_000));
    }
}
