//! The table of `kubectl selvage get`.

use crds::EdgeFunction;
use crds::conditions::types;
use crds::rollout::State;

use super::{Style, is_running, phase};
use crate::gates;
use crate::table::align;
use crate::text::{age, percent};

/// Lists functions, with a column for the namespace if they are of all namespaces.
pub(crate) fn list(functions: &[EdgeFunction], all_namespaces: bool, style: Style) -> Vec<String> {
    let row = |function: &EdgeFunction| {
        let meta = &function.metadata;
        let status = function.status.as_ref();
        let rollout = status.and_then(|status| status.rollout.as_ref());
        let stable = status.and_then(|status| status.stable.as_ref());
        let candidate = status.and_then(|status| status.candidate.as_ref());
        let step = rollout.and_then(|rollout| {
            let steps = rollout.plan.as_ref().map_or(0, |plan| plan.steps.len());
            match rollout.state? {
                State::Stepping => Some(format!("{}/{steps}", rollout.step? + 1)),
                State::Baking => Some("bake".to_owned()),
                _ => None,
            }
        });
        let mut cells = vec![
            meta.name.clone().unwrap_or_default(),
            phase(function, style.paint),
            stable.map_or_else(String::new, |it| it.revision.clone()),
            candidate.map_or_else(String::new, |it| it.revision.clone()),
            rollout
                .and_then(|rollout| rollout.weight.clone())
                .unwrap_or_default(),
            step.unwrap_or_default(),
            verdict(function),
            meta.creation_timestamp
                .as_ref()
                .map_or_else(String::new, |at| age(at.0, style.now)),
        ];
        if all_namespaces {
            cells.insert(0, meta.namespace.clone().unwrap_or_default());
        }
        cells
    };
    let mut head = vec![
        "NAME",
        "PHASE",
        "STABLE",
        "CANDIDATE",
        "WEIGHT",
        "STEP",
        "VERDICT",
        "AGE",
    ];
    if all_namespaces {
        head.insert(0, "NAMESPACE");
    }
    let rows: Vec<_> = functions.iter().map(row).collect();
    align(&head, &rows)
}

/// What is known about the newest revision, in a few words.
fn verdict(function: &EdgeFunction) -> String {
    let Some(status) = &function.status else {
        return String::new();
    };
    let Some(rollout) = &status.rollout else {
        return String::new();
    };
    if let Some(rejected) = &rollout.rejected {
        return rejected.reason.clone();
    }
    let of_spec = [types::ACCEPTED, types::RESOLVED, types::COMPATIBLE];
    let refused = status
        .conditions
        .iter()
        .find(|it| of_spec.contains(&it.type_.as_str()) && it.status == "False");
    if let Some(condition) = refused {
        return format!("{}=False: {}", condition.type_, condition.reason);
    }
    if !is_running(rollout) {
        let last = status.history.first();
        return last.map_or_else(String::new, |entry| entry.outcome.as_str().to_owned());
    }
    if rollout.paused.is_some() {
        return "paused".to_owned();
    }
    if let Some(hold) = &rollout.hold {
        return format!("held: {}", hold.reason);
    }
    if gates::is_awaited(function) {
        return "awaits approval".to_owned();
    }
    let evidence = rollout.evidence.as_ref();
    let progress = evidence
        .and_then(|evidence| evidence.pass.as_ref()?.progress.as_ref())
        .and_then(|share| share.parse::<f64>().ok());
    match progress {
        Some(share) if share >= 1.0 => "good so far".to_owned(),
        Some(share) => format!("{} of the evidence", percent(share)),
        None => "nothing measured".to_owned(),
    }
}
