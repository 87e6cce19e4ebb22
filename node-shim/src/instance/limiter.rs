//! Limit on the memory and tables of one instance. Growth beyond the limit, or beyond the namespace's share of the node's
//! memory, fails, which the guest sees as −1; a trap afterwards counts as out of memory.

use node_shim_core::failure_reason::FailureReason;
use wasmtime::ResourceLimiter;

use crate::instance_budget::InstanceShare;

const TABLE_ELEMENTS: usize = 20_000;
/// Size in bytes that one table element counts as.
const ELEMENT: u64 = 16;

/// Limits the total size of all memories and tables of a store.
#[derive(Debug)]
pub(crate) struct Limiter {
    limit: u64,
    used: u64,
    share: InstanceShare,
    refused: Option<FailureReason>,
}

impl Limiter {
    pub(super) fn new(limit: u64, share: InstanceShare) -> Self {
        Self {
            limit,
            used: 0,
            share,
            refused: None,
        }
    }

    /// Returns the memory in use in bytes. WebAssembly memory never shrinks, so this is also the peak.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Returns why growth was last refused, or `None` when it never was.
    pub(super) fn refused(&self) -> Option<FailureReason> {
        self.refused
    }

    fn grow(&mut self, more: u64) -> bool {
        let wanted = self.used.saturating_add(more);
        let refused = if wanted > self.limit {
            Some(FailureReason::Memory)
        } else if !self.share.grow(more) {
            Some(FailureReason::MemoryPressure)
        } else {
            None
        };
        if refused.is_some() {
            self.refused = refused;
            return false;
        }
        self.used = wanted;
        true
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current) as u64))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        Ok(desired <= TABLE_ELEMENTS && self.grow(more.saturating_mul(ELEMENT)))
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance_budget::InstanceBudget;

    fn limiter(limit: u64, memory: u64) -> Limiter {
        let share = InstanceBudget::new(9, memory)
            .admit(&"ns".into(), 1)
            .unwrap();
        Limiter::new(limit, share)
    }

    #[test]
    fn growth_beyond_the_share_of_the_namespace_is_refused() {
        let mut limiter = limiter(4 << 16, 3 << 16);
        assert!(limiter.memory_growing(0, 2 << 16, None).unwrap());
        assert!(!limiter.memory_growing(2 << 16, 3 << 16, None).unwrap());
        assert_eq!(limiter.refused(), Some(FailureReason::MemoryPressure));
        assert_eq!(limiter.used(), 2 << 16);
    }

    /// HG-3, HG-4: growth of memories and tables together.
    #[test]
    fn memories_and_tables_share_one_limit() {
        let mut limiter = limiter(3 << 16, 1 << 30);
        assert!(limiter.memory_growing(0, 2 << 16, None).unwrap());
        assert!(limiter.table_growing(0, 100, None).unwrap());
        assert_eq!(limiter.refused(), None);
        assert!(!limiter.memory_growing(2 << 16, 3 << 16, None).unwrap());
        assert_eq!(limiter.refused(), Some(FailureReason::Memory));
        assert_eq!(limiter.used(), (2 << 16) + 1_600);
        assert!(!limiter.table_growing(100, 20_001, None).unwrap());
    }
}
