//! The result of a decision, and what to measure before the next one.

use std::time::Duration;

use jiff::Timestamp;

use super::{EventRecord, RolloutState, State, TrafficSplit};
use crate::function::Function;

/// A transition, in the form in which it is persisted and reported.
pub type Transition = EventRecord;

/// Interval at which a running rollout without changes is written, and the longest time between two decisions on it.
pub(super) const CHECKPOINT: Duration = Duration::from_secs(30);

/// Result of [`super::decide`].
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The next state.
    pub state: RolloutState,
    /// Latest time of the next decision, never in the past; `None` at rest.
    pub wake_at: Option<Timestamp>,
    /// Transitions in order. Each is reported exactly once, after the state was persisted.
    pub transitions: Vec<Transition>,
    /// Whether the state must be written before the caller acts on it. Otherwise the caller keeps it in memory as the current
    /// state.
    pub persist: bool,
    /// Split to send to the nodes at once, in parallel with the write. It only lowers a candidate's weight, and its fencing
    /// token lies between those of the old and the new state.
    pub hint: Option<TrafficSplit>,
}

/// Measurements that the next decision needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequiredMeasurements {
    /// Whether to evaluate the candidate.
    pub evaluation: bool,
    /// Whether to measure stable's traffic.
    pub traffic: bool,
}

/// Returns the measurements that the next decision needs.
#[must_use]
pub fn required_measurements(
    now: Timestamp,
    function: &Function,
    state: &RolloutState,
) -> RequiredMeasurements {
    let Some(rollout) = &state.rollout else {
        return RequiredMeasurements::default();
    };
    let stopped = function.suspend
        || rollout
            .flags
            .hold
            .as_ref()
            .is_some_and(|h| h.reason.stops_clock());
    RequiredMeasurements {
        evaluation: state.state.is_exposed()
            && !stopped
            && next_evaluation(now, state).is_some_and(|t| t <= now),
        traffic: matches!(state.state, State::Loading | State::Queued)
            && state.stable.is_some()
            && rollout.plan.needs_traffic(),
    }
}

/// Time of the next evaluation. If the last one lies in the future because the clock was set back, it is `now`.
pub(super) fn next_evaluation(now: Timestamp, state: &RolloutState) -> Option<Timestamp> {
    let rollout = state
        .rollout
        .as_ref()
        .filter(|_| state.state.is_exposed())?;
    let last = rollout
        .analysis
        .as_ref()
        .map_or(rollout.step_started_at, |a| a.evaluated_at);
    let tried = rollout
        .flags
        .unmeasured
        .as_ref()
        .map_or(last, |u| u.tried_at.max(last));
    Some(if tried > now {
        now
    } else {
        later(tried, rollout.plan.analysis.evaluation_interval)
    })
}

/// Returns `at + by`, at most [`Timestamp::MAX`].
pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// Returns `now - then`, or zero if the clock was set back.
pub(super) fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}
