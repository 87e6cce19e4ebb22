//! Places of requests that wait for code. A function has only a part of the node's places, so that one whose code
//! does not load cannot keep the requests of other functions from waiting for theirs.

use std::sync::Arc;

use node_shim_core::table::FunctionKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::keyed_limit::{KeyedLimit, KeyedPermit};

/// Maximum number of requests that wait for code at the same time.
const MAX_WAITING: usize = 1_000;
/// Maximum number of them that belong to one function.
const MAX_WAITING_PER_FUNCTION: u32 = 100;

/// Limits the requests that wait for code.
pub(crate) struct ColdStarts {
    node: Arc<Semaphore>,
    functions: Arc<KeyedLimit<FunctionKey>>,
}

/// Place of a request that waits for code, returned when dropped.
pub(crate) struct ColdStart {
    _node: OwnedSemaphorePermit,
    _function: KeyedPermit<FunctionKey>,
}

impl ColdStarts {
    pub(crate) fn new() -> Self {
        Self {
            node: Arc::new(Semaphore::new(MAX_WAITING)),
            functions: KeyedLimit::new(),
        }
    }

    /// Returns a place, or `None` when the function or the node has no free one.
    pub(crate) fn try_enter(&self, function: &FunctionKey) -> Option<ColdStart> {
        let place = self
            .functions
            .try_acquire(function.clone(), MAX_WAITING_PER_FUNCTION)?;
        Some(ColdStart {
            _node: self.node.clone().try_acquire_owned().ok()?,
            _function: place,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_function_cannot_use_up_the_places_of_the_node() {
        let starts = ColdStarts::new();
        let broken = FunctionKey::new("ns", "broken");
        let waiting: Vec<_> = (0..MAX_WAITING)
            .map_while(|_| starts.try_enter(&broken))
            .collect();
        assert_eq!(waiting.len(), 100);
        assert!(starts.try_enter(&FunctionKey::new("ns", "other")).is_some());
        drop(waiting);
        assert!(starts.try_enter(&broken).is_some());
        assert_eq!(starts.node.available_permits(), MAX_WAITING);
    }

    #[test]
    fn all_functions_together_are_bounded() {
        let starts = ColdStarts::new();
        let waiting: Vec<_> = (0..2 * MAX_WAITING)
            .map(|at| FunctionKey::new("ns", (at / 50).to_string()))
            .map_while(|function| starts.try_enter(&function))
            .collect();
        assert_eq!(waiting.len(), MAX_WAITING);
    }
}
