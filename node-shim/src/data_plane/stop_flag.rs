//! Distinguishes requests that lose their client because the node stops from those whose client leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use node_shim_core::failure_reason::FailureReason;

/// Whether the data plane has stopped and closes the remaining connections. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Returns why a request loses its client now.
    pub(crate) fn lost_client(&self) -> FailureReason {
        if self.0.load(Ordering::Acquire) {
            FailureReason::Cancelled
        } else {
            FailureReason::ClientGone
        }
    }
}
