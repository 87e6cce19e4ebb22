//! Outbound requests of one request of a function.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Maximum number of outbound requests of one request that are in flight at the same time.
pub(super) const MAX_PER_REQUEST: u32 = 32;

/// State that the outbound requests of one request share.
#[derive(Debug, Default)]
pub(super) struct RequestScope {
    in_flight: AtomicU32,
    ended: AtomicBool,
}

/// A place among the outbound requests of one request, held until dropped.
#[derive(Debug)]
pub(super) struct ScopePlace(Arc<RequestScope>);

impl RequestScope {
    /// Returns a place, or `None` when 32 requests are in flight.
    pub(super) fn enter(self: &Arc<Self>) -> Option<ScopePlace> {
        let add = |count: u32| (count < MAX_PER_REQUEST).then_some(count + 1);
        self.in_flight
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add)
            .ok()
            .map(|_| ScopePlace(Arc::clone(self)))
    }

    /// Records that the instance is being dropped.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Drop for ScopePlace {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_place_can_be_taken_again() {
        let scope = Arc::new(RequestScope::default());
        let mut places: Vec<_> = (0..MAX_PER_REQUEST).map(|_| scope.enter()).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(scope.enter().is_none());
        places.pop();
        assert!(scope.enter().is_some());
        assert!(!scope.has_ended());
        scope.end();
        assert!(scope.has_ended());
    }
}
