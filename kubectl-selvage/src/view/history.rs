//! The outcomes of `kubectl selvage history`.

use crds::function::{HistoryEntry, Outcome};

use super::{Snapshot, Style};
use crate::table::align;
use crate::text::{age, moment, printable, weight, wrap};

/// Shows the outcomes of past rollouts, newest first, each with its sentence.
pub(crate) fn history(snapshot: &Snapshot, style: Style) -> Vec<String> {
    let entries = snapshot.status().map(|status| status.history.as_slice());
    let entries = entries.unwrap_or_default();
    if entries.is_empty() {
        return vec![format!(
            "No rollout of {}/{} has ended yet.",
            snapshot.namespace(),
            snapshot.name()
        )];
    }
    let rows: Vec<_> = entries.iter().map(|entry| row(entry, style)).collect();
    let head = [
        "ENDED", "REVISION", "ATTEMPT", "OUTCOME", "REASON", "WEIGHT", "TOOK", "BY",
    ];
    let mut table = align(&head, &rows).into_iter();
    let mut lines: Vec<String> = table.next().into_iter().collect();
    for (line, entry) in table.zip(entries) {
        lines.push(line);
        let message = printable(entry.message.as_deref().unwrap_or_default());
        let wrapped = wrap(&message, style.width.saturating_sub(2).max(20));
        lines.extend(wrapped.iter().map(|line| format!("  {line}")));
    }
    lines
}

fn row(entry: &HistoryEntry, style: Style) -> Vec<String> {
    let word = entry.outcome.as_str();
    let outcome = match entry.outcome {
        Outcome::Promoted => style.paint.good(word),
        Outcome::RolledBack | Outcome::Aborted => style.paint.bad(word),
        _ => style.paint.attention(word),
    };
    let took = entry.started_at.as_ref().zip(entry.finished_at.as_ref());
    vec![
        entry
            .finished_at
            .as_ref()
            .map_or_else(String::new, |at| moment(at.0)),
        entry.revision.clone(),
        entry.attempt.to_string(),
        outcome,
        entry.reason.clone().unwrap_or_default(),
        entry.final_weight.map_or_else(String::new, weight),
        took.map_or_else(String::new, |(from, to)| age(from.0, to.0)),
        printable(entry.by.as_deref().unwrap_or_default()),
    ]
}
