//! What the world says: everything a decision depends on besides function, state and time.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{FencingToken, Figures, Traffic, UnmeasuredKind};
use crate::function::Revision;

/// Everything a decision depends on besides function, state and time.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The deciding leader's epoch; above every epoch persisted or acknowledged.
    pub epoch: u64,
    /// The nodes.
    pub nodes: NodesView,
    /// What measuring gave.
    pub measured: Measured,
    /// This rollout has or may take one of the places for concurrent rollouts.
    pub slot: bool,
    /// Stable's traffic, when [`super::due`] asked for it; with `requests_per_second: None` when it could not be found out.
    pub traffic: Option<Traffic>,
    /// Newest revision with `promotedAt`: what state is recovered from when status was lost.
    pub promoted: Option<Revision>,
    /// After this long without contact nodes return to stable by themselves.
    pub unsupervised_ttl: Duration,
}

/// The nodes of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodesView {
    /// Nodes that placement picks (0 with `replicas: 0`).
    pub desired: u32,
    /// Of them, heard from within 10 s.
    pub live: u32,
    /// Of the live ones, per revision.
    pub revisions: Vec<RevisionOnNodes>,
    /// Pair that `applied` is about.
    pub pair: FencingToken,
    /// Live nodes that have loaded the candidate (at rest: stable) and acknowledged `pair` or a greater one.
    pub applied: u32,
    /// Largest pair of this function that any node ever acknowledged.
    pub highest_pair: Option<FencingToken>,
    /// Live nodes that had returned to stable by themselves after losing contact and have not acknowledged `pair` since.
    pub returned: u32,
}

/// How far live nodes are with a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevisionOnNodes {
    /// Name.
    pub revision: String,
    /// Live nodes that have it loaded.
    pub loaded: u32,
    /// Live nodes that will never load it.
    pub failed: u32,
    /// The first trouble, if any.
    pub problem: Option<NodeProblem>,
}

/// Why a node has not loaded a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProblem {
    /// Which node.
    pub node: String,
    /// CamelCase.
    pub reason: String,
    /// A line.
    pub message: String,
}

impl NodesView {
    /// How far live nodes are with a revision; zeros for one they do not know.
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

/// What measuring gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Measured {
    /// Nothing was due.
    #[default]
    NotDue,
    /// It was due and gave nothing.
    Unavailable {
        /// How.
        kind: UnmeasuredKind,
        /// What the source said.
        message: String,
    },
    /// One look.
    Look(Box<Look>),
}

/// One evaluation of the increments since the last one.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// The candidate it is about.
    pub revision: String,
    /// Looks of this rollout including this one; a look whose number is not the next one is not counted.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Test state after it, opaque.
    pub analysis: String,
    /// What all required checks say together.
    pub verdict: Verdict,
    /// The one-sample brake crossed.
    pub brake: bool,
    /// Both arms miss the objective while the relative test is silent.
    pub shared_failure: Option<String>,
    /// Stable meets its objective (true without one).
    pub stable_meets_slo: bool,
    /// Fresh nodes have most of stable's requests.
    pub covered: bool,
    /// Requests do not follow the share.
    pub share_mismatch: Option<String>,
    /// Stable itself is failing hard: why.
    pub stable_unhealthy: Option<String>,
    /// Candidate requests in this look.
    pub candidate_requests: u64,
    /// For people.
    pub figures: Figures,
}

/// What the tests say.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// All pass processes are over their limit at this look.
    Good,
    /// Worse than tolerated; figures carry the decisive counts.
    Bad {
        /// `ErrorsWorse`, `SlowerThanStable`, `ClientErrorsWorse`, `SloViolated`.
        reason: String,
    },
    /// Neither.
    NotEnough,
}
