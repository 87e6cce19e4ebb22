//! What happened in the newest rollout, from the times in the status. The Events of the function have more
//! (`kubectl describe`), but the operator has no permission to read them.

use crds::function::EdgeFunctionStatus;
use crds::rollout::{ActionResult, RolloutStatus, StepEvidence};
use jiff::Timestamp;
use serde::Serialize;

use super::row::percent;

/// Maximum number of entries.
const MAX_ENTRIES: usize = 40;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    /// Milliseconds since 1970.
    pub(super) at: i64,
    pub(super) text: String,
}

/// Returns what happened, newest first.
pub(super) fn timeline(status: &EdgeFunctionStatus, rollout: &RolloutStatus) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut add = |at: Timestamp, text: String| {
        let at = at.as_millisecond();
        entries.push(Entry { at, text });
    };
    if let Some(at) = &rollout.started_at {
        let name = status
            .candidate
            .as_ref()
            .map_or("a candidate", |it| it.revision.as_str());
        add(at.0, format!("the rollout of {name} started"));
    }
    let steps = rollout.evidence.as_ref().map(|evidence| &evidence.steps);
    for step in steps.into_iter().flatten() {
        if let Some(at) = &step.started_at {
            add(at.0, format!("the weight became {}", percent(step.weight)));
        }
        if let Some(at) = &step.finished_at {
            add(at.0, ended(step));
        }
    }
    if let Some(paused) = &rollout.paused {
        let by = paused.by.as_deref().unwrap_or("an unknown field manager");
        add(paused.since.0, format!("paused by {by}"));
    }
    if let Some(hold) = &rollout.hold {
        let message = hold.message.as_deref().unwrap_or("no details");
        add(hold.since.0, format!("held ({}): {message}", hold.reason));
    }
    if let Some(since) = &rollout.stopped_since {
        add(since.0, "its clocks stopped".to_owned());
    }
    for action in &rollout.actions {
        let by = action.by.as_deref().unwrap_or("an unknown field manager");
        let result = match action.result {
            ActionResult::Done => "done",
            _ => "ignored",
        };
        let message = action.message.as_ref().map(|text| format!(": {text}"));
        let message = message.unwrap_or_default();
        let text = format!("{} by {by}: {result}{message}", action.action);
        add(action.at.0, text);
    }
    if let Some(rejected) = &rollout.rejected {
        let text = format!("{} was rejected ({})", rejected.revision, rejected.reason);
        add(rejected.at.0, text);
    }
    // of entries with equal times, the later one is the consequence
    entries.reverse();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.at));
    entries.truncate(MAX_ENTRIES);
    entries
}

fn ended(step: &StepEvidence) -> String {
    let weight = percent(step.weight);
    let counts = step.candidate.clone().unwrap_or_default();
    let counts = format!("{} of {} requests failed", counts.errors, counts.requests);
    match step.passed_by {
        Some(by) => format!(
            "the step at {weight} ended by {}: {counts}",
            by.as_str().to_lowercase()
        ),
        None => format!("the weight was lowered from {weight}: {counts}"),
    }
}
