//! What became of rollouts: at most ten entries, newest first; they outlive the revisions they name.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Decisive, Weight};
use crate::function::Revision;

/// Most entries kept.
pub const HISTORY_LIMIT: usize = 10;

/// The end of one rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Which revision.
    pub revision: Revision,
    /// Which attempt.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// CamelCase.
    pub reason: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Share at the end.
    pub final_weight: Weight,
    /// Who, if a person ended it.
    pub by: Option<String>,
    /// Sentence with the decisive figures, if the tests decided.
    pub message: String,
    /// The counts that decided.
    pub decisive: Option<Decisive>,
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The candidate is stable.
    Promoted,
    /// The tests, a gate, nodes or a deadline rejected it.
    RolledBack,
    /// A person rejected it.
    Aborted,
    /// Another wish came.
    Superseded,
    /// Stable was wished again.
    Withdrawn,
}

impl Outcome {
    /// As in status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "Promoted",
            Self::RolledBack => "RolledBack",
            Self::Aborted => "Aborted",
            Self::Superseded => "Superseded",
            Self::Withdrawn => "Withdrawn",
        }
    }
}

/// Puts an entry in front and forgets the oldest.
pub(crate) fn record(history: &mut Vec<HistoryEntry>, entry: HistoryEntry) {
    history.insert(0, entry);
    history.truncate(HISTORY_LIMIT);
}
