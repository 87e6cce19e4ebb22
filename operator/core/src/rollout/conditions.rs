//! Conditions and phase: what other tools read, derived from the persisted state.

use super::{RolloutState, State};
use crate::function::Function;

/// `status.phase`: a summary, never logic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No stable yet.
    Pending,
    /// At rest.
    Ready,
    /// A rollout runs.
    Progressing,
    /// A rollout is held by a person.
    Paused,
    /// The wish was rejected.
    RolledBack,
    /// Nothing can be served.
    Failed,
    /// `spec.suspend`.
    Suspended,
}

impl Phase {
    /// As in status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Ready => "Ready",
            Self::Progressing => "Progressing",
            Self::Paused => "Paused",
            Self::RolledBack => "RolledBack",
            Self::Failed => "Failed",
            Self::Suspended => "Suspended",
        }
    }
}

/// `status.phase`.
#[must_use]
pub fn phase(function: &Function, state: &RolloutState) -> Phase {
    let paused = state
        .rollout
        .as_ref()
        .is_some_and(|r| r.flags.paused.is_some());
    match state.state {
        _ if function.suspend => Phase::Suspended,
        State::Failed => Phase::Failed,
        State::RolledBack => Phase::RolledBack,
        _ if state.stable.is_none() => Phase::Pending,
        State::Idle => Phase::Ready,
        _ if paused => Phase::Paused,
        State::Loading | State::Queued | State::Stepping | State::Baking => Phase::Progressing,
    }
}

/// Types of the conditions that follow from a rollout. `Accepted`, `Resolved`, `Compatible` belong to those who find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// The newest wish is served.
    Ready,
    /// Something is on its way.
    Reconciling,
    /// It will not get there by itself.
    Stalled,
    /// A rollout runs.
    Progressing,
    /// Nodes serve what traffic says.
    Distributed,
    /// Stable is not failing hard.
    Healthy,
}

impl ConditionType {
    /// As in status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Progressing => "Progressing",
            Self::Distributed => "Distributed",
            Self::Healthy => "Healthy",
        }
    }
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which.
    pub kind: ConditionType,
    /// `True` or `False`.
    pub status: bool,
    /// CamelCase.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// Something outside the rollout keeps the newest spec from being taken: not accepted, not resolved, incompatible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// CamelCase.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Trying again does not help.
    pub permanent: bool,
}

/// Conditions that follow from a rollout; `sentence` is its [`super::message`].
#[must_use]
pub fn conditions(
    function: &Function,
    state: &RolloutState,
    blocked: Option<&Blocked>,
    sentence: &str,
) -> Vec<Condition> {
    let _ = (function, blocked, sentence, state);
    Vec::new()
}
