//! What is kept of what happened: rejections, verbs, steps, transitions.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ArmSums, TransitionKind, Weight};
use crate::function::{Revision, Action};

/// A revision that is not tried again by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Which.
    pub revision: Revision,
    /// CamelCase: `ErrorsWorse`, `SlowerThanStable`, `Aborted`, `LoadFailed`, …
    pub reason: String,
    /// The whole sentence, with the decisive figures.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// The attempt that was rejected.
    pub attempt: u32,
}

/// What became of a verb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// Key.
    pub verb: Action,
    /// The annotation's value that was last acted on or ignored.
    pub value: String,
    /// When.
    pub at: Timestamp,
    /// Field manager.
    pub by: String,
    /// A bare revision was already acted on in the present attempt, and so is not again.
    pub bare: bool,
    /// Acted on, or why not.
    pub result: ActionResult,
}

/// What became of a verb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionResult {
    /// It had its effect.
    Done,
    /// It had none, because.
    Ignored(String),
}

/// One step of the present or last rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// From 0.
    pub step: usize,
    /// Share.
    pub weight: Weight,
    /// Begin.
    pub started_at: Timestamp,
    /// End; `None` while it runs.
    pub ended_at: Option<Timestamp>,
    /// What the candidate did in the step so far.
    #[serde(default)]
    pub candidate: ArmSums,
    /// What stable did meanwhile.
    #[serde(default)]
    pub stable: ArmSums,
    /// What let it end.
    pub passed_by: Option<PassedBy>,
}

/// What let a step end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PassedBy {
    /// The tests.
    Evidence,
    /// Time alone.
    Time,
    /// A person.
    Verb,
    /// It was left downwards: brake, rollback, another wish.
    Lowered,
}

/// A transition as persisted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Counts up over the function's life: names the Event, so that a second report of it is no second Event.
    pub number: u64,
    /// Which row of the table.
    pub kind: TransitionKind,
    /// The sentence.
    pub message: String,
    /// When it was decided.
    pub at: Timestamp,
}
