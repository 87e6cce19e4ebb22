//! Limit on the memories and tables of one instance, initial ones included, and on what the host keeps for it. Growth
//! beyond the limit, or beyond the namespace's share of the node's memory, fails, which the guest sees as −1; a trap
//! afterwards counts as out of memory. A host call that would exceed it traps.

use node_shim_core::failure_reason::FailureReason;
use wasmtime::ResourceLimiter;

use crate::instance_budget::InstanceShare;
use crate::resource_exhaustion::is_resource_exhaustion;

const TABLE_ELEMENTS: usize = 20_000;
/// Size in bytes that one table element counts as.
const ELEMENT: u64 = 16;
/// Memory in bytes that the host keeps for an instance without counting it: enough for ordinary requests, so that they
/// need no more than their own memory, and take no lock for the share of the namespace.
pub(super) const HOST_ALLOWANCE: u64 = 256 << 10;

/// Limits the total size of all memories and tables of a store.
pub(crate) struct Limiter {
    limit: u64,
    used: u64,
    /// The part of `used` that the host keeps for the request.
    held: u64,
    /// What is left of [`HOST_ALLOWANCE`].
    host_allowance: u64,
    /// `None` for an instance that is only measured.
    share: Option<InstanceShare>,
    refusal: Option<FailureReason>,
}

impl Limiter {
    pub(super) fn new(limit: u64, share: Option<InstanceShare>) -> Self {
        Self {
            limit,
            used: 0,
            held: 0,
            host_allowance: HOST_ALLOWANCE,
            share,
            refusal: None,
        }
    }

    /// Returns the memory in use in bytes. WebAssembly memory never shrinks, so this is also the peak of the request.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Returns why growth was refused last: the limit, the share of the namespace, or memory of the node. A guest that
    /// traps afterwards fails for this reason.
    pub(super) fn refusal(&self) -> Option<FailureReason> {
        self.refusal
    }

    /// Counts memory in bytes that the host keeps for the guest until the request ends.
    ///
    /// # Errors
    /// Returns an error when the memory exceeds the limit or the share of the namespace.
    pub(super) fn hold(&mut self, bytes: u64) -> Result<(), HostMemoryRefused> {
        let allowed = bytes.min(self.host_allowance);
        self.host_allowance -= allowed;
        let more = bytes - allowed;
        if more == 0 || self.grow(more) {
            self.held += more;
            return Ok(());
        }
        Err(HostMemoryRefused {
            bytes,
            used: self.used,
            limit: self.limit,
        })
    }

    /// Ends the request: the host keeps nothing for it any longer.
    pub(super) fn end_request(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.used -= held;
        self.host_allowance = HOST_ALLOWANCE;
        self.refusal = None;
        if let Some(share) = self.share.as_mut().filter(|_| held > 0) {
            share.shrink(held);
        }
    }

    /// Returns the share of an instance that is gone, for another one.
    pub(super) fn into_share(self) -> Option<InstanceShare> {
        self.share.map(InstanceShare::without_memory)
    }

    fn grow(&mut self, more: u64) -> bool {
        let wanted = self.used.saturating_add(more);
        let shared = |share: &mut InstanceShare| share.grow(more);
        let refusal = if wanted > self.limit {
            Some(FailureReason::Memory)
        } else if !self.share.as_mut().is_none_or(shared) {
            Some(FailureReason::MemoryPressure)
        } else {
            None
        };
        if refusal.is_some() {
            self.refusal = refusal;
            return false;
        }
        self.used = wanted;
        true
    }
}

/// The host cannot keep data of the guest. [`Limiter::refusal`] returns which limit is exceeded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the host cannot keep {bytes} more bytes for the guest, which uses {used} of {limit} bytes (limits.memory)"
)]
pub(crate) struct HostMemoryRefused {
    bytes: u64,
    used: u64,
    limit: u64,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // growth beyond the maximum that the component declares fails, so it must not count
        let possible = maximum.is_none_or(|most| desired <= most);
        Ok(possible && self.grow(desired.saturating_sub(current) as u64))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        if error.chain().any(is_resource_exhaustion) {
            self.refusal = Some(FailureReason::HostMemory);
        }
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let most = maximum.unwrap_or(TABLE_ELEMENTS).min(TABLE_ELEMENTS);
        let more = desired.saturating_sub(current) as u64;
        Ok(desired <= most && self.grow(more.saturating_mul(ELEMENT)))
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
        let share = InstanceBudget::new(9, memory).admit(&"ns".into(), 1);
        Limiter::new(limit, share)
    }

    #[test]
    fn growth_beyond_the_share_of_the_namespace_is_refused() {
        let mut limiter = limiter(4 << 16, 3 << 16);
        assert!(limiter.memory_growing(0, 2 << 16, None).unwrap());
        assert!(!limiter.memory_growing(2 << 16, 3 << 16, None).unwrap());
        assert_eq!(limiter.refusal(), Some(FailureReason::MemoryPressure));
        assert_eq!(limiter.used(), 2 << 16);
    }

    /// HG-3, HG-4: growth of memories and tables together.
    #[test]
    fn memories_and_tables_share_one_limit() {
        let mut limiter = limiter(3 << 16, 1 << 30);
        assert!(limiter.memory_growing(0, 2 << 16, None).unwrap());
        assert!(limiter.table_growing(0, 100, None).unwrap());
        assert_eq!(limiter.refusal(), None);
        assert!(!limiter.memory_growing(2 << 16, 3 << 16, None).unwrap());
        assert_eq!(limiter.refusal(), Some(FailureReason::Memory));
        assert_eq!(limiter.used(), (2 << 16) + 1_600);
        assert!(!limiter.table_growing(100, 20_001, None).unwrap());
    }

    #[test]
    fn memory_of_the_host_counts_after_an_allowance() {
        let mut host = limiter(3 << 16, 1 << 30);
        host.hold(HOST_ALLOWANCE - 1).unwrap();
        host.hold(1).unwrap();
        assert_eq!(host.used(), 0);
        assert!(host.memory_growing(0, 2 << 16, None).unwrap());
        host.hold(1 << 16).unwrap();
        assert_eq!((host.used(), host.refusal()), (3 << 16, None));
        let refused = HostMemoryRefused {
            bytes: 1,
            used: 3 << 16,
            limit: 3 << 16,
        };
        assert_eq!(host.hold(1), Err(refused));
        assert_eq!(host.refusal(), Some(FailureReason::Memory));

        let mut host = limiter(1 << 30, 3 << 16);
        assert!(host.hold(HOST_ALLOWANCE + (4 << 16)).is_err());
        assert_eq!(host.refusal(), Some(FailureReason::MemoryPressure));
    }

    /// The memory of the instance stays, and what the host kept for the request is given back.
    #[test]
    fn a_request_leaves_only_the_memory_of_the_instance() {
        let budget = InstanceBudget::new(9, 8 << 16);
        let mut limiter = Limiter::new(3 << 16, budget.admit(&"ns".into(), 1));
        assert!(limiter.memory_growing(0, 1 << 16, None).unwrap());
        for _ in 0..3 {
            limiter.hold(HOST_ALLOWANCE + (2 << 16)).unwrap();
            assert!(limiter.hold(1).is_err());
            assert_eq!(limiter.refusal(), Some(FailureReason::Memory));
            limiter.end_request();
            assert_eq!((limiter.used(), limiter.refusal()), (1 << 16, None));
            assert_eq!(budget.free_memory(), 7 << 16);
        }
        let share = limiter.into_share().unwrap();
        assert_eq!((budget.free_memory(), budget.free_slots()), (8 << 16, 8));
        drop(share);
        assert_eq!(budget.free_slots(), 9);
    }

    #[test]
    fn growth_beyond_a_declared_maximum_does_not_count() {
        let mut limiter = limiter(1 << 20, 1 << 30);
        assert!(!limiter.memory_growing(0, 3 << 16, Some(2 << 16)).unwrap());
        assert!(!limiter.table_growing(0, 11, Some(10)).unwrap());
        assert_eq!((limiter.used(), limiter.refusal()), (0, None));
        assert!(limiter.memory_growing(0, 2 << 16, Some(2 << 16)).unwrap());
        assert!(limiter.table_growing(0, 10, Some(10)).unwrap());
        assert_eq!(limiter.used(), (2 << 16) + 160);
    }

    #[test]
    fn memory_that_the_kernel_refuses_is_distinguished_from_the_limit() {
        let mut limiter = limiter(1 << 20, 1 << 30);
        let other = wasmtime::Error::msg("memory growth exceeds memory type's limits");
        limiter.memory_grow_failed(other).unwrap();
        assert_eq!(limiter.refusal(), None);
        let refused = wasmtime::Error::from(rustix::io::Errno::NOMEM);
        let refused = refused.context("mprotect failed");
        limiter.memory_grow_failed(refused).unwrap();
        assert_eq!(limiter.refusal(), Some(FailureReason::HostMemory));
    }
}
