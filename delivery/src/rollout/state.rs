//! The persisted state of a function's rollout, in one value.
//!
//! The status of the object contains it. The traffic split of the nodes is derived from it ([`super::shares`]), so a crash
//! at any point leaves one consistent state.

use std::time::Duration;

use jiff::Timestamp;
pub use node_api_types::FencingToken;
use serde::{Deserialize, Serialize};

use super::{
    ActionRecord, EventRecord, EvidenceSummary, Flags, HistoryEntry, NodeProblem, Plan, Rejected,
    StepRecord, Suspension, Weight,
};
use crate::function::{Action, Revision};

/// Persisted state of a function's rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutState {
    /// State of the state machine.
    pub state: State,
    /// Fencing token of the traffic split that follows from this state. It is never used for two different splits.
    pub token: FencingToken,
    /// Stable revision.
    pub stable: Option<RevisionRef>,
    /// Previous stable revision, which stays loaded.
    pub previous: Option<Previous>,
    /// Running rollout; present exactly in `Loading`, `Queued`, `Stepping` and `Baking`.
    pub rollout: Option<Rollout>,
    /// Rejected revision; present exactly in `RolledBack` and `Failed`.
    pub rejected: Option<Rejected>,
    /// For each action the last value that was acted on or ignored.
    pub actions: Vec<ActionRecord>,
    /// Past rollouts, newest first, at most [`super::HISTORY_LIMIT`].
    pub history: Vec<HistoryEntry>,
    /// Number of rollouts in a row that another desired revision ended.
    pub superseded: u32,
    /// Counts and evidence for the status; kept after the end until the next rollout starts.
    #[serde(rename = "figures")]
    pub evidence_summary: Option<EvidenceSummary>,
    /// Steps of the same rollout as `evidence_summary`.
    pub steps: Vec<StepRecord>,
    /// Transitions of the last write that had any. Each is reported exactly once.
    pub events: Vec<EventRecord>,
    /// Number of the last transition; 0 if there was none.
    pub transitions: u64,
    /// Newest generation that this state takes into account.
    pub observed_generation: i64,
    /// Clause that says that stable fails at least half of its requests, if it does. It does not affect decisions.
    pub unhealthy: Option<String>,
    /// Whether a rollout has measured requests that stable answered or failed: as stable, or as the candidate before. False in records
    /// of former versions.
    #[serde(default)]
    pub stable_measured: bool,
    /// Whether the function is suspended, and whether the nodes have that. `Off` in records of former versions.
    #[serde(default)]
    pub suspension: Suspension,
    /// Node counts of the last decision. A change of these alone does not require a write.
    pub nodes: NodesCount,
}

impl RolloutState {
    /// Whether this value of the action was already handled. Each value acts at most once, and a value without token at most
    /// once per attempt.
    #[must_use]
    pub fn is_used(&self, action: Action, value: &str) -> bool {
        let record = self.actions.iter().find(|r| r.action == action);
        record.is_some_and(|r| r.value == value || (r.bare && !value.contains('/')))
    }
}

/// Progress of the nodes with the candidate if there is one, else with stable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesCount {
    /// Number of nodes that the placement selects.
    pub desired: u32,
    /// Number of those nodes that reported within the last 10 s.
    pub live: u32,
    /// Number of live nodes that have loaded the revision.
    pub loaded: u32,
    /// Number of live nodes that apply the current weight.
    pub applied: u32,
    /// Number of live nodes that cannot load the revision, permanently.
    pub failed: u32,
    /// Problem of the first node that has not loaded it, if any.
    pub problem: Option<NodeProblem>,
}

/// State of the state machine.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum State {
    /// There is no candidate.
    #[default]
    Idle,
    /// The candidate has weight 0; nodes pull and compile it.
    Loading,
    /// The candidate is loaded and waits for a slot and Start gates.
    Queued,
    /// The candidate is in a step.
    Stepping,
    /// The candidate is in the bake, the observation period after the last step.
    Baking,
    /// The desired revision was rejected; stable serves all requests.
    RolledBack,
    /// There is no stable revision, and the desired one was rejected.
    Failed,
}

impl State {
    /// Name of the state in `status.rollout.state`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Loading => "Loading",
            Self::Queued => "Queued",
            Self::Stepping => "Stepping",
            Self::Baking => "Baking",
            Self::RolledBack => "RolledBack",
            Self::Failed => "Failed",
        }
    }

    /// Whether there is a candidate.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(
            self,
            Self::Loading | Self::Queued | Self::Stepping | Self::Baking
        )
    }

    /// Whether the candidate gets requests.
    #[must_use]
    pub const fn is_exposed(self) -> bool {
        matches!(self, Self::Stepping | Self::Baking)
    }
}

/// A revision and the time since which it has its role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRef {
    /// The revision.
    pub revision: Revision,
    /// Begin of its role.
    pub since: Timestamp,
}

/// Previous stable revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// The revision.
    pub revision: Revision,
    /// Time until which it stays loaded and may return by the shortened rollout.
    pub until: Timestamp,
}

/// One attempt to make a candidate stable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Candidate revision.
    pub candidate: RevisionRef,
    /// Number of the attempt: 1, plus one for each `retry`.
    pub attempt: u32,
    /// Plan, frozen when the rollout started.
    pub plan: Plan,
    /// Index of the current step, from 0; in `Baking` the number of steps.
    pub step: usize,
    /// Weight of the candidate in the states in which it gets requests.
    pub weight: Weight,
    /// Begin of the rollout.
    pub started_at: Timestamp,
    /// Begin of the current step or state.
    pub step_started_at: Timestamp,
    /// Active time in the current step or state. It stops while the rollout is paused, waits for an approval, is suspended or
    /// without nodes, and while there is no leader.
    pub active: Duration,
    /// Time up to which `active` is counted.
    pub clock_at: Timestamp,
    /// Time at which enough nodes had acknowledged the current weight.
    pub acked_at: Option<Timestamp>,
    /// Time at which all live nodes had acknowledged the current weight. It causes one write, so that the status shows it
    /// before the next checkpoint.
    #[serde(default)]
    pub all_acked_at: Option<Timestamp>,
    /// Number of usable evaluations in the current step after the acknowledgement.
    #[serde(rename = "step_looks")]
    pub step_evaluations: u32,
    /// Number of requests to the candidate in the current step.
    pub step_requests: u64,
    /// Number of evaluations in a row without a request to the candidate.
    #[serde(rename = "quiet_looks")]
    pub quiet_evaluations: u32,
    /// Keys of approved gates: `<gate>` or `<gate>/step-<n>`.
    pub approved: Vec<String>,
    /// Flags, which only stop the weight from rising.
    pub flags: Flags,
    /// Number of times the error backstop was reached.
    pub backstops: u32,
    /// State of the sequential tests; `None` before the first evaluation.
    pub analysis: Option<AnalysisState>,
    /// Time of the last write.
    pub checkpoint_at: Timestamp,
}

/// State of the tests and the evaluations it includes. They are written together, so that a repeated evaluation never
/// counts twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnalysisState {
    /// Opaque versioned text of at most 4 KiB.
    pub state: String,
    /// Number of evaluations it includes.
    #[serde(rename = "looks")]
    pub evaluations: u64,
    /// Time of the last of these evaluations.
    pub evaluated_at: Timestamp,
}
