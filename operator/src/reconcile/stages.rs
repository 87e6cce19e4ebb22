//! What the steps of one pass hand on to each other.

use std::sync::Arc;
use std::time::Duration;

use crds::EdgeFunction;
use jiff::Timestamp;
use operator_core::function::Function;
use operator_core::rollout::Decision;
use tokio::time::Instant;

use super::context::FunctionContext;
use super::ensure::Ensured;
use super::measure::Measurement;
use super::observe::Observed;
use super::{Context, Outcome, ReconcileError};
use crate::queue::Class;
use crate::watch::ObjectKey;

/// The function that a pass is about, in the version that it starts from.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) ctx: &'a Arc<Context>,
    pub(super) key: &'a ObjectKey,
    pub(super) object: &'a Arc<EdgeFunction>,
    /// Epoch of the leader.
    pub(super) epoch: u64,
}

/// A decision and everything that it was made from.
pub(super) struct Made {
    pub(super) observed: Observed,
    pub(super) ensured: Ensured,
    pub(super) function: Function,
    pub(super) measured: Measurement,
    pub(super) decision: Decision,
    pub(super) at: Timestamp,
}

/// What a write of the status came to.
pub(super) struct Persisted {
    /// The object as the API server returned it. `None` if nothing had to be written.
    pub(super) written: Option<Arc<EdgeFunction>>,
    /// Whether this is the first pass since this process leads, or the last one was not completed.
    pub(super) first: bool,
}

impl Made {
    /// The end of the pass: when to reconcile again.
    ///
    /// # Errors
    /// The desired revision could not be created.
    pub(super) fn outcome(self, context: &FunctionContext) -> Result<Outcome, ReconcileError> {
        if let Some(failure) = self.ensured.failure {
            return Err(failure);
        }
        let instant = Instant::now();
        let wall = Timestamp::now();
        let until = |at: Timestamp| {
            instant + Duration::try_from(at.duration_since(wall)).unwrap_or_default()
        };
        let wake = [
            self.decision.wake_at.map(until),
            self.ensured.desired.retry.map(|wait| instant + wait),
            self.ensured.certificates.changes_at.map(until),
            context.nodes_due,
            self.measured.decide_without_prometheus_at,
            context.revisions_due,
        ];
        Ok(Outcome {
            class: if self.decision.state.state.is_exposed() {
                Class::Urgent
            } else {
                Class::Normal
            },
            wake: wake.into_iter().flatten().min(),
        })
    }
}
