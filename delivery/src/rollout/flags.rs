//! Flags of a rollout: why its weight does not change, and what a step still waits for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Flags of a rollout. They only stop the weight from rising.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    /// Pause by a person, or after the status was lost.
    pub paused: Option<Paused>,
    /// Hold of the weight for a named reason.
    pub hold: Option<Hold>,
    /// What the current step still waits for, in a fixed order.
    pub waiting_for: Vec<WaitingFor>,
    /// Time since which an approval is requested.
    #[serde(default, rename = "asked_since")]
    pub approval_requested_at: Option<Timestamp>,
    /// Period without usable samples.
    pub unmeasured: Option<Unmeasured>,
    /// Time since which too few nodes apply the weight.
    pub short_since: Option<Timestamp>,
    /// Time since which no node can be reached.
    pub unreached_since: Option<Timestamp>,
    /// Shared failure: both revisions miss the objective.
    pub shared: Option<SharedFailure>,
    /// Hold after the error backstop was reached.
    #[serde(rename = "backstop")]
    pub backstop: Option<BackstopHold>,
}

impl Flags {
    /// Time since which the clock of the current step is stopped by a pause, a requested approval or a hold. `None` while it
    /// runs.
    #[must_use]
    pub fn stopped_since(&self) -> Option<Timestamp> {
        let hold = self.hold.as_ref().filter(|h| h.reason.stops_clock());
        [
            self.paused.as_ref().map(|p| p.since),
            self.approval_requested_at,
            hold.map(|h| h.since),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// Pause of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Begin of the pause.
    pub since: Timestamp,
    /// Field manager that requested it; `operator` if the status was lost.
    pub by: String,
    /// Reason: `Paused` or `StateLost`.
    pub reason: String,
}

/// Hold of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Reason of the hold.
    pub reason: HoldReason,
    /// Begin of the hold.
    pub since: Timestamp,
    /// Clause for messages.
    pub message: String,
}

/// Reason why the weight is held. When several apply, the first variant wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HoldReason {
    /// The function is suspended by `spec.suspend`.
    Suspended,
    /// No node matches the placement, or no node can be reached.
    NoNodes,
    /// The error backstop was reached: too many of the candidate's requests fail, and the comparison with stable has not
    /// decided.
    TotalErrors,
    /// Prometheus does not answer.
    PrometheusUnavailable,
    /// The samples contain nothing usable.
    SamplesMissing,
    /// Both revisions miss the objective, or both fail more than usual.
    SharedFailure,
    /// Too few nodes have loaded the candidate and acknowledged its weight.
    NodesNotReady,
    /// The split of the requests contradicts the weight, which only a bug in Selvage explains.
    ShareMismatch,
    /// The load deadline has passed.
    LoadDeadlineExceeded,
    /// The deadline of the step has passed. This alone does not stop the next step.
    DeadlineExceeded,
}

impl HoldReason {
    /// All reasons in order of precedence.
    pub const ALL: [Self; 10] = [
        Self::Suspended,
        Self::NoNodes,
        Self::TotalErrors,
        Self::PrometheusUnavailable,
        Self::SamplesMissing,
        Self::SharedFailure,
        Self::NodesNotReady,
        Self::ShareMismatch,
        Self::LoadDeadlineExceeded,
        Self::DeadlineExceeded,
    ];

    /// Name of the reason in the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "Suspended",
            Self::NoNodes => "NoNodes",
            Self::TotalErrors => "TotalErrors",
            Self::PrometheusUnavailable => "PrometheusUnavailable",
            Self::SamplesMissing => "SamplesMissing",
            Self::SharedFailure => "SharedFailure",
            Self::NodesNotReady => "NodesNotReady",
            Self::ShareMismatch => "ShareMismatch",
            Self::LoadDeadlineExceeded => "LoadDeadlineExceeded",
            Self::DeadlineExceeded => "DeadlineExceeded",
        }
    }

    /// Whether this hold stops the clock of the step.
    #[must_use]
    pub const fn stops_clock(self) -> bool {
        matches!(self, Self::Suspended | Self::NoNodes)
    }
}

/// Condition that a step still waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WaitingFor {
    /// The desired revision is not known: the spec is not accepted or not resolved yet.
    Spec,
    /// Nodes have to load the candidate or to acknowledge its weight.
    Nodes,
    /// All slots for concurrent rollouts are taken.
    Slot,
    /// A person has to approve.
    Approval,
    /// `minDuration`, the bake, or the second evaluation.
    Time,
    /// The step has fewer requests than `minRequests`.
    Requests,
    /// The candidate gets no requests.
    Traffic,
    /// The tests need more evidence.
    Evidence,
    /// Nodes with most of stable's requests have no fresh samples.
    Coverage,
}

impl WaitingFor {
    /// Whether only an evaluation can end this wait.
    pub(super) const fn needs_samples(self) -> bool {
        match self {
            Self::Spec | Self::Nodes | Self::Slot | Self::Approval => false,
            Self::Time | Self::Requests | Self::Traffic | Self::Evidence | Self::Coverage => true,
        }
    }

    /// Name of the condition in the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spec => "Spec",
            Self::Nodes => "Nodes",
            Self::Slot => "Slot",
            Self::Approval => "Approval",
            Self::Time => "Time",
            Self::Requests => "Requests",
            Self::Traffic => "Traffic",
            Self::Evidence => "Evidence",
            Self::Coverage => "Coverage",
        }
    }
}

/// Period without usable samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmeasured {
    /// Begin of the period.
    pub since: Timestamp,
    /// Kind of the failure.
    pub kind: UnmeasuredKind,
    /// Message of the source, at most one line.
    pub message: String,
    /// Time of the last attempt.
    pub tried_at: Timestamp,
}

/// Kind of missing samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnmeasuredKind {
    /// The source did not answer.
    NoAnswer,
    /// The source answered without usable samples.
    NothingUsable,
}

/// Shared failure: both revisions miss the objective.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedFailure {
    /// Begin of the failure.
    pub since: Timestamp,
    /// Time since which stable meets the objective again.
    pub stable_ok_since: Option<Timestamp>,
    /// Clause with both rates and the limit.
    pub message: String,
}

/// Hold after the error backstop was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackstopHold {
    /// Begin of the hold.
    pub since: Timestamp,
    /// Whether only the action `resume` ends it.
    #[serde(rename = "until_action")]
    pub until_action: bool,
}
