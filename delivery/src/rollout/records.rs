//! Persisted records: rejections, actions, steps and transitions.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{RequestCounts, TransitionKind, Weight};
use crate::function::{Action, Revision};

/// A rejected revision. It is not tried again without the action `retry`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Revision that was rejected.
    pub revision: Revision,
    /// Reason in CamelCase: `ErrorsWorse`, `SlowerThanStable`, `Aborted`, `LoadFailed`, …
    pub reason: String,
    /// Message with the decisive figures.
    pub message: String,
    /// Time of the rejection.
    pub at: Timestamp,
    /// Number of the attempt that was rejected, from 1.
    pub attempt: u32,
}

/// Last value of one action and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// Requested action.
    pub action: Action,
    /// Value of the annotation that was last acted on or ignored.
    pub value: String,
    /// Time at which it was handled.
    pub at: Timestamp,
    /// Field manager that wrote the annotation; empty if unknown.
    pub by: String,
    /// Whether a value without token acted in this attempt. Such a value acts once per attempt.
    pub bare: bool,
    /// Result of the action.
    pub result: ActionResult,
}

/// Result of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionResult {
    /// The action was carried out.
    Done,
    /// The action was ignored, for this reason.
    Ignored(String),
}

/// One step of the current or last rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Index of the step, from 0.
    pub step: usize,
    /// Weight of the candidate.
    pub weight: Weight,
    /// Begin of the step.
    pub started_at: Timestamp,
    /// End of the step; `None` while it runs.
    pub ended_at: Option<Timestamp>,
    /// Counts of the candidate in the step so far.
    #[serde(default)]
    pub candidate: RequestCounts,
    /// Counts of stable in the step so far.
    #[serde(default)]
    pub stable: RequestCounts,
    /// What ended the step; `None` while it runs.
    pub passed_by: Option<PassedBy>,
}

/// What ended a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PassedBy {
    /// The tests passed.
    Evidence,
    /// The minimum time passed.
    Time,
    /// An action of a person.
    Action,
    /// The weight was lowered: by the backstop, a rollback or another desired revision.
    Lowered,
}

/// Persisted transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Number of the transition in the life of the function, from 1. It is part of the Event's name, so that a repeated report
    /// does not create a second Event.
    pub number: u64,
    /// Kind of the transition.
    pub kind: TransitionKind,
    /// Message of the Event.
    pub message: String,
    /// Time of the decision.
    pub at: Timestamp,
}
