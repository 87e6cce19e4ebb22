//! Snapshot of the node's state for the admin port. The node's task writes it; the admin handlers read it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::node::Node;
use crate::admin::NotReady;
use crate::load::LoadStage;
use node_api::ExceptionReason;
use parking_lot::Mutex;

/// Upper bounds of the histogram buckets for the stages of a cold start, in seconds.
pub(crate) const STAGE_BOUNDS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// Durations of one stage of all cold starts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StageHistogram {
    /// Number of observations per bucket; the last bucket has no upper bound.
    pub(crate) counts: [u64; STAGE_BOUNDS.len() + 1],
    /// Sum of all observations, in seconds.
    pub(crate) sum: f64,
}

/// State that the node's task shares with the admin port. All methods may be called from any thread.
#[derive(Debug, Default)]
pub(crate) struct AdminStatus {
    ready: AtomicBool,
    draining: AtomicBool,
    connected: AtomicBool,
    unsupervised: AtomicBool,
    version: AtomicU64,
    last_contact: AtomicU64,
    exceptions: Mutex<BTreeMap<ExceptionReason, u64>>,
    stages: Mutex<[StageHistogram; 3]>,
}

impl AdminStatus {
    /// Copies the current state of the node.
    pub(crate) fn update(&self, node: &Node, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
        self.connected.store(node.connected, Ordering::Relaxed);
        self.unsupervised
            .store(node.is_unsupervised(), Ordering::Relaxed);
        self.version
            .store(node.records.version(), Ordering::Relaxed);
        self.last_contact
            .store(node.last_contact, Ordering::Relaxed);
        let mut exceptions = BTreeMap::new();
        for problem in node.problems.values() {
            *exceptions.entry(problem.reason).or_insert(0) += 1;
        }
        let quarantined = node.records.quarantined().count() as u64;
        if quarantined > 0 {
            exceptions.insert(ExceptionReason::RecordRefused, quarantined);
        }
        let unsafe_reuse = node.unsafe_reuse().count() as u64;
        if unsafe_reuse > 0 {
            exceptions.insert(ExceptionReason::ReuseUnsafe, unsafe_reuse);
        }
        *self.exceptions.lock() = exceptions;
    }

    /// Starts draining: from now on, [`AdminStatus::readiness`] fails.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Returns `Ok` when the node is ready for traffic.
    ///
    /// # Errors
    /// Returns the reason when the node drains, has no table yet or still loads code.
    pub(crate) fn readiness(&self) -> Result<(), NotReady> {
        if self.is_draining() {
            Err(NotReady::Draining)
        } else if self.ready.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(NotReady::Starting)
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    pub(crate) fn is_unsupervised(&self) -> bool {
        self.unsupervised.load(Ordering::Relaxed)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// Time of the last contact with an operator, in ms since the Unix epoch; 0 = never.
    pub(crate) fn last_contact(&self) -> u64 {
        self.last_contact.load(Ordering::Relaxed)
    }

    pub(crate) fn exceptions(&self) -> BTreeMap<ExceptionReason, u64> {
        self.exceptions.lock().clone()
    }

    /// Records the duration of one stage of a cold start.
    pub(crate) fn observe(&self, stage: LoadStage, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = STAGE_BOUNDS.partition_point(|bound| *bound < seconds);
        let mut stages = self.stages.lock();
        if let Some(histogram) = stages.get_mut(stage as usize) {
            if let Some(count) = histogram.counts.get_mut(at) {
                *count += 1;
            }
            histogram.sum += seconds;
        }
    }

    /// Returns the durations of the cold start stages, in the order of [`LoadStage`].
    pub(crate) fn stages(&self) -> [StageHistogram; 3] {
        *self.stages.lock()
    }
}
