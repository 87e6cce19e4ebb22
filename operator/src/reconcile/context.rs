//! What a leader remembers of a function between two reconciles. All of it may be lost at any time: it is
//! either derived from what is persisted or asked for again.

use std::sync::Arc;

use crds::EdgeFunction;
use jiff::Timestamp;
use operator_core::judge::Judge;
use operator_core::rollout::{FencingToken, RolloutState};
use operator_core::samples::Snapshot;
use operator_core::status_rate::FunctionLimit;
use tokio::time::Instant;

use super::CallError;
use super::worker::backoff;
use crate::resolve::ResolveError;
use crate::revision::ComponentImage;

/// One function's memory.
#[derive(Debug, Default)]
pub(super) struct FunctionContext {
    /// The object as the last write returned it; newer than the cache until the watch catches up.
    pub(super) written: Option<Arc<EdgeFunction>>,
    /// The state between two checkpoints, and the record that it continues.
    pub(super) present: Option<Present>,
    /// The image.
    pub(super) resolution: Resolution,
    /// The tests.
    pub(super) judge: Option<Judge>,
    /// The time before the candidate's first share.
    pub(super) before: Before,
    /// Failed reconciles in a row.
    pub(super) failures: u32,
    /// What was persisted last was applied and reported since this process leads.
    pub(super) reported: bool,
    /// A rollback whose way to the nodes is measured.
    pub(super) rollback: Option<Rollback>,
    /// Limits on the status writes that report what nodes do to it at rest.
    pub(super) limit: FunctionLimit,
    /// Time at which the limits allow the next of these writes.
    pub(super) nodes_due: Option<Instant>,
    /// After a status that could not be written.
    pub(super) patience: Option<RetryBackoff>,
    /// After a wish that could not be recorded.
    pub(super) wish_patience: Option<RetryBackoff>,
    runs: u64,
}

/// The same is not asked again before its end. Looks and rollbacks go on: they need no write.
#[derive(Debug, Clone)]
pub(super) struct RetryBackoff {
    until: Instant,
    /// Of this version of the object alone, since another may be taken at once; `None` when the server asked for it.
    version: Option<String>,
}

impl RetryBackoff {
    /// After a call for this version of the object failed once more.
    pub(super) fn after(error: &CallError, failures: u32, version: Option<&String>) -> Self {
        let asked = error.retry_after();
        let wait = backoff(failures.saturating_add(1)).max(asked.unwrap_or_default());
        Self {
            until: Instant::now() + wait,
            version: version.filter(|_| asked.is_none()).cloned(),
        }
    }

    /// Its end, if it still lasts for this version of the object.
    pub(super) fn lasts(this: Option<&Self>, version: Option<&String>) -> Option<Instant> {
        let this = this.filter(|one| one.until > Instant::now())?;
        (this.version.is_none() || this.version.as_ref() == version).then_some(this.until)
    }
}

/// A rollback on its way to the nodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rollback {
    /// When it was decided.
    pub(super) decided: Timestamp,
    /// The share that ends the candidate's.
    pub(super) pair: FencingToken,
    /// A first node follows.
    pub(super) begun: bool,
}

/// What was counted before a candidate's first share.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Start of the rollout it belongs to.
    pub(super) started_at: Option<Timestamp>,
    /// When it was last asked for.
    pub(super) asked: Option<Instant>,
    /// From Prometheus.
    pub(super) scraped: Vec<Snapshot>,
    /// From the nodes.
    pub(super) in_band: Vec<Snapshot>,
}

impl Before {
    /// By the better way: Prometheus remembers from before the rollout, nodes report since it began.
    pub(super) fn snapshots(&self) -> &[Snapshot] {
        if self.scraped.is_empty() {
            &self.in_band
        } else {
            &self.scraped
        }
    }
}

/// A state that need not be written yet.
#[derive(Debug, Clone)]
pub(super) struct Present {
    pub(super) state: RolloutState,
    pub(super) record: Option<String>,
}

/// What is known of an image string.
#[derive(Debug, Default)]
pub(super) enum Resolution {
    /// It was not asked for.
    #[default]
    None,
    /// Somebody is asking.
    Running { image: String, run: u64 },
    /// It is this.
    Done { image: String, code: Box<ComponentImage> },
    /// It failed and is tried again at `retry_at`.
    Failed {
        image: String,
        error: ResolveError,
        attempt: u32,
        retry_at: Instant,
    },
}

impl FunctionContext {
    /// A number for the next resolve, so that a late answer of an earlier one is recognised.
    pub(super) fn next_run(&mut self) -> u64 {
        self.runs += 1;
        self.runs
    }
}
