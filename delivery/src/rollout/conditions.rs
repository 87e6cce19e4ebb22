//! Conditions and phase, which other tools read. Both are derived from the persisted state.

use super::{
    HoldReason, Outcome, PlanKind, RolloutState, State, Suspension, TransitionKind, WaitingFor,
    message, stable_health,
};
use crate::function::Function;

/// Summary of the state for `status.phase`. The operator never decides by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is no stable revision yet, or the spec waits for an object, an image or nodes.
    Pending,
    /// The function is `Ready`: the desired revision serves all requests and no rollout runs.
    Ready,
    /// A rollout runs.
    Progressing,
    /// A person paused the rollout.
    Paused,
    /// The desired revision was rejected; stable serves all requests.
    RolledBack,
    /// The function is `Stalled` without a rollout: the spec is refused, or its first revision was rejected. A stable revision
    /// serves as before.
    Failed,
    /// The function is suspended by `spec.suspend`.
    Suspended,
}

impl Phase {
    /// Name of the phase in the status.
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

/// Computes `status.phase`. Without a rollout it follows from `conditions`, so that it agrees with `Ready`.
#[must_use]
pub fn phase(function: &Function, state: &RolloutState, conditions: &[Condition]) -> Phase {
    let is_true = |kind| {
        let mut conditions = conditions.iter();
        conditions.any(|one| one.kind == kind && one.status == ConditionStatus::True)
    };
    let paused = state
        .rollout
        .as_ref()
        .is_some_and(|r| r.flags.paused.is_some());
    match state.state {
        _ if function.suspend => Phase::Suspended,
        State::Failed => Phase::Failed,
        State::RolledBack => Phase::RolledBack,
        State::Idle if is_true(ConditionType::Ready) => Phase::Ready,
        State::Idle if is_true(ConditionType::Stalled) => Phase::Failed,
        State::Idle => Phase::Pending,
        _ if state.stable.is_none() => Phase::Pending,
        _ if paused => Phase::Paused,
        State::Loading | State::Queued | State::Stepping | State::Baking => Phase::Progressing,
    }
}

/// Types of the conditions that follow from a rollout. The operator sets `Accepted`, `Resolved` and `Compatible` elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// The nodes serve the desired revision, or do not because the function is suspended, and no rollout runs.
    Ready,
    /// The operator or the nodes still work towards the spec.
    Reconciling,
    /// The spec is not live and will not be without a change or an action.
    Stalled,
    /// A rollout runs.
    Progressing,
    /// All nodes apply the current weights.
    Distributed,
    /// Stable did not fail at least half of its requests when a rollout last measured them.
    Healthy,
}

impl ConditionType {
    /// Name of the condition type in the status.
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

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// The condition applies.
    True,
    /// The condition does not apply.
    False,
    /// It is not known whether the condition applies.
    Unknown,
}

impl ConditionStatus {
    /// Name of the status in a condition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(applies: bool) -> Self {
        if applies { Self::True } else { Self::False }
    }
}

/// Reason of `Ready=True` while no node serves the function, because it is suspended.
pub(super) const SUSPENDED: &str = HoldReason::Suspended.as_str();

/// A condition of the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Type of the condition.
    pub kind: ConditionType,
    /// Whether the condition applies.
    pub status: ConditionStatus,
    /// Reason in CamelCase.
    pub reason: String,
    /// Message for people, a sentence.
    pub message: String,
}

/// Why the newest spec cannot be rolled out: it is not accepted, not resolved or incompatible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Reason in CamelCase.
    pub reason: String,
    /// Message for people, a sentence.
    pub message: String,
    /// Whether trying again cannot help.
    pub permanent: bool,
}

/// Computes the conditions that follow from a rollout. `sentence` is its [`super::message`].
#[must_use]
pub fn conditions(
    function: &Function,
    state: &RolloutState,
    blocked: Option<&Blocked>,
    sentence: &str,
) -> Vec<Condition> {
    let (running, reason) = progressing(state);
    let (ready, why) = ready(function, state, blocked, reason);
    let stalled = !ready && is_stalled(state, blocked);
    let reconciling = !ready && !stalled;
    let text = blocked.map_or(sentence, |b| b.message.as_str());
    let n = &state.nodes;
    let spread = n.applied >= n.desired;
    let (healthy, measured, health) = stable_health::healthy(state);
    let of = |kind, status: bool, reason: &str, message: &str| Condition {
        kind,
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
    };
    let quiet = if ready { "Ready" } else { why };
    vec![
        of(ConditionType::Ready, ready, why, text),
        of(
            ConditionType::Reconciling,
            reconciling,
            quiet,
            if reconciling { text } else { "not reconciling" },
        ),
        of(
            ConditionType::Stalled,
            stalled,
            quiet,
            if stalled { text } else { "not stalled" },
        ),
        of(ConditionType::Progressing, running, reason, sentence),
        of(
            ConditionType::Distributed,
            spread,
            if spread { "Distributed" } else { "NodesBehind" },
            &distribution(state),
        ),
        Condition {
            kind: ConditionType::Healthy,
            status: healthy,
            reason: measured.into(),
            message: health,
        },
    ]
}

fn distribution(state: &RolloutState) -> String {
    let n = &state.nodes;
    let first = message::first_problem(n.problem.as_ref());
    format!(
        "{} of {} nodes serve the current weight{first}",
        n.applied, n.desired
    )
}

/// Status and reason of `Progressing`, from the transition that describes the current situation.
fn progressing(state: &RolloutState) -> (bool, &'static str) {
    let fallback = (false, "Idle");
    present(state)
        .and_then(|kind| kind.effects().progressing)
        .unwrap_or(fallback)
}

fn present(state: &RolloutState) -> Option<TransitionKind> {
    if let Some(x) = &state.rejected {
        return Some(match x.reason.as_str() {
            _ if state.state == State::Failed && x.reason != "Aborted" => {
                TransitionKind::FirstFailed
            }
            "Aborted" => TransitionKind::Aborted,
            "LoadFailed" | "LoadDeadlineExceeded" => TransitionKind::LoadFailed,
            _ => TransitionKind::CheckBad,
        });
    }
    let Some(r) = &state.rollout else {
        return state.history.first().map(|h| match h.outcome {
            Outcome::Promoted => TransitionKind::Promoted,
            _ => TransitionKind::Withdrawn,
        });
    };
    let waits = |w: &WaitingFor| r.flags.waiting_for.contains(w);
    if let Some(p) = &r.flags.paused {
        return Some(if p.reason == "StateLost" {
            TransitionKind::StateLost
        } else {
            TransitionKind::Paused
        });
    }
    if let Some(h) = &r.flags.hold {
        return Some(TransitionKind::of_hold(h.reason));
    }
    if waits(&WaitingFor::Approval) {
        return Some(TransitionKind::ApprovalNeeded);
    }
    let evidence = [
        WaitingFor::Requests,
        WaitingFor::Traffic,
        WaitingFor::Evidence,
        WaitingFor::Coverage,
    ];
    Some(match state.state {
        State::Loading if r.plan.kind == PlanKind::Revert => TransitionKind::RevertStarted,
        State::Loading => TransitionKind::Started,
        State::Queued => TransitionKind::Loaded,
        State::Baking => TransitionKind::BakeStarted,
        _ if evidence.iter().any(waits) => TransitionKind::AwaitingEvidence,
        _ => TransitionKind::NextStep,
    })
}

fn ready<'t>(
    function: &Function,
    state: &RolloutState,
    blocked: Option<&'t Blocked>,
    progressing: &'t str,
) -> (bool, &'t str) {
    if let Some(b) = blocked {
        return (false, &b.reason);
    }
    if state.state != State::Idle {
        return (false, progressing);
    }
    let n = &state.nodes;
    match &state.stable {
        None => (false, "Pending"),
        // every node answers as the spec asks for, and nothing else is going to happen
        Some(_) if function.suspend && state.suspension == Suspension::Suspended => {
            (true, SUSPENDED)
        }
        Some(_) if n.live == 0 => (false, "NoNodes"),
        Some(_) if function.suspend || state.suspension.is_pending() => (false, "NodesNotReady"),
        Some(_) => match &function.policy {
            Some(policy) if !policy.nodes.min_loaded.reached(n.loaded, n.live) => {
                (false, "NodesNotReady")
            }
            _ => (true, progressing),
        },
    }
}

/// Whether the situation does not change without a new spec or an action.
fn is_stalled(state: &RolloutState, blocked: Option<&Blocked>) -> bool {
    if let Some(b) = blocked {
        return b.permanent;
    }
    let late = |r: &HoldReason| {
        matches!(
            r,
            HoldReason::LoadDeadlineExceeded | HoldReason::DeadlineExceeded
        )
    };
    let hold = state.rollout.as_ref().and_then(|r| r.flags.hold.as_ref());
    state.rejected.is_some() || hold.map(|h| h.reason).as_ref().is_some_and(late)
}
