//! Lines of the access log that wait for the writer. They have room of their own, so they displace no line of a guest, and
//! the namespaces share it fairly: a namespace with much traffic does not keep the lines of others out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use node_shim_core::fair_shares::FairShares;
use parking_lot::Mutex;

/// Maximum size in bytes of all lines that wait.
const MAX_QUEUED: u64 = 8 << 20;

/// What waits, and what was dropped.
#[derive(Debug)]
pub(super) struct AccessQueue {
    waiting: Mutex<FairShares>,
    dropped: AtomicU64,
}

/// A line that counts as waiting until it is dropped.
pub(super) struct AccessLine {
    pub(super) bytes: Vec<u8>,
    namespace: Arc<str>,
    queue: Arc<AccessQueue>,
}

impl AccessQueue {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::new(FairShares::new(MAX_QUEUED)),
            dropped: AtomicU64::new(0),
        })
    }

    /// Returns the line as one that waits. Counts it as dropped when its namespace has no room.
    pub(super) fn enter(
        self: &Arc<Self>,
        namespace: &Arc<str>,
        bytes: Vec<u8>,
    ) -> Option<AccessLine> {
        if !self.waiting.lock().take(namespace, bytes.len() as u64) {
            self.count_dropped();
            return None;
        }
        Some(AccessLine {
            bytes,
            namespace: Arc::clone(namespace),
            queue: Arc::clone(self),
        })
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl AccessLine {
    /// Counts a line that could not be written.
    pub(super) fn count_dropped(&self) {
        self.queue.count_dropped();
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let size = self.bytes.len() as u64;
        self.queue.waiting.lock().give_back(&self.namespace, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: usize = 500;

    fn fill(queue: &Arc<AccessQueue>, namespace: &str) -> Vec<AccessLine> {
        let namespace = namespace.into();
        let lines = std::iter::from_fn(|| queue.enter(&namespace, vec![0; LINE]));
        lines.collect()
    }

    /// HG-20: a namespace with much traffic leaves room for others, and what is dropped is counted.
    #[test]
    fn one_namespace_cannot_fill_the_queue() {
        let queue = AccessQueue::new();
        let noisy = fill(&queue, "noisy");
        assert_eq!(queue.dropped(), 1);
        assert!(noisy.len() * LINE < usize::try_from(MAX_QUEUED).unwrap());
        let quiet = fill(&queue, "quiet");
        assert!(quiet.len() > 1_000, "{}", quiet.len());
        assert_eq!(queue.dropped(), 2);
        drop(noisy);
        drop(quiet);
        assert_eq!(queue.waiting.lock().free(), MAX_QUEUED);
    }
}
