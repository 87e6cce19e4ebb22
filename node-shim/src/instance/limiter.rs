//! Limit on the memories and tables of one instance, initial ones included. Growth beyond the limit fails, which
//! the guest sees as −1; a trap afterwards counts as out of memory.

use wasmtime::ResourceLimiter;

const TABLE_ELEMENTS: usize = 20_000;
/// Size in bytes that one table element counts as.
const ELEMENT: u64 = 16;

/// Limits the total size of all memories and tables of a store.
#[derive(Debug)]
pub(crate) struct Limiter {
    limit: u64,
    used: u64,
    refused: bool,
}

impl Limiter {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: 0,
            refused: false,
        }
    }

    /// Returns the memory in use in bytes. WebAssembly memory never shrinks, so this is also the peak.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Returns whether any growth was refused.
    pub(super) fn refused(&self) -> bool {
        self.refused
    }

    fn grow(&mut self, more: u64) -> bool {
        let wanted = self.used.saturating_add(more);
        if wanted > self.limit {
            self.refused = true;
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

    /// HG-3, HG-4: growth of memories and tables together.
    #[test]
    fn memories_and_tables_share_one_limit() {
        let mut limiter = Limiter::new(3 << 16);
        assert!(limiter.memory_growing(0, 2 << 16, None).unwrap());
        assert!(limiter.table_growing(0, 100, None).unwrap());
        assert!(!limiter.refused());
        assert!(!limiter.memory_growing(2 << 16, 3 << 16, None).unwrap());
        assert!(limiter.refused());
        assert_eq!(limiter.used(), (2 << 16) + 1_600);
        assert!(!limiter.table_growing(100, 20_001, None).unwrap());
    }
}
