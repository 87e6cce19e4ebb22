//! The lines of `replay`.

use delivery::rollout::{MetricEvidence, RequestCounts};
use jiff::SignedDuration;

use super::play::{Decided, Outcome, Play};
use super::repeat::Repeated;
use super::timeline::Timeline;
use crate::table::align;
use crate::text::{count, moment, odds, percent, printable, rate, weight, wrap};
use crate::view::{Style, evidence_bar};

/// Number of gaps and of rollbacks that are listed.
const LISTED: usize = 10;

/// Lines of one play; the last one says what would have happened.
pub(crate) fn play(timeline: &Timeline, play: &Play, seed: u64, style: Style) -> Vec<String> {
    let mut lines = wrap(
        &printable(&format!(
            "{} against {} from {} on, in intervals of {}{}. Each recorded request is played with the probability that gives the \
             two versions their weights (seed {seed}).",
            play.candidate,
            play.stable,
            moment(play.started_at),
            seconds(SignedDuration::try_from(timeline.interval).unwrap_or_default()),
            processes(timeline),
        )),
        style.width,
    );
    lines.push(String::new());
    lines.extend(decisions(play, style));
    let notes = notes(timeline, play);
    if !notes.is_empty() {
        lines.push(String::new());
        for note in notes {
            lines.extend(wrap(&note, style.width));
        }
    }
    if let Some(ln) = play.ln_evidence {
        let (e, limit) = (e(ln), e(play.ln_limit));
        lines.push(String::new());
        lines.push(format!(
            "{}  {} against the candidate; rollback at {}",
            evidence_bar(e, limit, style),
            odds(e),
            odds(limit)
        ));
        lines.extend(
            metrics(&play.metrics)
                .into_iter()
                .map(|it| format!("  {it}")),
        );
    }
    lines.push(String::new());
    lines.extend(wrap(
        &printable(&format!(
            "In one sentence: {}.",
            play.message.trim_end_matches('.')
        )),
        style.width,
    ));
    lines.push(summary(play));
    lines
}

/// `3 processes`, or that they were added.
fn processes(timeline: &Timeline) -> String {
    if timeline.is_merged {
        return ", all processes together, because some served only one of the versions".to_owned();
    }
    let mut names: Vec<&String> = timeline
        .slots
        .iter()
        .flat_map(|slot| slot.processes.keys())
        .collect();
    names.sort_unstable();
    names.dedup();
    match names.len() {
        0 | 1 => String::new(),
        several => format!(", from {several} processes"),
    }
}

fn decisions(play: &Play, style: Style) -> Vec<String> {
    let row = |one: &Decided| {
        let reason = if one.is_warning {
            style.paint.bad(one.reason)
        } else {
            style.paint.good(one.reason)
        };
        vec![
            moment(one.at),
            seconds(one.at.duration_since(play.started_at)),
            weight(one.weight.parts()),
            failed(one.candidate),
            failed(one.stable),
            one.ln_evidence
                .map_or_else(|| "–".to_owned(), |ln| odds(e(ln))),
            reason,
        ]
    };
    let rows: Vec<_> = play.decisions.iter().map(row).collect();
    let head = [
        "TIME",
        "AFTER",
        "WEIGHT",
        "CANDIDATE FAILED",
        "STABLE FAILED",
        "EVIDENCE",
        "DECISION",
    ];
    let mut table = align(&head, &rows).into_iter();
    let mut lines: Vec<String> = table.next().into_iter().collect();
    for (line, one) in table.zip(&play.decisions) {
        lines.push(line);
        let message = wrap(&printable(&one.message), style.width.saturating_sub(2));
        lines.extend(message.into_iter().map(|line| format!("  {line}")));
    }
    lines
}

/// `3 of 812 (0.37 %)`
fn failed(counts: RequestCounts) -> String {
    if counts.requests == 0 {
        return "–".to_owned();
    }
    format!(
        "{} of {} ({})",
        counts.errors,
        counts.requests,
        rate(counts.errors, counts.requests)
    )
}

/// What a reader must know to trust the result.
fn notes(timeline: &Timeline, play: &Play) -> Vec<String> {
    let mut notes = Vec::new();
    if !timeline.versions.earlier.is_zero() {
        let earlier = SignedDuration::try_from(timeline.versions.earlier).unwrap_or_default();
        notes.push(format!(
            "The requests of {} are {} older than those of {}: a difference between these times counts as a difference between the \
             versions.",
            play.stable,
            seconds(earlier),
            play.candidate
        ));
    }
    // a few requests less are chance
    if play.requests < play.served / 100 * 95 {
        notes.push(format!(
            "Only {} of {} could be played, because the recording has too few of one version for these weights. With all of them, \
             decisions come sooner.",
            play.requests,
            count(play.served, "request")
        ));
    }
    if !play.gaps.is_empty() {
        let listed = play.gaps.iter().take(LISTED);
        let listed: Vec<String> = listed
            .map(|gap| format!("{} to {}", moment(gap.from), moment(gap.to)))
            .collect();
        let more = match play.gaps.len().saturating_sub(LISTED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        notes.push(format!(
            "The recording has {}, in which nothing was measured: {}{more}.",
            count(play.gaps.len() as u64, "gap"),
            listed.join(", ")
        ));
    }
    notes
}

/// Lines with the evidence of each metric, its rates and its tolerance.
fn metrics(metrics: &[MetricEvidence]) -> Vec<String> {
    let row = |metric: &MetricEvidence| {
        let share = |of: fn((f64, f64)) -> f64| {
            metric
                .observed
                .map_or_else(|| "–".to_owned(), |it| percent(of(it)))
        };
        let points = format!("{:.2}", metric.tolerance * 100.0);
        vec![
            metric.name.clone(),
            odds(e(metric.ln_e)),
            share(|it| it.0),
            share(|it| it.1),
            format!("+{} pp", points.trim_end_matches('0').trim_end_matches('.')),
        ]
    };
    let rows: Vec<_> = metrics.iter().map(row).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    align(
        &["METRIC", "EVIDENCE", "CANDIDATE", "STABLE", "TOLERANCE"],
        &rows,
    )
}

/// What happened, after how many requests and seconds.
pub(crate) fn summary(play: &Play) -> String {
    let Play {
        candidate,
        requests,
        candidate_requests,
        ..
    } = play;
    let after = format!(
        "{} ({candidate_requests} to the candidate) and {}",
        count(*requests, "request"),
        seconds(play.took())
    );
    printable(&match &play.outcome {
        Outcome::Promoted => format!("{candidate} would have become stable after {after}."),
        Outcome::RolledBack { reason } => {
            format!("{candidate} would have been rolled back ({reason}) after {after}.")
        }
        Outcome::DataEnded { weight: at, .. } => {
            let evidence = play.ln_evidence.map_or_else(
                || "without any evidence".to_owned(),
                |ln| format!("evidence {}, limit {}", odds(e(ln)), odds(e(play.ln_limit))),
            );
            format!(
                "The data ends after {after}; the rollout would be at {}, {evidence}.",
                weight(at.parts())
            )
        }
    })
}

/// Lines of many plays of a version against itself.
pub(crate) fn repeated(found: &Repeated, seed: u64, style: Style) -> Vec<String> {
    let every = seconds(SignedDuration::try_from(found.every).unwrap_or_default());
    let mut lines = wrap(
        &printable(&format!(
            "{} against itself: {}, one every {every} from {} to {}. Each recorded request is the candidate's with the probability \
             that is its weight (seeds from {seed} on).",
            found.revision,
            count(found.plays() as u64, "rollout"),
            moment(found.first_start),
            moment(found.last_start)
        )),
        style.width,
    );
    lines.push(String::new());
    let rows = [
        ("promoted", found.promoted),
        ("rolled back", found.rollbacks.len()),
        ("not ended when the data did", found.unfinished),
        ("held at some time", found.held),
    ];
    let rows = rows.map(|(what, number)| vec![what.to_owned(), number.to_string()]);
    lines.extend(align(&["WHAT HAPPENED", "ROLLOUTS"], &rows));
    if !found.rollbacks.is_empty() {
        lines.push(String::new());
        for one in found.rollbacks.iter().take(LISTED) {
            let text = format!(
                "started {}: {}",
                moment(one.started_at),
                printable(&one.message)
            );
            lines.extend(wrap(&text, style.width));
        }
        let more = found.rollbacks.len().saturating_sub(LISTED);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
    }
    lines.push(String::new());
    if found.overlap {
        lines.extend(wrap(
            "The rollouts overlap, so they share requests, and one bad hour appears in several of them.",
            style.width,
        ));
    }
    let verdict = format!(
        "{} of {} of a version that is not different would have been rolled back ({}); the policy accepts {} (analysis.falseRollbacks).",
        found.rollbacks.len(),
        count(found.plays() as u64, "rollout"),
        percent(found.share()),
        percent(found.false_rollbacks)
    );
    lines.push(if found.exceeds() {
        style.paint.bad(&verdict)
    } else {
        style.paint.good(&verdict)
    });
    lines
}

/// Evidence from its logarithm; finite, however large it is.
fn e(ln: f64) -> f64 {
    ln.min(700.0).exp()
}

fn seconds(time: SignedDuration) -> String {
    format!("{} s", time.as_secs())
}
