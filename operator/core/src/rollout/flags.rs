//! Flags beside the state: why a share stays, and what a step still waits for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Flags beside the state: they stop raises and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    /// Held by a person, or after state was lost.
    pub paused: Option<Paused>,
    /// The share stays for a named reason.
    pub hold: Option<Hold>,
    /// What the present step still waits for, in a fixed order.
    pub waiting_for: Vec<WaitingFor>,
    /// Since when a person is asked for an approval.
    #[serde(default)]
    pub asked_since: Option<Timestamp>,
    /// Since when there are no usable samples.
    pub unmeasured: Option<Unmeasured>,
    /// Since when too few nodes follow.
    pub short_since: Option<Timestamp>,
    /// Since when no node at all could be reached.
    pub unreached_since: Option<Timestamp>,
    /// Both arms miss the objective.
    pub shared: Option<Shared>,
    /// After a brake.
    pub brake: Option<BrakeHold>,
}

impl Flags {
    /// Since when the clock of the present step stands still, by whatever stopped it first: a pause, a person who is
    /// asked, a hold that stops it. `None` while it runs.
    #[must_use]
    pub fn stopped_since(&self) -> Option<Timestamp> {
        let hold = self.hold.as_ref().filter(|h| h.reason.stops_clock());
        [
            self.paused.as_ref().map(|p| p.since),
            self.asked_since,
            hold.map(|h| h.since),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// A pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Since when.
    pub since: Timestamp,
    /// Who; `operator` when state was lost.
    pub by: String,
    /// CamelCase: `Paused` or `StateLost`.
    pub reason: String,
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why.
    pub reason: HoldReason,
    /// Since when.
    pub since: Timestamp,
    /// Part of a sentence: what exactly.
    pub message: String,
}

/// Why a share stays. In order of precedence when several apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HoldReason {
    /// `spec.suspend`.
    Suspended,
    /// No node matches, or none can be reached.
    NoNodes,
    /// The share was just lowered without a verdict.
    Brake,
    /// Prometheus does not answer.
    PrometheusUnavailable,
    /// Answers hold nothing usable.
    SamplesMissing,
    /// Both arms miss the objective.
    SharedFailure,
    /// Too few nodes have loaded and acknowledged.
    NodesNotReady,
    /// Requests do not follow the share: a fault of ours.
    ShareMismatch,
    /// Loading takes too long.
    LoadDeadlineExceeded,
    /// The step takes too long; alone it does not stop the next one.
    DeadlineExceeded,
}

impl HoldReason {
    /// All, in order of precedence.
    pub const ALL: [Self; 10] = [
        Self::Suspended,
        Self::NoNodes,
        Self::Brake,
        Self::PrometheusUnavailable,
        Self::SamplesMissing,
        Self::SharedFailure,
        Self::NodesNotReady,
        Self::ShareMismatch,
        Self::LoadDeadlineExceeded,
        Self::DeadlineExceeded,
    ];

    /// As in status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "Suspended",
            Self::NoNodes => "NoNodes",
            Self::Brake => "Brake",
            Self::PrometheusUnavailable => "PrometheusUnavailable",
            Self::SamplesMissing => "SamplesMissing",
            Self::SharedFailure => "SharedFailure",
            Self::NodesNotReady => "NodesNotReady",
            Self::ShareMismatch => "ShareMismatch",
            Self::LoadDeadlineExceeded => "LoadDeadlineExceeded",
            Self::DeadlineExceeded => "DeadlineExceeded",
        }
    }

    /// Whether active time stands still under this hold.
    #[must_use]
    pub const fn stops_clock(self) -> bool {
        matches!(self, Self::Suspended | Self::NoNodes)
    }
}

/// What a step still waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WaitingFor {
    /// The revision that `spec` asks for is not known: the spec is not accepted or not resolved yet.
    Spec,
    /// Nodes that load, or acknowledge the share.
    Nodes,
    /// A place among the concurrent rollouts.
    Slot,
    /// A person.
    Approval,
    /// `minDuration`, the bake, two looks.
    Time,
    /// `minRequests`.
    Requests,
    /// Any request to the candidate.
    Traffic,
    /// The tests.
    Evidence,
    /// Fresh samples from nodes with most of stable's requests.
    Coverage,
}

impl WaitingFor {
    /// As in status.
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

/// Samples are missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmeasured {
    /// Since when.
    pub since: Timestamp,
    /// How.
    pub kind: UnmeasuredKind,
    /// What the source said, at most a line.
    pub message: String,
    /// When it was last asked.
    pub tried_at: Timestamp,
}

/// How samples are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnmeasuredKind {
    /// No answer at all.
    NoAnswer,
    /// An answer without anything usable.
    NothingUsable,
}

/// Both arms miss the objective.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Since when.
    pub since: Timestamp,
    /// Since when stable meets it again.
    pub stable_ok_since: Option<Timestamp>,
    /// Part of a sentence with both rates and the limit.
    pub message: String,
}

/// After a brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrakeHold {
    /// Since when.
    pub since: Timestamp,
    /// Only a verb ends it.
    pub until_verb: bool,
}
