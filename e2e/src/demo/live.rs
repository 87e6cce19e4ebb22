//! Shows a running rollout.

use super::{
    context::DemoContext,
    follow::View,
    outcome::{percent, time},
};
use crate::{load::Arm, progress::bar};
use std::time::Duration;

/// Period of the columns with recent values.
const RECENT: Duration = Duration::from_secs(10);

/// Names of the two versions in a rollout.
#[derive(Debug, Clone, Copy)]
pub(super) struct Versions {
    pub(super) stable: &'static str,
    pub(super) candidate: &'static str,
}

/// Returns the block of lines that is redrawn during a rollout.
pub(super) fn block(demo: &DemoContext<'_>, versions: Versions, view: &View) -> Vec<String> {
    let samples = demo.load.samples();
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
        (versions.stable, "stable", 10_000 - weight.min(10_000)),
        (versions.candidate, "candidate", weight),
    ] {
        let total = samples.arm(name, ..).requests;
        let recent = samples.arm(name, from..);
        lines.push(row(&format!("{name} {role}"), weight, total, &recent));
    }
    lines.push(format!("  {}", evidence(demo)));
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

fn evidence(demo: &DemoContext<'_>) -> String {
    let metrics = demo.evidence.read();
    let against = metrics.against.map_or_else(
        || "no evidence against it yet".into(),
        |(metric, e)| format!("evidence against it {e:.1} to 1 ({metric})"),
    );
    let pass = metrics.pass.map_or_else(String::new, |part| {
        format!(
            " · for the next step {} {:.0} %",
            bar(part, 10),
            part * 100.0
        )
    });
    format!("{against}, rolled back at 100 to 1{pass}")
}

/// Returns one line for output that is not a terminal.
pub(super) fn line(demo: &DemoContext<'_>, versions: Versions) -> String {
    let samples = demo.load.samples();
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
        arm(versions.stable),
        arm(versions.candidate),
        evidence(demo)
    )
}
