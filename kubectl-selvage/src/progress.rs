//! What changed between two versions of a function, and whether a wait for it is over. Pure.

use crds::EdgeFunction;
use crds::conditions::types;
use crds::function::{EdgeFunctionStatus, HistoryEntry};
use crds::rollout::{RolloutStatus, State};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::gates;
use crate::text::printable;

/// Whether the newest spec is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The operator or the nodes still work towards the spec.
    Pending,
    /// The spec is live; a sentence about it.
    Live(String),
    /// The spec is not live and will not be without a change or an action; a sentence with the reason.
    Stalled(String),
}

/// Returns whether the newest spec is live, by the conditions that describe its generation.
pub(crate) fn outcome(function: &EdgeFunction) -> Outcome {
    let Some(status) = &function.status else {
        return Outcome::Pending;
    };
    let generation = function.metadata.generation;
    if status.observed_generation != generation {
        return Outcome::Pending;
    }
    let is_true = |kind: &str| {
        condition(status, kind).filter(|condition| {
            condition.status == "True"
                && (condition.observed_generation.is_none()
                    || condition.observed_generation == generation)
        })
    };
    if let Some(ready) = is_true(types::READY) {
        let stable = status.stable.as_ref();
        let stable = stable.map_or("the desired revision", |it| it.revision.as_str());
        let suspended = match ready.reason.as_str() {
            "Suspended" => ", and the function is suspended",
            _ => "",
        };
        return Outcome::Live(format!("Ready: {stable} is stable{suspended}"));
    }
    match is_true(types::STALLED) {
        Some(stalled) => {
            let (sentence, _) = gates::split_command(&stalled.message);
            Outcome::Stalled(format!(
                "Stalled ({}): {}",
                stalled.reason,
                printable(sentence)
            ))
        }
        None => Outcome::Pending,
    }
}

fn condition<'a>(status: &'a EdgeFunctionStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|it| it.type_ == kind)
}

/// Describes the state of a function in one line, as the first line of a list of changes.
pub(crate) fn first_line(function: &EdgeFunction) -> String {
    let Some(status) = &function.status else {
        return "Pending: the operator has not reported on this function yet".to_owned();
    };
    let phase = status.phase.map_or("Pending", |phase| phase.as_str());
    let message = status.message.as_deref().unwrap_or_default();
    let (message, _) = gates::split_command(message);
    format!("{phase}: {}", printable(message))
}

/// Describes what changed from one version of a function to another, one line for each transition. Counts and times are
/// no transitions.
pub(crate) fn changes(before: &EdgeFunction, after: &EdgeFunction) -> Vec<String> {
    let mut lines = Vec::new();
    if before.metadata.generation != after.metadata.generation {
        let generation = after.metadata.generation.unwrap_or_default();
        lines.push(format!("the spec was changed: generation {generation}"));
    }
    let empty = EdgeFunctionStatus::default();
    let old = before.status.as_ref().unwrap_or(&empty);
    let new = after.status.as_ref().unwrap_or(&empty);
    lines.extend(ended(old, new));
    let idle = RolloutStatus::default();
    let (from, to) = (
        old.rollout.as_ref().unwrap_or(&idle),
        new.rollout.as_ref().unwrap_or(&idle),
    );
    let candidate = |status: &EdgeFunctionStatus| {
        let candidate = status.candidate.as_ref();
        candidate.map(|candidate| candidate.revision.clone())
    };
    if let Some(name) = candidate(new).filter(|name| Some(name) != candidate(old).as_ref()) {
        lines.push(format!("{name} is the candidate"));
    }
    if (from.state, from.step, &from.weight) != (to.state, to.step, &to.weight) {
        lines.extend(position(to));
    }
    lines.extend(obstacles(from, to));
    let (approvals, awaited) = (gates::awaited(before), gates::awaited(after));
    if gates::is_awaited(after) && (approvals != awaited || !gates::is_awaited(before)) {
        lines.push(format!(
            "waits for the approval {}: kubectl selvage approve {} -n {}",
            awaited.join(", "),
            after.metadata.name.as_deref().unwrap_or_default(),
            after.metadata.namespace.as_deref().unwrap_or_default()
        ));
    }
    for kind in [types::ACCEPTED, types::RESOLVED, types::COMPATIBLE] {
        let wrong = |status: &EdgeFunctionStatus| {
            condition(status, kind)
                .filter(|it| it.status == "False")
                .map(|it| (it.reason.clone(), it.message.clone()))
        };
        if let Some((reason, message)) = wrong(new).filter(|it| Some(it) != wrong(old).as_ref()) {
            lines.push(format!("{kind}=False ({reason}): {}", printable(&message)));
        }
    }
    if old.phase != new.phase
        && let Some(phase) = new.phase
    {
        lines.push(phase.as_str().to_owned());
    }
    lines
}

/// Rollouts that ended, oldest first.
fn ended(old: &EdgeFunctionStatus, new: &EdgeFunctionStatus) -> Vec<String> {
    let is_new = |entry: &&HistoryEntry| !old.history.contains(entry);
    let mut lines: Vec<String> = new
        .history
        .iter()
        .take_while(is_new)
        .map(|entry| {
            let message = entry.message.as_deref().unwrap_or(&entry.revision);
            format!("{}: {}", entry.outcome, printable(message))
        })
        .collect();
    lines.reverse();
    lines
}

fn position(rollout: &RolloutStatus) -> Option<String> {
    let state = rollout.state?;
    let weight = rollout.weight.as_deref().unwrap_or("0%");
    let steps = rollout.plan.as_ref().map_or(0, |plan| plan.steps.len());
    Some(match state {
        State::Stepping => {
            let step = rollout.step.map_or(1, |step| step.saturating_add(1));
            format!("Stepping: {weight}, step {step} of {steps}")
        }
        State::Loading | State::Queued | State::Baking => format!("{state}: {weight}"),
        _ => return None,
    })
}

fn obstacles(from: &RolloutStatus, to: &RolloutStatus) -> Vec<String> {
    let mut lines = Vec::new();
    let reason = |rollout: &RolloutStatus| rollout.hold.as_ref().map(|hold| hold.reason.clone());
    match (&from.hold, &to.hold) {
        (_, Some(hold)) if reason(from) != reason(to) => {
            let message = hold.message.as_deref().unwrap_or_default();
            lines.push(format!("held ({}): {}", hold.reason, printable(message)));
        }
        (Some(hold), None) if to.state.is_some() => {
            lines.push(format!("the hold {} ended", hold.reason));
        }
        _ => {}
    }
    match (&from.paused, &to.paused) {
        (None, Some(paused)) => {
            let by = paused.by.as_deref().map(|by| format!(" by {by}"));
            lines.push(printable(&format!("paused{}", by.unwrap_or_default())));
        }
        (Some(_), None) => lines.push("resumed".to_owned()),
        _ => {}
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{STATES, function};

    #[test]
    fn a_wait_for_a_suspended_function_ends() {
        let mut suspended = function("ready");
        let conditions = &mut suspended.status.as_mut().unwrap().conditions;
        let mut ready = conditions
            .iter_mut()
            .filter(|one| one.type_ == types::READY);
        ready.next().unwrap().reason = "Suspended".to_owned();
        let text = "Ready: checkout-51ab90c3de is stable, and the function is suspended";
        assert_eq!(outcome(&suspended), Outcome::Live(text.to_owned()));
    }

    #[test]
    fn a_wait_ends_when_the_newest_spec_is_live_or_stalled() {
        for state in STATES {
            let expected = match state {
                "ready" => Outcome::Live("Ready: checkout-51ab90c3de is stable".to_owned()),
                "rolled-back" => Outcome::Stalled(
                    "Stalled (RolledBack): not tried again: checkout-7d4c9e21ab was rolled back 4 min ago (ErrorsWorse).".to_owned(),
                ),
                "failed" => Outcome::Stalled(
                    "Stalled (LoadFailed): 3 of 3 nodes cannot load checkout-7d4c9e21ab.".to_owned(),
                ),
                "refused" => Outcome::Stalled(
                    "Stalled (HostConflict): the host shop.example belongs to the namespace other".to_owned(),
                ),
                _ => Outcome::Pending,
            };
            assert_eq!(outcome(&function(state)), expected, "{state}");
        }
    }

    #[test]
    fn conditions_of_an_older_spec_do_not_end_a_wait() {
        for state in ["ready", "rolled-back"] {
            let mut newer = function(state);
            newer.metadata.generation = Some(8);
            assert_eq!(outcome(&newer), Outcome::Pending, "{state}");
            // the operator has seen the spec, and the condition still describes the one before
            let status = newer.status.as_mut().unwrap();
            status.observed_generation = Some(8);
            assert_eq!(outcome(&newer), Outcome::Pending, "{state}");
        }
    }

    #[test]
    fn every_transition_is_one_line() {
        for (before, after, lines) in [
            ("stepping", "stepping", vec![]),
            (
                "ready",
                "loading",
                vec![
                    "checkout-7d4c9e21ab is the candidate",
                    "Loading: 0%",
                    "Progressing",
                ],
            ),
            ("loading", "stepping", vec!["Stepping: 5%, step 2 of 2"]),
            (
                "stepping",
                "paused",
                vec!["paused by kubectl-annotate", "Paused"],
            ),
            ("paused", "stepping", vec!["resumed", "Progressing"]),
            (
                "stepping",
                "held",
                vec!["held (PrometheusUnavailable): Prometheus has not answered for 94 s"],
            ),
            (
                "held",
                "stepping",
                vec!["the hold PrometheusUnavailable ended"],
            ),
            (
                "stepping",
                "approval",
                vec![
                    "Stepping: 1%, step 1 of 2",
                    "waits for the approval manager/step-0: kubectl selvage approve checkout -n shop",
                ],
            ),
            ("stepping", "baking", vec!["Baking: 99%"]),
            (
                "stepping",
                "rolled-back",
                vec![
                    "RolledBack: rolled back from 10 % after 11 requests in 10 s (ErrorsWorse): 11 of 11 failed, 1 of 97 on stable. Evidence 236 to 1, limit 100 to 1.",
                    "RolledBack",
                ],
            ),
            (
                "stepping",
                "refused",
                vec![
                    "the spec was changed: generation 8",
                    "Accepted=False (HostConflict): the host shop.example belongs to the namespace other",
                ],
            ),
        ] {
            assert_eq!(
                changes(&function(before), &function(after)),
                lines,
                "{before} {after}"
            );
        }
    }

    #[test]
    fn the_first_line_is_the_state_and_its_sentence() {
        assert_eq!(
            first_line(&function("paused")),
            "Paused: paused (field manager kubectl-annotate); evaluation and rollback continue. At 5 %: 812 requests, errors 0.12 % against 0.11 % on stable (tolerance +0.5 pp)."
        );
    }
}
