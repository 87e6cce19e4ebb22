//! Messages for people, built from the persisted state alone.

use jiff::Timestamp;

use super::action_lines::{already_handled, command};
use super::decision::{CHECKPOINT, since};
use super::pending_gates::unapproved;
use super::{
    EvidenceSummary, HoldReason, NodeProblem, Rejected, Rollout, RolloutState, State, Unmeasured,
    UnmeasuredKind, WaitingFor, Weight, format, suspension,
};
use crate::function::{Action, Function};

/// Builds `status.message`: the state of the rollout and its reason, in a few sentences.
#[must_use]
pub fn message(now: Timestamp, function: &Function, state: &RolloutState) -> String {
    if let Some(rejected) = &state.rejected {
        return rejection(now, function, state, rejected);
    }
    let Some(r) = &state.rollout else {
        return rest(function, state);
    };
    let mut parts = Vec::new();
    if let Some(p) = &r.flags.paused {
        parts.push(paused(&p.reason, &p.by));
    }
    if let Some(h) = &r.flags.hold {
        parts.push(format!("held: {}.", h.message));
    }
    parts.extend(progress(state, r));
    if state.superseded > 1 {
        parts.push(format!(
            "Superseded {} times in a row, so nothing was promoted.",
            state.superseded
        ));
    }
    let policy = function.policy.as_ref();
    if policy.is_some_and(|policy| r.plan.is_outdated(policy)) {
        parts.push(
            "The policy was edited since; the edit applies to the next rollout or `retry`.".into(),
        );
    }
    parts.extend(already_handled(function, state));
    parts.extend(request(function, state, r));
    format::sentences(parts)
}

/// Command that a person can run now. It comes last.
fn request(function: &Function, state: &RolloutState, r: &Rollout) -> Option<String> {
    if r.flags.paused.is_some() || r.flags.backstop.is_some_and(|b| b.until_action) {
        let line = command(function, state, Action::Resume);
        return Some(format!("To resume: {line}"));
    }
    is_approval_requested(r)
        .then(|| format!("To approve: {}", command(function, state, Action::Approve)))
}

fn rest(function: &Function, state: &RolloutState) -> String {
    let pending = suspension::pending(state);
    let serves = match state.stable.as_ref().map(|s| &s.revision.name) {
        Some(name) if function.suspend || pending.is_some() => format!("{name} is stable."),
        Some(name) => format!("{name} is stable and serves all requests."),
        None => "nothing is served yet.".into(),
    };
    match pending {
        Some(pending) if state.stable.is_some() => format::sentences(vec![serves, pending]),
        _ if function.suspend => {
            format!("{serves} The function is suspended: every request gets 503.")
        }
        _ => serves,
    }
}

fn rejection(
    now: Timestamp,
    function: &Function,
    state: &RolloutState,
    rejected: &Rejected,
) -> String {
    let again = command(function, state, Action::Retry);
    let age = since(rejected.at, now);
    if age.as_secs() < 120 {
        return format!("{} To retry: {again}", rejected.message);
    }
    if rejected.reason == "Aborted" {
        let (name, age) = (&rejected.revision.name, format::span(age));
        return format!(
            "not tried again: {name} was aborted {age} ago. Change the spec, or run: {again}"
        );
    }
    format!(
        "not tried again: {} was rolled back {} ago ({}). Change the spec, or run: {again}",
        rejected.revision.name,
        format::span(age),
        rejected.reason
    )
}

fn paused(reason: &str, by: &str) -> String {
    if reason == "StateLost" {
        return "paused: status was lost, so nothing rises by itself.".into();
    }
    let who = format::field_manager(by);
    format!("paused{who}; evaluation and rollback continue.")
}

/// Progress of the current state. A hold that explains the state leaves only the figures, and none while it stops the clock.
fn progress(state: &RolloutState, r: &Rollout) -> Option<String> {
    let hold = r.flags.hold.as_ref().map(|h| h.reason);
    let explained = hold.is_some_and(|h| h != HoldReason::DeadlineExceeded);
    if hold.is_some_and(HoldReason::stops_clock) || (explained && !state.state.is_exposed()) {
        return None;
    }
    Some(match state.state {
        State::Loading if !is_approval_requested(r) => format!("loading: {}.", nodes_behind(state)),
        State::Stepping | State::Baking => {
            let bake = if state.state == State::Baking {
                "baking at"
            } else {
                "at"
            };
            let figures = state.evidence_summary.as_ref().map(observed);
            let waits = (!explained).then(|| waiting(state, r));
            let parts: Vec<String> = figures
                .into_iter()
                .chain(waits.into_iter().flatten())
                .collect();
            if parts.is_empty() {
                return None;
            }
            format!("{bake} {}: {}", r.weight, format::sentences(parts))
        }
        _ => format::capitalized(&format::sentences(waiting(state, r))),
    })
}

fn is_approval_requested(r: &Rollout) -> bool {
    r.flags.waiting_for.contains(&WaitingFor::Approval)
}

/// `812 requests, errors 0.12 % against 0.11 % on stable (tolerance +0.5 pp).`
fn observed(f: &EvidenceSummary) -> String {
    let rate = |counts: &super::RequestCounts| format::rate(counts.errors, counts.requests);
    let tolerance = f
        .metrics
        .iter()
        .find(|m| m.name == "errors")
        .map(|m| format!(" (tolerance {})", format::points(m.tolerance)))
        .unwrap_or_default();
    let requests = format::requests(f.candidate.requests);
    let alone = f
        .dominant
        .as_ref()
        .map(|node| format!(" More than half of the candidate's requests are those of {node}."))
        .unwrap_or_default();
    match (f.candidate.requests, f.stable.requests) {
        (0, _) => "no requests to the candidate yet.".to_owned(),
        (_, 0) => format!(
            "{requests}, errors {}, and no requests to stable to compare with.{alone}",
            rate(&f.candidate)
        ),
        _ => format!(
            "{requests}, errors {} against {} on stable{tolerance}.{alone}",
            rate(&f.candidate),
            rate(&f.stable)
        ),
    }
}

/// Returns what the next rise of the weight still waits for. The sentences begin with a small letter, because the first one may
/// follow a colon.
fn waiting(state: &RolloutState, r: &Rollout) -> Vec<String> {
    let next = if state.state == State::Baking {
        "the end of the bake"
    } else {
        "the next step"
    };
    if is_approval_requested(r) {
        let gates = unapproved(state).join(", ");
        let since = r.flags.approval_requested_at.map(format::moment);
        let since = since.map(|at| format!(" since {at}")).unwrap_or_default();
        return vec![format!("waiting for approval ({gates}){since}.")];
    }
    let missing = r.flags.unmeasured.as_ref();
    let missing = missing.filter(|_| state.state.is_exposed());
    // without samples none of these can change, so naming them would only hide the reason
    let is_known = |w: &WaitingFor| missing.is_none() || !w.needs_samples();
    let waits = r.flags.waiting_for.iter().copied().filter(is_known);
    let mut parts: Vec<String> = missing
        .map(unmeasured)
        .into_iter()
        .chain(waits.filter_map(|w| wait(w, state, r, next)))
        .collect();
    if parts.is_empty() {
        parts.push(format!("ready for {next}."));
    }
    parts
}

/// `Prometheus has not answered since 2026-11-22T02:10:31Z (no answer within 5 s).`
fn unmeasured(missing: &Unmeasured) -> String {
    let what = match missing.kind {
        UnmeasuredKind::NoAnswer => "Prometheus has not answered",
        UnmeasuredKind::NothingUsable => "there have been no usable samples",
    };
    let since = format::moment(missing.since);
    format!("{what} since {since} ({}).", missing.message)
}

fn wait(what: WaitingFor, state: &RolloutState, r: &Rollout, next: &str) -> Option<String> {
    Some(match what {
        WaitingFor::Spec => "the weight does not rise until the desired revision is known.".into(),
        WaitingFor::Nodes => format!("waiting: {}.", nodes_behind(state)),
        WaitingFor::Slot => {
            "waiting for a slot: as many rollouts carry traffic as `operator.maxRollouts` allows."
                .into()
        }
        WaitingFor::Approval => return None,
        WaitingFor::Time => {
            let (what, least) = match state.state {
                State::Baking => ("bake", r.plan.bake.duration),
                _ => (
                    "step",
                    r.plan
                        .steps
                        .get(r.step)
                        .map(|s| s.min_duration)
                        .unwrap_or_default(),
                ),
            };
            // the message stays in the status for a checkpoint interval, so a number of remaining seconds would soon be wrong
            if r.active >= least {
                format!("two evaluations are needed before {next}.")
            } else if r.active < CHECKPOINT {
                format!("the {what} lasts at least {}.", format::span(least))
            } else {
                format!(
                    "the {what} lasts at least {}; {} have passed.",
                    format::span(least),
                    format::span(r.active)
                )
            }
        }
        WaitingFor::Requests => {
            let least = r.plan.steps.get(r.step).map_or(0, |s| s.min_requests);
            format!(
                "{} more to {next}.",
                format::requests(least.saturating_sub(r.step_requests))
            )
        }
        WaitingFor::Traffic => {
            "the candidate gets no requests; `advance: Time` would continue without them.".into()
        }
        WaitingFor::Evidence => evidence(state, next)?,
        WaitingFor::Coverage => {
            let stale = state.evidence_summary.as_ref();
            match stale.and_then(|summary| summary.stale.as_deref()) {
                Some(node) => format!("waiting for fresh samples from {node}."),
                None => "waiting for fresh samples from the nodes with most requests.".into(),
            }
        }
    })
}

/// `about 150 more requests to the next step, 62 % of the way.`
fn evidence(state: &RolloutState, next: &str) -> Option<String> {
    let pass = &state.evidence_summary.as_ref()?.pass;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=99 before the cast"
    )]
    let way = (pass.progress * 100.0).clamp(0.0, 99.0) as u32;
    Some(match pass.need_requests {
        Some(n) if n > 0 => format!("about {n} more requests to {next}, {way} % of the way."),
        _ => format!("evidence is {way} % of the way to {next}."),
    })
}

/// Returns the evidence against the candidate and the limit at which it is rolled back:
/// `Evidence against it 2.4 to 1, limit 100 to 1.` `None` before the first evaluation.
#[must_use]
pub fn evidence_against(state: &RolloutState) -> Option<String> {
    let summary = state.evidence_summary.as_ref()?;
    let analysis = &state.rollout.as_ref()?.plan.analysis;
    Some(format!(
        "Evidence against it {}, limit {}.",
        format::odds(summary.ln_evidence()),
        format::odds(-analysis.false_rollbacks.ln())
    ))
}

/// `11 of 11 failed, 1 of 97 on stable. Evidence 236 to 1, limit 100 to 1`
pub(super) fn decisive(state: &RolloutState) -> Option<String> {
    let d = state.evidence_summary.as_ref()?.decisive.as_ref()?;
    Some(format!(
        "{} of {} {}, {} of {} on stable. Evidence {}, limit {}",
        d.candidate.1,
        d.candidate.0,
        format::event(&d.metric),
        d.stable.1,
        d.stable.0,
        format::odds(d.ln_e),
        format::odds(d.ln_limit)
    ))
}

/// `, first node-17 (Unauthorized: the registry refused access)`; empty when no node reports a problem.
pub(super) fn first_problem(problem: Option<&NodeProblem>) -> String {
    let Some(problem) = problem else {
        return String::new();
    };
    let (node, reason) = (&problem.node, &problem.reason);
    match problem.message.trim().trim_end_matches('.') {
        "" => format!(", first {node} ({reason})"),
        message => format!(", first {node} ({reason}: {message})"),
    }
}

/// `3 of 40 nodes have not loaded checkout-7d4c9e21ab, first node-17 (Unauthorized: the registry refused access)`
pub(super) fn nodes_behind(state: &RolloutState) -> String {
    let n = &state.nodes;
    let name = state
        .rollout
        .as_ref()
        .map_or("it", |r| r.candidate.revision.name.as_str());
    let first = first_problem(n.problem.as_ref());
    match n.live.saturating_sub(n.loaded) {
        _ if n.live == 0 => format!("none of {} nodes can be reached", n.desired),
        // this is written together with the weight, before any node can have acknowledged it
        0 if n.applied == 0 && n.problem.is_none() => {
            format!("the weight is on its way to {} nodes", n.live)
        }
        0 => {
            let late = n.live.saturating_sub(n.applied);
            format!(
                "{late} of {} nodes have not acknowledged the weight{first}",
                n.live
            )
        }
        late => format!("{late} of {} nodes have not loaded {name}{first}", n.live),
    }
}

/// Message of a rise of the weight.
pub(super) fn raised(r: &Rollout, state: State, by: Option<&str>) -> String {
    let name = &r.candidate.revision.name;
    if state == State::Baking {
        let who = format::field_manager(by.unwrap_or_default());
        let control = if r.weight == Weight::FULL {
            "stable keeps nothing".into()
        } else {
            format!("stable keeps {}", r.weight.rest())
        };
        return format!(
            "{name} bakes at {} for {}, {control}{who}",
            r.weight,
            format::span(r.plan.bake.duration)
        );
    }
    let who = by
        .filter(|manager| !manager.is_empty())
        .map(|manager| format!(", field manager {manager}"))
        .unwrap_or_default();
    format!(
        "{name} is at {} (step {} of {}, `step-{}`{who})",
        r.weight,
        r.step + 1,
        r.plan.steps.len(),
        r.step
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::RequestCounts;

    #[test]
    fn counts_without_requests_are_not_compared() {
        let counts = |requests, errors| RequestCounts {
            requests,
            errors,
            ..Default::default()
        };
        let of = |candidate, stable| {
            observed(&EvidenceSummary {
                candidate,
                stable,
                ..Default::default()
            })
        };
        let none = of(counts(0, 0), counts(500, 0));
        assert_eq!(none, "no requests to the candidate yet.");
        let alone = of(counts(10, 1), counts(0, 0));
        assert_eq!(
            alone,
            "10 requests, errors 10 %, and no requests to stable to compare with."
        );
        let both = of(counts(10, 1), counts(20, 1));
        assert_eq!(both, "10 requests, errors 10 % against 5 % on stable.");
    }
}
