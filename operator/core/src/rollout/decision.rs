//! The result of a decision, and what must be known for the next one.

use std::time::Duration;

use jiff::Timestamp;

use super::{EventRecord, RolloutState, TrafficSplit, State};
use crate::function::Function;

/// A transition is told as it was persisted.
pub type Transition = EventRecord;

/// An unchanged live rollout is written this often, and decided on at least this often.
pub(super) const CHECKPOINT: Duration = Duration::from_secs(30);

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The next state.
    pub state: RolloutState,
    /// Decide again then at the latest; `None` at rest. Never in the past.
    pub wake_at: Option<Timestamp>,
    /// What happened, in order; each is told exactly once, after the state was persisted.
    pub transitions: Vec<Transition>,
    /// Write the state before acting on it. Otherwise keep it in memory as the present one.
    pub persist: bool,
    /// Tell nodes at once, in parallel with the write: it only lowers a candidate's share, and its pair lies
    /// between those of the old and the new state.
    pub hint: Option<TrafficSplit>,
}

/// What to measure before deciding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Take a look.
    pub look: bool,
    /// Find out stable's traffic.
    pub traffic: bool,
}

/// What to measure before deciding.
#[must_use]
pub fn due(now: Timestamp, function: &Function, state: &RolloutState) -> Due {
    let Some(rollout) = &state.rollout else {
        return Due::default();
    };
    let stopped = function.suspend
        || rollout
            .flags
            .hold
            .as_ref()
            .is_some_and(|h| h.reason.stops_clock());
    Due {
        look: state.state.is_exposed()
            && !stopped
            && next_look(now, state).is_some_and(|t| t <= now),
        traffic: matches!(state.state, State::Loading | State::Queued)
            && state.stable.is_some()
            && rollout.plan.needs_traffic(),
    }
}

/// When the next look is due; a last look that lies in the future (the clock was set back) makes it due now.
pub(super) fn next_look(now: Timestamp, state: &RolloutState) -> Option<Timestamp> {
    let rollout = state
        .rollout
        .as_ref()
        .filter(|_| state.state.is_exposed())?;
    let last = rollout
        .analysis
        .as_ref()
        .map_or(rollout.step_started_at, |a| a.looked_at);
    let tried = rollout
        .flags
        .unmeasured
        .as_ref()
        .map_or(last, |u| u.tried_at.max(last));
    Some(if tried > now {
        now
    } else {
        later(tried, rollout.plan.analysis.look_period)
    })
}

/// `at + by`, at most the end of time.
pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// `now - then`, zero when the clock was set back.
pub(super) fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}
