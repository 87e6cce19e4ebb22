//! What a leader remembers of a function between two reconciles. All of it may be lost at any time: it is
//! either derived from what is persisted or asked for again.

use std::sync::Arc;
use std::time::Duration;

use crds::EdgeFunction;
use jiff::Timestamp;
use operator_core::evaluator::Evaluator;
use operator_core::rollout::{FencingToken, RolloutState};
use operator_core::samples::Snapshot;
use operator_core::status_rate::FunctionLimit;
use tokio::time::Instant;

use super::worker::backoff;
use super::{CallError, StatusRateLimit};
use crate::resolve::ResolveError;
use crate::revision::ComponentImage;

/// What the leader remembers of one function.
#[derive(Debug, Default)]
pub(super) struct FunctionContext {
    /// The object as the last write returned it; newer than the cache until the watch catches up.
    pub(super) written: Option<Arc<EdgeFunction>>,
    /// The state since the last write, and the record that it continues.
    pub(super) present: Option<Present>,
    /// Answer of the registry for the image string.
    pub(super) resolution: Resolution,
    /// State of the statistical tests.
    pub(super) evaluator: Option<Evaluator>,
    /// Counters from the time before the candidate got its first traffic.
    pub(super) before: Before,
    /// Failed reconciles in a row.
    pub(super) failures: u32,
    /// Whether the last pass was completed, by this process.
    pub(super) reported: bool,
    /// When to evaluate without the answer of Prometheus that the last pass asked for.
    pub(super) decide_without_prometheus_at: Option<Instant>,
    /// A rollback whose way to the nodes is measured.
    pub(super) rollback: Option<Rollback>,
    /// Limits on the status writes that report what nodes do to it at rest.
    pub(super) limit: FunctionLimit,
    /// Time at which the limits allow the next of these writes.
    pub(super) nodes_due: Option<Instant>,
    /// Limits on the writes that report what nodes do to its revisions.
    pub(super) revision_limit: FunctionLimit,
    /// Time at which the limits allow the next of these writes.
    pub(super) revisions_due: Option<Instant>,
    /// Backoff after a failed write of the status.
    pub(super) write_backoff: Option<RetryBackoff>,
    /// Backoff after a failure to create the objects of the desired revision.
    pub(super) ensure_backoff: Option<RetryBackoff>,
    runs: u64,
}

/// Time before the same call is not repeated. Evaluations and rollbacks continue: they need no write.
#[derive(Debug, Clone)]
pub(super) struct RetryBackoff {
    until: Instant,
    /// Of this version of the object alone, since another may be taken at once; `None` when the server asked for it.
    version: Option<String>,
    /// Number of failures in a row.
    pub(super) attempts: u32,
    /// Message of the API server if it refused the request as it is.
    pub(super) refusal: Option<String>,
}

impl RetryBackoff {
    /// Starts a backoff after a failed call for this version of the object.
    pub(super) fn after(error: &CallError, failures: u32, version: Option<&String>) -> Self {
        let asked = error.retry_after();
        let attempts = failures.saturating_add(1);
        let wait = backoff(attempts).max(asked.unwrap_or_default());
        Self {
            until: Instant::now() + wait,
            version: version.filter(|_| asked.is_none()).cloned(),
            attempts,
            refusal: error.refusal().map(str::to_owned),
        }
    }

    /// Returns its end if it still lasts for this version of the object.
    pub(super) fn lasts(this: Option<&Self>, version: Option<&String>) -> Option<Instant> {
        let this = this.filter(|one| one.until > Instant::now())?;
        (this.version.is_none() || this.version.as_ref() == version).then_some(this.until)
    }

    /// Time that is left of it.
    pub(super) fn remaining(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// A rollback on its way to the nodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rollback {
    /// When it was decided.
    pub(super) decided: Timestamp,
    /// Version of the traffic split that takes the candidate out of traffic.
    pub(super) token: FencingToken,
    /// Whether a first node has applied it.
    pub(super) begun: bool,
}

/// Counters from the time before a candidate got its first traffic.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Start of the rollout it belongs to.
    pub(super) started_at: Option<Timestamp>,
    /// Time of the last answer of Prometheus.
    pub(super) asked: Option<Instant>,
    /// Snapshots from Prometheus.
    pub(super) scraped: Vec<Snapshot>,
    /// Snapshots from the nodes.
    pub(super) in_band: Vec<Snapshot>,
}

impl Before {
    /// The better of the two: Prometheus has data from before the rollout, nodes report only since it began.
    pub(super) fn snapshots(&self) -> &[Snapshot] {
        if self.scraped.is_empty() {
            &self.in_band
        } else {
            &self.scraped
        }
    }
}

/// A state that the status does not have yet: it need not be written, or its write failed.
#[derive(Debug, Clone)]
pub(super) struct Present {
    pub(super) state: RolloutState,
    /// The object whose persisted record it continues.
    pub(super) uid: Option<String>,
    /// The persisted record that it continues.
    pub(super) record: Option<String>,
    /// The state before a decision that nodes received and that could not be written. Its write is still owed.
    pub(super) owed: Option<Box<RolloutState>>,
}

/// What is known about an image string.
#[derive(Debug, Default)]
pub(super) enum Resolution {
    /// The registry was not asked.
    #[default]
    None,
    /// A task is asking the registry.
    Running {
        image: String,
        run: u64,
        /// The attempt before this one, if it failed.
        last: Option<FailedResolve>,
    },
    /// The registry answered with this component.
    Done {
        image: String,
        code: Box<ComponentImage>,
    },
    /// The last attempt failed; the next one is at `retry_at`.
    Failed {
        image: String,
        failure: FailedResolve,
        retry_at: Instant,
    },
}

/// A failed attempt to resolve an image.
#[derive(Debug, Clone)]
pub(super) struct FailedResolve {
    pub(super) error: ResolveError,
    /// Number of the attempt, from 1.
    pub(super) attempt: u32,
    /// Time of the failure.
    pub(super) at: Timestamp,
}

impl FunctionContext {
    /// Gives back the reservations for writes that are not made.
    pub(super) fn cancel_writes(&mut self, writes: &StatusRateLimit) {
        writes.cancel(&mut self.limit);
        writes.cancel(&mut self.revision_limit);
    }

    /// Returns a number for the next question to a registry, so that a late answer to an earlier one is recognised.
    pub(super) fn next_run(&mut self) -> u64 {
        self.runs += 1;
        self.runs
    }
}
