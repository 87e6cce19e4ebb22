//! Input of a decision besides the function, the state and the time.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{EvidenceSummary, FencingToken, StableHealth, Traffic, UnmeasuredKind};
use crate::function::Revision;

/// Input of a decision besides the function, the state and the time.
#[derive(Clone, Debug, PartialEq)]
pub struct DecisionInput {
    /// Epoch of the deciding leader. It is above every epoch that was persisted or acknowledged.
    pub epoch: u64,
    /// State of the function's nodes.
    pub nodes: NodesView,
    /// Result of the measurement that was due.
    pub measured: Measured,
    /// Whether this rollout has, or may take, one of the slots for concurrent rollouts.
    pub slot: bool,
    /// Stable's traffic if [`super::required_measurements`] requested it; `None` while it is still being measured. Its `requests_per_second` is
    /// `None` if it could not be measured.
    pub traffic: Option<Traffic>,
    /// Newest revision with `promotedAt`. The state is restored from it when the status was lost.
    pub promoted: Option<Revision>,
    /// Time without contact to the operator after which nodes return to stable by themselves.
    pub unsupervised_ttl: Duration,
}

/// Summary of the nodes of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodesView {
    /// Number of nodes that the placement selects (0 with `replicas: 0`).
    pub desired: u32,
    /// Number of those nodes that reported within the last 10 s.
    pub live: u32,
    /// Progress of the live nodes with each revision.
    pub revisions: Vec<RevisionOnNodes>,
    /// Fencing token that `applied` refers to.
    pub token: FencingToken,
    /// Number of live nodes that have loaded the candidate (at rest: stable) and acknowledged `token` or a greater token.
    pub applied: u32,
    /// Largest fencing token of this function that a node of the placement has acknowledged, up to the epoch of the deciding
    /// leader. A greater epoch was never issued.
    pub highest_token: Option<FencingToken>,
    /// Number of live nodes that acknowledged a greater token than the state and its hint have.
    pub ahead: u32,
    /// Number of live nodes that returned to stable by themselves after losing contact and have not acknowledged `token` since.
    pub returned: u32,
}

/// Progress of the live nodes with one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevisionOnNodes {
    /// Name of the revision.
    pub revision: String,
    /// Number of live nodes that have loaded it.
    pub loaded: u32,
    /// Number of live nodes that cannot load it, permanently.
    pub failed: u32,
    /// Problem of the first node that has not loaded it, if any.
    pub problem: Option<NodeProblem>,
}

/// Reason why a node has not loaded a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProblem {
    /// Name of the node.
    pub node: String,
    /// Reason in CamelCase.
    pub reason: String,
    /// Message of one line.
    pub message: String,
}

impl NodesView {
    /// Returns the progress of the live nodes with a revision; all zero for a revision that no node reports.
    #[must_use]
    pub fn of(&self, revision: &str) -> RevisionOnNodes {
        self.revisions
            .iter()
            .find(|r| r.revision == revision)
            .cloned()
            .unwrap_or_else(|| RevisionOnNodes {
                revision: revision.into(),
                ..RevisionOnNodes::default()
            })
    }
}

/// Result of a measurement.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Measured {
    /// No measurement was due, or there are no new samples yet.
    #[default]
    NotDue,
    /// A measurement was due and failed.
    Unavailable {
        /// Kind of the failure.
        kind: UnmeasuredKind,
        /// Message of the source.
        message: String,
    },
    /// An evaluation was made.
    Evaluation(Box<Evaluation>),
}

/// Result of one evaluation of what was counted since the last one.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Name of the candidate.
    pub revision: String,
    /// Number of the evaluation in this rollout, from 1. An evaluation whose number is not the next one is not counted.
    pub number: u64,
    /// Time of the evaluation.
    pub at: Timestamp,
    /// State of the tests after it; opaque.
    pub analysis: String,
    /// Combined verdict of all required tests.
    pub verdict: Verdict,
    /// Whether the error backstop, which tests all traffic together, has reached its limit.
    pub backstop: bool,
    /// Clause that says that both revisions miss the objective, if they do and the comparison between them shows no difference.
    pub shared_failure: Option<String>,
    /// Whether stable meets its objective; true without an objective.
    pub stable_meets_slo: bool,
    /// Whether nodes with fresh samples serve most of stable's requests.
    pub covered: bool,
    /// Clause that says that the split of the requests contradicts the weight, if it does.
    pub share_mismatch: Option<String>,
    /// What the requests to stable in this evaluation show; `None` if they are too few to show anything.
    pub stable_health: Option<StableHealth>,
    /// Number of candidate requests in this evaluation.
    pub candidate_requests: u64,
    /// Evidence for the status.
    pub evidence_summary: EvidenceSummary,
}

/// Combined verdict of the tests.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every test of the pass side has reached its limit in this evaluation.
    Good,
    /// The candidate is worse than tolerated. The evidence has the decisive counts.
    Bad {
        /// Reason: `ErrorsWorse`, `SlowerThanStable`, `ClientErrorsWorse` or `SloViolated`.
        reason: String,
    },
    /// Neither is shown.
    NotEnough,
}
