//! Counts and evidence of a rollout as lines.

use crds::rollout::{Evidence, MetricEvidence, RequestCounts, StepEvidence};

use super::Style;
use crate::table::align;
use crate::text::{bar, count, odds, percent, rate, weight};

/// Width of bars in characters.
const BAR: usize = 20;

/// Combined evidence against the candidate: the weighted mean over the metrics. `None` without metrics.
pub(super) fn combined(evidence: &Evidence) -> Option<f64> {
    let number = |text: &Option<String>| text.as_ref()?.parse::<f64>().ok();
    let terms: Vec<f64> = evidence
        .metrics
        .iter()
        .filter_map(|metric| Some(number(&metric.e)? * number(&metric.share)?))
        .collect();
    (!terms.is_empty()).then(|| terms.iter().sum())
}

/// Bar of evidence on the way to its limit. Evidence multiplies, so the scale is logarithmic: half of the bar is the root
/// of the limit.
pub(crate) fn evidence_bar(e: f64, limit: f64, style: Style) -> String {
    let share = (e.max(1.0).ln() / limit.max(2.0).ln()).max(0.0);
    let text = bar(share, BAR);
    if share >= 1.0 {
        style.paint.bad(&text)
    } else if share >= 0.5 {
        style.paint.attention(&text)
    } else {
        style.paint.good(&text)
    }
}

/// One line with the combined evidence.
pub(super) fn summary(e: f64, limit: f64, style: Style) -> String {
    format!(
        "{}  {} against the candidate; rollback at {}",
        evidence_bar(e, limit, style),
        odds(e),
        odds(limit)
    )
}

/// Lines with the evidence of each metric, its rates and its tolerance.
pub(super) fn metrics(evidence: &Evidence) -> Vec<String> {
    let row = |metric: &MetricEvidence| {
        let e = metric.e.as_ref().and_then(|e| e.parse().ok());
        let observed = metric.observed.as_ref();
        let share = |text: Option<&String>| {
            let share = text.and_then(|text| text.parse().ok());
            share.map_or_else(|| "–".to_owned(), percent)
        };
        vec![
            metric.name.clone(),
            e.map_or_else(|| "–".to_owned(), odds),
            share(observed.and_then(|o| o.candidate.as_ref())),
            share(observed.and_then(|o| o.stable.as_ref())),
            metric.tolerance.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = evidence.metrics.iter().map(row).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    align(
        &["METRIC", "EVIDENCE", "CANDIDATE", "STABLE", "TOLERANCE"],
        &rows,
    )
}

/// Predicate for the events of a metric, such as `failed` in `11 of 11 requests failed`.
pub(super) fn event(metric: &str) -> String {
    match metric.split_once('/') {
        None if metric == "errors" => "failed".to_owned(),
        None if metric == "clientErrors" => "were answered with 4xx".to_owned(),
        Some(("latency", bound)) => format!("took longer than {bound}"),
        _ => format!("missed {metric}"),
    }
}

/// Requests and failures of one revision: `812 requests, 1 failed (0.12 %)`.
pub(super) fn counted(counts: &RequestCounts) -> String {
    format!(
        "{}, {} failed ({})",
        count(counts.requests, "request"),
        counts.errors,
        rate(counts.errors, counts.requests)
    )
}

/// Lines with the requests and failures of both revisions in each step. Bars show the share of failed requests, relative
/// to the largest one.
pub(super) fn steps(steps: &[StepEvidence], style: Style) -> Vec<String> {
    let share = |counts: &Option<RequestCounts>| {
        let counts = counts.clone().unwrap_or_default();
        #[allow(clippy::cast_precision_loss, reason = "drawn as a bar")]
        let share = counts.errors as f64 / counts.requests.max(1) as f64;
        (share, counts)
    };
    let largest = steps
        .iter()
        .flat_map(|step| [share(&step.candidate).0, share(&step.stable).0])
        .fold(0.0_f64, f64::max);
    let shown = |counts: &Option<RequestCounts>| {
        let (share, counts) = share(counts);
        let relative = if largest > 0.0 { share / largest } else { 0.0 };
        format!(
            "{} {} of {} ({})",
            bar(relative, 10),
            counts.errors,
            counts.requests,
            rate(counts.errors, counts.requests)
        )
    };
    let row = |step: &StepEvidence| {
        let ended = match (&step.finished_at, step.passed_by) {
            (None, _) => style.paint.attention("runs"),
            (Some(_), Some(by)) => style.paint.good(&by.as_str().to_lowercase()),
            (Some(_), None) => style.paint.bad("lowered"),
        };
        vec![
            weight(step.weight),
            shown(&step.candidate),
            shown(&step.stable),
            ended,
        ]
    };
    let rows: Vec<_> = steps.iter().map(row).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    align(
        &["WEIGHT", "CANDIDATE FAILED", "STABLE FAILED", "ENDED BY"],
        &rows,
    )
}
