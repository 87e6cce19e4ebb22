//! The view of a running rollout.

use super::{
    follow::View,
    outcome::{percent, time},
    stage::Stage,
};
use crate::{load::Arm, progress::bar};
use std::time::Duration;

/// What the table's recent column covers.
const RECENT: Duration = Duration::from_secs(10);

/// The names of the two versions on stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cast {
    pub(super) stable: &'static str,
    pub(super) candidate: &'static str,
}

/// The block that is drawn again and again.
pub(super) fn block(stage: &Stage<'_>, cast: Cast, view: &View) -> Vec<String> {
    let samples = stage.load.samples();
    let from = samples.now().saturating_sub(RECENT);
    let weight = if view.candidate.is_empty() {
        0
    } else {
        view.weight
    };
    let mut lines = vec![format!(
        "  {:<12}{:>8}{:>12}{:>10}{:>10}",
        "", "weight", "requests", "errors", "p95"
    )];
    for (name, role, weight) in [
        (cast.stable, "stable", 10_000 - weight.min(10_000)),
        (cast.candidate, "on trial", weight),
    ] {
        let total = samples.arm(name, ..).requests;
        let recent = samples.arm(name, from..);
        lines.push(row(&format!("{name} {role}"), weight, total, &recent));
    }
    lines.push(format!("  {}", evidence(stage)));
    lines
}

fn row(name: &str, weight: u64, total: u64, recent: &Arm) -> String {
    let weight = format!("{} %", weight as f64 / 100.0);
    let errors = percent(recent.failed, recent.requests);
    let p95 = if recent.requests == 0 {
        "–".into()
    } else {
        time(recent.p95)
    };
    format!("  {name:<12}{weight:>8}{total:>12}{errors:>10}{p95:>10}")
}

fn evidence(stage: &Stage<'_>) -> String {
    let gauges = stage.gauge.read();
    let against = gauges.against.map_or_else(
        || "none yet".into(),
        |(metric, e)| format!("{e:.1} to 1 ({metric})"),
    );
    let pass = gauges.pass.map_or_else(String::new, |part| {
        format!(
            " · for the next step {} {:.0} %",
            bar(part, 10),
            part * 100.0
        )
    });
    format!("evidence against it {against}, back at 100 to 1{pass}")
}

/// One line for output that is not a terminal.
pub(super) fn line(stage: &Stage<'_>, cast: Cast) -> String {
    let samples = stage.load.samples();
    let from = samples.now().saturating_sub(RECENT);
    let arm = |name: &str| {
        let arm = samples.arm(name, from..);
        format!(
            "{name} {} requests, errors {}, p95 {}",
            arm.requests,
            percent(arm.failed, arm.requests),
            time(arm.p95)
        )
    };
    format!(
        "{} | {} | {}",
        arm(cast.stable),
        arm(cast.candidate),
        evidence(stage)
    )
}
