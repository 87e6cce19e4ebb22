//! The sentences of `kubectl selvage explain`.

use crds::function::{HistoryEntry, Outcome};
use crds::rollout::{Evidence, RolloutStatus, State, WaitingFor};

use super::{Snapshot, Style, evidence};
use crate::action::Action;
use crate::gates;
use crate::text::{age, odds, printable, wrap};

/// Explains what the running rollout waits for, or how the last one ended.
pub(crate) fn explain(snapshot: &Snapshot, style: Style) -> Vec<String> {
    let Some(status) = snapshot.status() else {
        return vec!["The operator has not reported on this function yet.".to_owned()];
    };
    let mut out = Paragraphs::new(style.width);
    match snapshot.rollout() {
        Some(rollout) if rollout.is_running() => present(snapshot, rollout, style, &mut out),
        rollout => match status.history.first() {
            Some(entry) => past(snapshot, rollout, entry, style, &mut out),
            None => out.sentence("No rollout has ended yet, and none is running."),
        },
    }
    let (sentences, action) = gates::split_command(status.message.as_deref().unwrap_or_default());
    // the message may be about something else than the rollout, such as an image that does not exist
    out.sentence(&format!("Now: {sentences}"));
    if let Some(action) = action {
        let command = style.paint.bold(&snapshot.command(action.as_str()));
        out.lines([format!("  to {}: {command}", action.as_str())]);
    }
    out.lines
}

/// Lines in the making, with an empty line before each paragraph.
struct Paragraphs {
    width: usize,
    lines: Vec<String>,
}

impl Paragraphs {
    fn new(width: usize) -> Self {
        let lines = Vec::new();
        Self { width, lines }
    }

    fn sentence(&mut self, text: &str) {
        if !self.lines.is_empty() {
            self.lines.push(String::new());
        }
        self.lines.extend(wrap(&printable(text), self.width));
    }

    fn lines(&mut self, lines: impl IntoIterator<Item = String>) {
        self.lines.extend(lines);
    }
}

fn present(snapshot: &Snapshot, rollout: &RolloutStatus, style: Style, out: &mut Paragraphs) {
    let candidate = snapshot.status().and_then(|s| s.candidate.as_ref());
    let name = candidate.map_or("the candidate", |it| it.revision.as_str());
    let state = rollout.state.map_or("Idle", |state| state.as_str());
    let weight = rollout.weight.as_deref().unwrap_or("0%");
    let since = rollout.step_started_at.as_ref();
    let since = since.map(|at| format!(" for {}", age(at.0, style.now)));
    out.sentence(&format!(
        "{name} is {state} at {weight}{}.",
        since.unwrap_or_default()
    ));
    if let Some(paused) = &rollout.paused {
        let by = paused.by.as_deref().unwrap_or("an unknown field manager");
        let resume = snapshot.command(Action::Resume.as_str());
        out.sentence(&format!(
            "{by} paused it {} ago. Its weight does not rise until: {resume}",
            age(paused.since.0, style.now)
        ));
    }
    if let Some(hold) = &rollout.hold {
        let message = hold.message.as_deref().unwrap_or("no details");
        out.sentence(&format!(
            "The operator has held the weight for {} ({}): {message}.",
            age(hold.since.0, style.now),
            hold.reason
        ));
    }
    if !rollout.waiting_for.is_empty() {
        let next = match rollout.state {
            Some(State::Baking) => "it becomes stable",
            _ => "the weight rises",
        };
        out.sentence(&format!("Before {next}, it waits for:"));
        let gates = gates::awaited(&snapshot.function).join(", ");
        for waiting in &rollout.waiting_for {
            let meaning = waiting.meaning();
            let gates = match waiting {
                WaitingFor::Approval if !gates.is_empty() => format!(" ({gates})"),
                _ => String::new(),
            };
            out.lines([format!("  {}: {meaning}{gates}", waiting.as_str())]);
        }
    }
    if let Some(evidence) = &rollout.evidence {
        measured(snapshot, evidence, style, out);
    }
}

fn past(
    snapshot: &Snapshot,
    rollout: Option<&RolloutStatus>,
    entry: &HistoryEntry,
    style: Style,
    out: &mut Paragraphs,
) {
    let ended = entry.finished_at.as_ref();
    let ended = ended.map(|at| format!(" {} ago", age(at.0, style.now)));
    let how = match entry.outcome {
        Outcome::Promoted => "became stable",
        Outcome::RolledBack => "was rolled back",
        Outcome::Aborted => "was aborted by a person",
        Outcome::Superseded => "was superseded by another spec",
        Outcome::Withdrawn => "was withdrawn, because the spec describes stable again",
        Outcome::Unknown => "ended in a way that this version of the plugin does not know",
    };
    let reason = entry.reason.as_ref().map(|reason| format!(" ({reason})"));
    out.sentence(&format!(
        "{}, attempt {}, {how}{}{}.",
        entry.revision,
        entry.attempt,
        ended.unwrap_or_default(),
        reason.unwrap_or_default()
    ));
    if let Some(message) = &entry.message {
        out.sentence(message);
    }
    // the evidence is that of the last rollout until another one starts
    let Some(evidence) = rollout.and_then(|rollout| rollout.evidence.as_ref()) else {
        return;
    };
    measured(snapshot, evidence, style, out);
}

fn measured(snapshot: &Snapshot, evidence: &Evidence, style: Style, out: &mut Paragraphs) {
    let limit = snapshot.limit();
    if let Some(decisive) = &evidence.decisive {
        let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let e = decisive.e.as_ref().and_then(|e| e.parse().ok());
        out.sentence(&format!(
            "Evaluation {} decided by {}: in the last two evaluations, {} requests to the candidate {}, and {} to stable. The \
             evidence reached {}, and the limit is {}.",
            decisive.evaluation.unwrap_or(0),
            decisive.metric,
            part(&decisive.candidate),
            evidence::event(&decisive.metric),
            part(&decisive.stable),
            e.map_or_else(|| "an unknown value".to_owned(), odds),
            odds(limit)
        ));
    } else if let Some(e) = evidence::combined(evidence) {
        out.sentence("Evidence that the candidate is worse than tolerated:");
        out.lines([format!("  {}", evidence::summary(e, limit, style))]);
    }
    let metrics = evidence::metrics(evidence);
    if !metrics.is_empty() {
        out.sentence("By metric:");
        out.lines(metrics.into_iter().map(|line| format!("  {line}")));
    }
    let steps = evidence::steps(&evidence.steps, style);
    if !steps.is_empty() {
        out.sentence("Failed requests by step:");
        out.lines(steps.into_iter().map(|line| format!("  {line}")));
    }
}
