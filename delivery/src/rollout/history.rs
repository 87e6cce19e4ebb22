//! Results of past rollouts: at most ten entries, newest first. They remain when the revisions they name are deleted.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Decisive, Weight};
use crate::function::Revision;

/// Maximum number of entries.
pub const HISTORY_LIMIT: usize = 10;

/// Result of one rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Revision that was the candidate.
    pub revision: Revision,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// How the rollout ended.
    pub outcome: Outcome,
    /// Reason in CamelCase.
    pub reason: String,
    /// Begin of the rollout.
    pub started_at: Timestamp,
    /// End of the rollout.
    pub finished_at: Timestamp,
    /// Weight of the candidate at the end.
    pub final_weight: Weight,
    /// Field manager that requested the end, if an action ended it.
    pub by: Option<String>,
    /// Sentence, with the decisive figures if the tests decided.
    pub message: String,
    /// Counts that decided, if the tests decided.
    pub decisive: Option<Decisive>,
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The candidate became stable.
    Promoted,
    /// The tests, the nodes or a deadline rejected the candidate.
    RolledBack,
    /// A person rejected the candidate.
    Aborted,
    /// The spec changed to another revision.
    Superseded,
    /// The spec changed back to the stable revision.
    Withdrawn,
}

impl Outcome {
    /// Name of the outcome in the status.
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

/// Inserts an entry at the front and drops the entries beyond [`HISTORY_LIMIT`].
pub(crate) fn record(history: &mut Vec<HistoryEntry>, entry: HistoryEntry) {
    history.insert(0, entry);
    history.truncate(HISTORY_LIMIT);
}
