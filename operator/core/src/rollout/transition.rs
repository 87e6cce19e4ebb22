//! The one table from transition to Event, condition and metric. Everything that tells people reads it.

use serde::{Deserialize, Serialize};

use super::HoldReason;

/// A transition of the machine that leaves a trace. Names are persisted, so they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TransitionKind {
    /// 1: the first revision of a function loads.
    FirstStarted,
    /// 2: it is loaded on enough nodes and is stable.
    FirstPromoted,
    /// 3: it will never load.
    FirstFailed,
    /// 4: a rollout starts.
    Started,
    /// 5: a rollout back to a recent stable starts.
    RevertStarted,
    /// 6: enough nodes have loaded the candidate.
    Loaded,
    /// 7: it will never load.
    LoadFailed,
    /// 8: loading takes too long.
    LoadDeadline,
    /// 9: the first share of a plan with steps.
    FirstShare,
    /// 9: the only share of a plan without steps.
    OnlyShare,
    /// 11: the next step.
    NextStep,
    /// 12: from the last step into the bake.
    BakeStarted,
    /// 13: the candidate is stable.
    Promoted,
    /// 14: a required check is bad.
    CheckBad,
    /// 16: the share was lowered, or stays, without a verdict.
    Braked,
    /// 16: no control exists to lower towards, so everybody goes back.
    BrakedOff,
    /// 17: nothing happened; some check has not enough yet.
    AwaitingEvidence,
    /// 18: the step takes too long.
    Deadline,
    /// 18: the same, and the user wants everybody back then.
    DeadlineRollback,
    /// 19: Prometheus does not answer.
    NoAnswer,
    /// 19: its answers hold nothing usable.
    NothingUsable,
    /// 19: the same for too long, and the user wants everybody back then.
    UnknownRollback,
    /// 20: both arms miss the objective.
    SharedFailure,
    /// 21: too few nodes follow.
    NodesNotReady,
    /// 5.10: requests do not follow the share.
    ShareMismatch,
    /// 22: the cause of a hold is gone.
    Resumed,
    /// 23: a person is asked.
    ApprovalNeeded,
    /// 23: and said yes.
    Approved,
    /// 24: another wish while a candidate was on trial.
    Superseded,
    /// 24: `spec` asks for something else that is not resolved yet.
    Abandoned,
    /// 25 and 28: stable is wished again.
    Withdrawn,
    /// 27: a rejected revision is tried again.
    Retried,
    /// 29: a person sent everybody back.
    Aborted,
    /// 30: a person holds the share.
    Paused,
    /// 30: and lets it go on.
    Unpaused,
    /// 31: a person took the next step.
    PromotedByVerb,
    /// 32: a person went straight to the bake.
    PromotedFullByVerb,
    /// 33: another leader took over.
    NewLeader,
    /// 34: nodes were without contact for so long that they had returned to stable.
    Resupervised,
    /// 35: suspended.
    Suspended,
    /// 35: no node matches or can be reached.
    NoNodes,
    /// 37: status was lost.
    StateLost,
    /// 38: the stable before this one may leave memory.
    PreviousExpired,
    /// 39: a verb without meaning here.
    VerbIgnored,
}

/// Type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// As planned.
    Normal,
    /// Somebody should look.
    Warning,
}

impl EventType {
    /// As Kubernetes spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What a transition tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telling {
    /// Row of the table of transitions in the documentation.
    pub row: u8,
    /// Event, if any.
    pub event: Option<(EventType, &'static str)>,
    /// `Progressing` after it: status and reason; `None` leaves it as it was.
    pub progressing: Option<(bool, &'static str)>,
}

const fn normal(row: u8, event: &'static str, status: bool, reason: &'static str) -> Telling {
    Telling {
        row,
        event: Some((EventType::Normal, event)),
        progressing: Some((status, reason)),
    }
}

const fn warning(row: u8, event: &'static str, status: bool, reason: &'static str) -> Telling {
    Telling {
        row,
        event: Some((EventType::Warning, event)),
        progressing: Some((status, reason)),
    }
}

impl TransitionKind {
    /// The table.
    #[must_use]
    pub const fn telling(self) -> Telling {
        match self {
            Self::FirstStarted => normal(1, "RolloutStarted", true, "Loading"),
            Self::FirstPromoted => normal(2, "Promoted", false, "Promoted"),
            Self::FirstFailed => warning(3, "LoadFailed", false, "LoadFailed"),
            Self::Started => normal(4, "RolloutStarted", true, "Loading"),
            Self::RevertStarted => normal(5, "RevertStarted", true, "Reverting"),
            Self::Loaded => Telling {
                row: 6,
                event: None,
                progressing: Some((true, "Queued")),
            },
            Self::LoadFailed => warning(7, "LoadFailed", false, "LoadFailed"),
            Self::LoadDeadline => warning(8, "Held", true, "LoadDeadlineExceeded"),
            Self::FirstShare => normal(9, "StepReached", true, "Stepping"),
            Self::OnlyShare => normal(9, "StepReached", true, "Baking"),
            Self::NextStep => normal(11, "StepReached", true, "Stepping"),
            Self::BakeStarted => normal(12, "StepReached", true, "Baking"),
            Self::Promoted => normal(13, "Promoted", false, "Promoted"),
            Self::CheckBad => warning(14, "RolledBack", false, "RolledBack"),
            Self::Braked => warning(16, "Braked", true, "Held"),
            Self::BrakedOff => warning(16, "RolledBack", false, "RolledBack"),
            Self::AwaitingEvidence => Telling {
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
            Self::Resumed => Telling {
                row: 22,
                event: Some((EventType::Normal, "Resumed")),
                progressing: None,
            },
            Self::ApprovalNeeded => normal(23, "ApprovalNeeded", true, "AwaitingApproval"),
            Self::Approved => Telling {
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
            Self::Unpaused => Telling {
                row: 30,
                event: Some((EventType::Normal, "Resumed")),
                progressing: None,
            },
            Self::PromotedByVerb => normal(31, "StepReached", true, "Stepping"),
            Self::PromotedFullByVerb => normal(32, "StepReached", true, "Baking"),
            Self::NewLeader => Telling {
                row: 33,
                event: None,
                progressing: None,
            },
            Self::Resupervised => normal(34, "Resumed", true, "Stepping"),
            Self::Suspended => normal(35, "Held", true, "Suspended"),
            Self::NoNodes => normal(35, "Held", true, "NoNodes"),
            Self::StateLost => warning(37, "Held", true, "StateLost"),
            Self::PreviousExpired => Telling {
                row: 38,
                event: None,
                progressing: None,
            },
            Self::VerbIgnored => Telling {
                row: 39,
                event: Some((EventType::Warning, "VerbIgnored")),
                progressing: None,
            },
        }
    }

    /// What a hold of this reason is told as.
    #[must_use]
    pub const fn of_hold(reason: HoldReason) -> Self {
        match reason {
            HoldReason::Suspended => Self::Suspended,
            HoldReason::NoNodes => Self::NoNodes,
            HoldReason::Brake => Self::Braked,
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
