//! What is persisted: one value that says everything about where a function's rollout stands.
//!
//! It maps one to one to the object's status. Whatever serves requests is a function of it
//! ([`super::shares`]), so a crash at any point leaves exactly one truth.

use std::time::Duration;

use jiff::Timestamp;
pub use node_api_types::FencingToken;
use serde::{Deserialize, Serialize};

use super::{
    EventRecord, Figures, Flags, HistoryEntry, NodeProblem, Plan, Rejected, StepRecord, ActionRecord,
    Weight,
};
use crate::function::{Revision, Action};

/// Where a function's rollout stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutState {
    /// The state of the machine.
    pub state: State,
    /// Stands on the share that follows from this value; never used for two different shares.
    pub pair: FencingToken,
    /// The revision that last proved itself.
    pub stable: Option<RevisionRef>,
    /// The stable before this one, kept loaded.
    pub previous: Option<Previous>,
    /// The running rollout: present exactly in `Loading`, `Queued`, `Stepping` and `Baking`.
    pub rollout: Option<Rollout>,
    /// Present exactly in `RolledBack` and `Failed`.
    pub rejected: Option<Rejected>,
    /// Per verb the last value that was acted on or ignored.
    pub actions: Vec<ActionRecord>,
    /// Newest first, at most ten.
    pub history: Vec<HistoryEntry>,
    /// Rollouts superseded in a row before they ended.
    pub superseded: u32,
    /// What was seen, for people; kept after the end until the next rollout starts.
    pub figures: Option<Figures>,
    /// Closed and open steps of the same rollout as `figures`.
    pub steps: Vec<StepRecord>,
    /// The transitions of the last write that had any: what `report` must have told exactly once.
    pub events: Vec<EventRecord>,
    /// Number of the last transition ever, 0 = none.
    pub transitions: u64,
    /// Newest generation this value took into account.
    pub observed_generation: i64,
    /// Why stable itself is considered to be failing hard; tells, and decides nothing.
    pub unhealthy: Option<String>,
    /// The nodes as last seen; a change of these alone does not ask for a write.
    pub nodes: NodesCount,
}

impl RolloutState {
    /// Whether this value of this verb has had its turn: each acts at most once, and a bare revision at most once per
    /// attempt.
    #[must_use]
    pub fn is_used(&self, verb: Action, value: &str) -> bool {
        let record = self.actions.iter().find(|r| r.verb == verb);
        record.is_some_and(|r| r.value == value || (r.bare && !value.contains('/')))
    }
}

/// How far the nodes are, with the candidate if there is one, else with stable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesCount {
    /// Nodes that placement picks.
    pub desired: u32,
    /// Of them, heard from lately.
    pub live: u32,
    /// Of the live ones, have it loaded.
    pub loaded: u32,
    /// Of them, act on the present share.
    pub applied: u32,
    /// Of the live ones, will never load it.
    pub failed: u32,
    /// The first trouble.
    pub problem: Option<NodeProblem>,
}

/// The state of the machine.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum State {
    /// No candidate.
    #[default]
    Idle,
    /// Weight 0; nodes pull and compile.
    Loading,
    /// Loaded; waits for slot and Start gates.
    Queued,
    /// In a step.
    Stepping,
    /// After the last step, before the candidate becomes stable.
    Baking,
    /// The wish is not stable and was rejected.
    RolledBack,
    /// There is no stable, and the wish cannot be loaded.
    Failed,
}

impl State {
    /// As in `status.rollout.state`.
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

/// A revision and since when it has its role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRef {
    /// Which.
    pub revision: Revision,
    /// Since when.
    pub since: Timestamp,
}

/// The stable before this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Which.
    pub revision: Revision,
    /// Until when it stays loaded and may return by the short plan.
    pub until: Timestamp,
}

/// One try to turn a candidate into stable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The revision on trial.
    pub candidate: RevisionRef,
    /// 1, and one more for each `retry`.
    pub attempt: u32,
    /// Frozen.
    pub plan: Plan,
    /// Present step from 0; in `Baking` the number of steps.
    pub step: usize,
    /// The candidate's share where it is exposed.
    pub weight: Weight,
    /// When the rollout started.
    pub started_at: Timestamp,
    /// When the present step or state began.
    pub step_started_at: Timestamp,
    /// Active time in the present step or state: stands still while paused, suspended, without nodes and while nobody led.
    pub active: Duration,
    /// Until when `active` is counted.
    pub clock_at: Timestamp,
    /// When enough nodes had acknowledged the present share.
    pub acked_at: Option<Timestamp>,
    /// When all live nodes had: the record says so at once and not only half a minute later, once per share.
    #[serde(default)]
    pub all_acked_at: Option<Timestamp>,
    /// Usable looks in the present step after the acknowledgement.
    pub step_looks: u32,
    /// Requests to the candidate in the present step.
    pub step_requests: u64,
    /// Looks in a row without one request to the candidate.
    pub quiet_looks: u32,
    /// Gates that a person opened, `<gate>` or `<gate>/step-<n>`.
    pub approved: Vec<String>,
    /// Flags beside the state; they stop raises and nothing else.
    pub flags: Flags,
    /// How often the share was lowered without a verdict.
    pub backstops: u32,
    /// Sequential test state.
    pub analysis: Option<AnalysisState>,
    /// When this value was last persisted without a transition.
    pub checkpoint_at: Timestamp,
}

/// Test state and what it includes: always written together, so that a replayed look never counts twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnalysisState {
    /// Opaque, versioned, at most 4 KiB.
    pub state: String,
    /// Looks it includes.
    pub looks: u64,
    /// Time of the last of them.
    pub looked_at: Timestamp,
}
