//! The table of transitions with the Event, the condition and the metric of each.

use serde::{Deserialize, Serialize};

use super::HoldReason;

/// A transition of the state machine that is reported. The names are persisted, so they must not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TransitionKind {
    /// 1: the first revision of a function loads.
    FirstStarted,
    /// 2: the first revision is loaded on enough nodes and becomes stable.
    FirstPromoted,
    /// 3: the first revision is rejected: nodes cannot load it, or the load deadline passed.
    FirstFailed,
    /// 4: a rollout starts.
    Started,
    /// 5: a rollout back to a recent stable revision starts.
    RevertStarted,
    /// 6: enough nodes have loaded the candidate.
    Loaded,
    /// 7: the candidate is rejected: nodes cannot load it, or the load deadline passed.
    LoadFailed,
    /// 8: the load deadline passed; the rollout is held.
    LoadDeadline,
    /// 9: the candidate gets the weight of the first step.
    FirstTraffic,
    /// 9: the candidate gets the weight of the bake in a plan without steps.
    AllTraffic,
    /// 11: the next step starts.
    NextStep,
    /// 12: the bake starts after the last step.
    BakeStarted,
    /// 13: the candidate becomes stable.
    Promoted,
    /// 14: a required test has the verdict bad.
    CheckBad,
    /// 16: the error backstop was reached; the weight is lowered or held.
    BackstopReached,
    /// 16: the error backstop was reached and stable has no weight as a control, so the rollout is rolled back.
    BackstopRollback,
    /// 17: the step waits for more evidence.
    AwaitingEvidence,
    /// 18: the deadline of the step passed; the rollout is held.
    Deadline,
    /// 18: the deadline of the step passed; the rollout is rolled back.
    DeadlineRollback,
    /// 19: Prometheus does not answer.
    NoAnswer,
    /// 19: the samples contain nothing usable.
    NothingUsable,
    /// 19: samples were missing for `maxUnknown`; the rollout is rolled back.
    UnknownRollback,
    /// 20: both revisions miss the objective.
    SharedFailure,
    /// 21: too few nodes apply the weight.
    NodesNotReady,
    /// 20: the split of the requests contradicts the weight.
    ShareMismatch,
    /// 22: the cause of a hold has ended.
    Resumed,
    /// 23: an approval is requested.
    ApprovalNeeded,
    /// 23: a person approved.
    Approved,
    /// 24: the desired revision changed during a rollout.
    Superseded,
    /// 24: the spec no longer asks for the candidate, and what it asks for is not resolved yet.
    Abandoned,
    /// 25 and 28: the spec asks for the stable revision again.
    Withdrawn,
    /// 27: a rejected revision is tried again.
    Retried,
    /// 29: a person aborted the rollout.
    Aborted,
    /// 30: a person paused the rollout.
    Paused,
    /// 30: a person resumed the rollout.
    Unpaused,
    /// 31: a person started the next step.
    PromotedByAction,
    /// 32: a person started the bake.
    PromotedFullByAction,
    /// 33: another leader continues the rollout.
    NewLeader,
    /// 34: nodes had returned to stable after losing contact; the weight is sent again.
    Resupervised,
    /// 35: the function is suspended.
    Suspended,
    /// 35: no node matches the placement or can be reached.
    NoNodes,
    /// 37: the status was lost.
    StateLost,
    /// 38: nodes may unload the previous stable revision.
    PreviousExpired,
    /// 39: an action that does not apply was ignored.
    ActionIgnored,
}

/// Type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// An expected transition.
    Normal,
    /// A transition that a person should look at.
    Warning,
}

impl EventType {
    /// Name of the type in Kubernetes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Event and condition that a transition causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransitionEffects {
    /// Row of the table of transitions, as in the names of the tests.
    pub row: u8,
    /// Type and reason of the Event, if there is one.
    pub event: Option<(EventType, &'static str)>,
    /// Status and reason of the condition `Progressing` after the transition; `None` leaves it unchanged.
    pub progressing: Option<(bool, &'static str)>,
}

const fn normal(
    row: u8,
    event: &'static str,
    status: bool,
    reason: &'static str,
) -> TransitionEffects {
    TransitionEffects {
        row,
        event: Some((EventType::Normal, event)),
        progressing: Some((status, reason)),
    }
}

const fn warning(
    row: u8,
    event: &'static str,
    status: bool,
    reason: &'static str,
) -> TransitionEffects {
    TransitionEffects {
        row,
        event: Some((EventType::Warning, event)),
        progressing: Some((status, reason)),
    }
}

impl TransitionKind {
    /// Looks the transition up in the table.
    #[must_use]
    pub const fn effects(self) -> TransitionEffects {
        match self {
            Self::FirstStarted => normal(1, "RolloutStarted", true, "Loading"),
            Self::FirstPromoted => normal(2, "Promoted", false, "Promoted"),
            Self::FirstFailed => warning(3, "LoadFailed", false, "LoadFailed"),
            Self::Started => normal(4, "RolloutStarted", true, "Loading"),
            Self::RevertStarted => normal(5, "RevertStarted", true, "Reverting"),
            Self::Loaded => TransitionEffects {
                row: 6,
                event: None,
                progressing: Some((true, "Queued")),
            },
            Self::LoadFailed => warning(7, "LoadFailed", false, "LoadFailed"),
            Self::LoadDeadline => warning(8, "Held", true, "LoadDeadlineExceeded"),
            Self::FirstTraffic => normal(9, "StepReached", true, "Stepping"),
            Self::AllTraffic => normal(9, "StepReached", true, "Baking"),
            Self::NextStep => normal(11, "StepReached", true, "Stepping"),
            Self::BakeStarted => normal(12, "StepReached", true, "Baking"),
            Self::Promoted => normal(13, "Promoted", false, "Promoted"),
            Self::CheckBad => warning(14, "RolledBack", false, "RolledBack"),
            Self::BackstopReached => warning(16, "BackstopReached", true, "Held"),
            Self::BackstopRollback => warning(16, "RolledBack", false, "RolledBack"),
            Self::AwaitingEvidence => TransitionEffects {
                row: 17,
                event: None,
                progressing: Some((true, "AwaitingEvidence")),
            },
            Self::Deadline => warning(18, "Held", true, "DeadlineExceeded"),
            Self::DeadlineRollback => warning(18, "RolledBack", false, "RolledBack"),
            Self::NoAnswer => warning(19, "Held", true, "PrometheusUnavailable"),
            Self::NothingUsable => warning(19, "Held", true, "SamplesMissing"),
            Self::UnknownRollback => warning(19, "RolledBack", false, "RolledBack"),
            Self::SharedFailure => warning(20, "Held", true, "SharedFailure"),
            Self::NodesNotReady => normal(21, "Held", true, "NodesNotReady"),
            Self::ShareMismatch => warning(20, "Held", true, "ShareMismatch"),
            Self::Resumed => TransitionEffects {
                row: 22,
                event: Some((EventType::Normal, "Resumed")),
                progressing: None,
            },
            Self::ApprovalNeeded => normal(23, "ApprovalNeeded", true, "AwaitingApproval"),
            Self::Approved => TransitionEffects {
                row: 23,
                event: Some((EventType::Normal, "Approved")),
                progressing: None,
            },
            Self::Superseded => normal(24, "RolloutStarted", true, "Loading"),
            Self::Abandoned => normal(24, "Withdrawn", false, "Withdrawn"),
            Self::Withdrawn => normal(25, "Withdrawn", false, "Withdrawn"),
            Self::Retried => normal(27, "RolloutStarted", true, "Loading"),
            Self::Aborted => warning(29, "Aborted", false, "Aborted"),
            Self::Paused => normal(30, "Held", true, "Paused"),
            Self::Unpaused => TransitionEffects {
                row: 30,
                event: Some((EventType::Normal, "Resumed")),
                progressing: None,
            },
            Self::PromotedByAction => normal(31, "StepReached", true, "Stepping"),
            Self::PromotedFullByAction => normal(32, "StepReached", true, "Baking"),
            Self::NewLeader => TransitionEffects {
                row: 33,
                event: None,
                progressing: None,
            },
            Self::Resupervised => normal(34, "Resumed", true, "Stepping"),
            Self::Suspended => normal(35, "Held", true, "Suspended"),
            Self::NoNodes => normal(35, "Held", true, "NoNodes"),
            Self::StateLost => warning(37, "Held", true, "StateLost"),
            Self::PreviousExpired => TransitionEffects {
                row: 38,
                event: None,
                progressing: None,
            },
            Self::ActionIgnored => TransitionEffects {
                row: 39,
                event: Some((EventType::Warning, "ActionIgnored")),
                progressing: None,
            },
        }
    }

    /// Transition that reports a hold of this reason.
    #[must_use]
    pub const fn of_hold(reason: HoldReason) -> Self {
        match reason {
            HoldReason::Suspended => Self::Suspended,
            HoldReason::NoNodes => Self::NoNodes,
            HoldReason::TotalErrors => Self::BackstopReached,
            HoldReason::PrometheusUnavailable => Self::NoAnswer,
            HoldReason::SamplesMissing => Self::NothingUsable,
            HoldReason::SharedFailure => Self::SharedFailure,
            HoldReason::NodesNotReady => Self::NodesNotReady,
            HoldReason::ShareMismatch => Self::ShareMismatch,
            HoldReason::LoadDeadlineExceeded => Self::LoadDeadline,
            HoldReason::DeadlineExceeded => Self::Deadline,
        }
    }
}
