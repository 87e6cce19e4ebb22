//! Actions: from a function to the annotation that requests one, or to the reason why it would do nothing.
//!
//! The operator handles a value at most once. A value therefore contains the revision, the step where one must not be
//! mistaken for another, and the time, so that a repeated request differs from the one before.

use crds::conditions::types;
use crds::function::{EdgeFunctionStatus, RevisionStatus};
use crds::rollout::{ActionResult, PlanKind, RolloutStatus, State};
use crds::{ACTION_PREFIX, EdgeFunction};
use jiff::Timestamp;

pub(crate) use delivery::function::Action;

use crate::gates;
use crate::text::{count, percent, rate, weight};

/// Annotation to write, and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) action: Action,
    /// Value of the annotation.
    pub(crate) value: String,
    /// What the action does now, as a clause that starts with a verb.
    pub(crate) effect: String,
}

impl Request {
    /// Key of the annotation.
    pub(crate) fn key(&self) -> String {
        format!("{ACTION_PREFIX}{}", self.action.as_str())
    }
}

/// State that a request was made for. A request must not be written when it has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Situation {
    state: Option<State>,
    step: Option<u32>,
    weight: Option<String>,
    revision: Option<String>,
    is_paused: bool,
    gates: Vec<String>,
}

/// Returns the state that a request depends on.
pub(crate) fn situation(function: &EdgeFunction) -> Situation {
    let status = function.status.as_ref();
    let rollout = status.and_then(|status| status.rollout.as_ref());
    let candidate = status.and_then(|status| status.candidate.as_ref());
    let rejected = rollout.and_then(|rollout| rollout.rejected.as_ref());
    Situation {
        state: rollout.and_then(|rollout| rollout.state),
        step: rollout.and_then(|rollout| rollout.step),
        weight: rollout.and_then(|rollout| rollout.weight.clone()),
        revision: candidate
            .map(|candidate| candidate.revision.clone())
            .or_else(|| rejected.map(|rejected| rejected.revision.clone())),
        is_paused: rollout.is_some_and(|rollout| rollout.paused.is_some()),
        gates: gates::awaited(function),
    }
}

impl std::fmt::Display for Situation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.state.map_or("without a rollout", State::as_str))?;
        if let Some(step) = self.step.filter(|_| self.state == Some(State::Stepping)) {
            write!(f, ", step {}", step + 1)?;
        }
        if let Some(weight) = &self.weight {
            write!(f, ", at {weight}")?;
        }
        if let Some(revision) = &self.revision {
            write!(f, ", {revision}")?;
        }
        if self.is_paused {
            f.write_str(", paused")?;
        }
        if !self.gates.is_empty() {
            write!(f, ", waiting for {}", self.gates.join(", "))?;
        }
        Ok(())
    }
}

/// What the operator did with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Handled {
    Done,
    /// Why the operator ignored it, as a clause.
    Ignored(String),
}

/// Returns what the operator did with a request, once it has handled it.
pub(crate) fn handled(request: &Request, function: &EdgeFunction) -> Option<Handled> {
    let rollout = function.status.as_ref()?.rollout.as_ref()?;
    let name = request.action.as_str();
    let record = rollout
        .actions
        .iter()
        .find(|record| record.action == name && record.value == request.value)?;
    Some(if record.result == ActionResult::Done {
        Handled::Done
    } else {
        Handled::Ignored(record.message.clone().unwrap_or_default())
    })
}

/// Returns the annotation that requests `action` in the present state of the function. `gate` restricts an approval to a
/// gate.
///
/// # Errors
/// Returns why the action would do nothing, as a sentence.
pub(crate) fn request(
    action: Action,
    gate: Option<&str>,
    function: &EdgeFunction,
    now: Timestamp,
) -> Result<Request, String> {
    let status = function
        .status
        .as_ref()
        .ok_or("The operator has not reported on this function yet.")?;
    let empty = RolloutStatus::default();
    let rollout = status.rollout.as_ref().unwrap_or(&empty);
    if action == Action::Retry {
        return retry(function, status, rollout, now);
    }
    let Some(candidate) = &status.candidate else {
        return Err(no_rollout(status, rollout));
    };
    let effect = match action {
        Action::Promote => promote(status, rollout, candidate)?,
        Action::PromoteFull => promote_full(status, rollout, candidate)?,
        Action::Approve => approve(function, gate)?,
        Action::Pause => pause(rollout)?,
        Action::Resume => resume(rollout)?,
        Action::Abort | Action::Retry => abort(status, rollout, candidate),
    };
    // A value with a step acts while that step is current, and never later.
    let pinned = matches!(action, Action::Promote | Action::Approve)
        && rollout.state == Some(State::Stepping);
    let step = rollout.step.filter(|_| pinned);
    Ok(Request {
        action,
        value: unused_value(action, &candidate.revision, step, function, now),
        effect,
    })
}

/// Value that neither the annotation nor the operator has: `<revision>[/step-<n>]/<milliseconds since 1970>`.
fn unused_value(
    action: Action,
    revision: &str,
    step: Option<u32>,
    function: &EdgeFunction,
    now: Timestamp,
) -> String {
    let key = format!("{ACTION_PREFIX}{}", action.as_str());
    let annotations = function.metadata.annotations.as_ref();
    let written = annotations.and_then(|annotations| annotations.get(&key));
    let rollout = function.status.as_ref().and_then(|s| s.rollout.as_ref());
    let records = rollout.map(|rollout| rollout.actions.as_slice());
    let is_used = |value: &String| {
        written.is_some_and(|written| written.trim() == value)
            || records
                .unwrap_or_default()
                .iter()
                .any(|record| record.action == action.as_str() && record.value == *value)
    };
    let step = step.map(|n| format!("/step-{n}")).unwrap_or_default();
    let from = now.as_millisecond();
    let mut value = format!("{revision}{step}/{from}");
    let mut next = from;
    while is_used(&value) {
        next = next.wrapping_add(1);
        value = format!("{revision}{step}/{next}");
    }
    value
}

fn no_rollout(status: &EdgeFunctionStatus, rollout: &RolloutStatus) -> String {
    if let Some(rejected) = &rollout.rejected {
        return format!(
            "No rollout runs: {} was rejected ({}). The action retry tries it again.",
            rejected.revision, rejected.reason
        );
    }
    match &status.stable {
        Some(stable) => format!("No rollout runs: {} is stable.", stable.revision),
        None => "No rollout runs, and no revision is stable.".to_owned(),
    }
}

/// Fails while the newest spec is refused, because it may no longer ask for this revision.
fn accepted(status: &EdgeFunctionStatus) -> Result<(), String> {
    let accepted = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == types::ACCEPTED);
    match accepted {
        Some(condition) if condition.status == "False" => Err(format!(
            "The spec is not accepted ({}): {}",
            condition.reason, condition.message
        )),
        _ => Ok(()),
    }
}

/// Fails while nothing may raise the weight.
fn may_rise(rollout: &RolloutStatus) -> Result<(), String> {
    if rollout.paused.is_some() {
        return Err("The rollout is paused. The action resume comes first.".to_owned());
    }
    match &rollout.hold {
        Some(hold) if ["Suspended", "NoNodes"].contains(&hold.reason.as_str()) => Err(format!(
            "The rollout is held ({}): {}.",
            hold.reason,
            hold.message.as_deref().unwrap_or("its clocks stand still")
        )),
        _ => Ok(()),
    }
}

fn promote(
    status: &EdgeFunctionStatus,
    rollout: &RolloutStatus,
    candidate: &RevisionStatus,
) -> Result<String, String> {
    accepted(status)?;
    may_rise(rollout)?;
    let name = &candidate.revision;
    match rollout.state {
        Some(State::Queued) => Ok(format!(
            "starts the first step of {name} without a slot and without gates"
        )),
        Some(State::Stepping) => Ok(format!(
            "ends {} of {name} without waiting for evidence, time, gates or holds ({})",
            step(rollout),
            counts(rollout)
        )),
        Some(State::Baking) => Ok(format!(
            "ends the bake and makes {name} stable ({})",
            counts(rollout)
        )),
        _ => Err(still_loading(status)),
    }
}

fn promote_full(
    status: &EdgeFunctionStatus,
    rollout: &RolloutStatus,
    candidate: &RevisionStatus,
) -> Result<String, String> {
    accepted(status)?;
    may_rise(rollout)?;
    let plan = rollout.plan.as_ref();
    if plan.and_then(|plan| plan.kind) == Some(PlanKind::First) {
        return Err(
            "This is the first revision: each node serves it as soon as it has loaded it."
                .to_owned(),
        );
    }
    if rollout.state == Some(State::Baking) {
        return Err("The rollout is in the bake already. The action promote ends that.".to_owned());
    }
    if status.nodes.as_ref().is_some_and(|nodes| nodes.loaded == 0) {
        return Err(still_loading(status));
    }
    let share = plan.and_then(|plan| plan.holdback).map_or_else(
        || "its final weight".to_owned(),
        |holdback| weight(10_000_u32.saturating_sub(holdback)),
    );
    Ok(format!(
        "gives {} {share} of the requests at once and starts the bake ({})",
        candidate.revision,
        counts(rollout)
    ))
}

fn still_loading(status: &EdgeFunctionStatus) -> String {
    let nodes = status.nodes.as_ref();
    let of = nodes.map(|nodes| format!(" ({} of {} have it)", nodes.loaded, nodes.desired));
    format!("Nodes are still loading it{}.", of.unwrap_or_default())
}

fn abort(
    status: &EdgeFunctionStatus,
    rollout: &RolloutStatus,
    candidate: &RevisionStatus,
) -> String {
    let name = &candidate.revision;
    match &status.stable {
        Some(stable) => format!(
            "sends all requests to {} and rejects {name} ({})",
            stable.revision,
            counts(rollout)
        ),
        None => format!("rejects {name}; no other revision can answer"),
    }
}

fn approve(function: &EdgeFunction, gate: Option<&str>) -> Result<String, String> {
    if !gates::is_awaited(function) {
        let rollout = function.status.as_ref().and_then(|s| s.rollout.as_ref());
        let waits: Vec<&str> = rollout
            .iter()
            .flat_map(|rollout| rollout.waiting_for.iter().map(|w| w.as_str()))
            .collect();
        return Err(if waits.is_empty() {
            "No approval is needed now.".to_owned()
        } else {
            format!(
                "No approval is needed now; the rollout waits for {}.",
                waits.join(", ")
            )
        });
    }
    let awaited = gates::awaited(function);
    if let Some(gate) = gate {
        let is_gate = |key: &String| key == gate || key.split('/').next() == Some(gate);
        if !awaited.iter().any(is_gate) {
            return Err(format!(
                "The rollout does not wait for {gate}, but for {}.",
                awaited.join(", ")
            ));
        }
        // the operator passes all gates that it waits for
        if let Some(other) = awaited.iter().find(|key| !is_gate(key)) {
            return Err(format!(
                "The rollout also waits for {other}, and an approval passes all gates at once. Leave the gate out to \
                 approve all of them."
            ));
        }
    }
    Ok(format!("approves {}", awaited.join(", ")))
}

fn pause(rollout: &RolloutStatus) -> Result<String, String> {
    if let Some(paused) = &rollout.paused {
        let by = paused.by.as_deref().map(|by| format!(" by {by}"));
        return Err(format!(
            "The rollout is paused already, since {}{}.",
            crate::text::moment(paused.since.0),
            by.unwrap_or_default()
        ));
    }
    Ok(format!(
        "keeps the weight at {} until resume; evaluation and rollback continue",
        rollout.weight.as_deref().unwrap_or("0%")
    ))
}

fn resume(rollout: &RolloutStatus) -> Result<String, String> {
    let hold = rollout.hold.as_ref();
    if rollout.paused.is_some() {
        return Ok("ends the pause; the weight can rise again".to_owned());
    }
    match hold {
        Some(hold) if hold.reason == "TotalErrors" => {
            Ok("ends the hold of the backstop; the weight can rise again".to_owned())
        }
        Some(hold) => Err(format!(
            "The rollout is not paused. The hold {} ends by itself: {}.",
            hold.reason,
            hold.message
                .as_deref()
                .unwrap_or("its cause must end first")
        )),
        None => Err("The rollout is not paused.".to_owned()),
    }
}

fn retry(
    function: &EdgeFunction,
    status: &EdgeFunctionStatus,
    rollout: &RolloutStatus,
    now: Timestamp,
) -> Result<Request, String> {
    let rejected = rollout
        .rejected
        .as_ref()
        .ok_or("Nothing was rolled back.")?;
    accepted(status)?;
    let name = &rejected.revision;
    Ok(Request {
        action: Action::Retry,
        value: unused_value(Action::Retry, name, None, function, now),
        effect: format!(
            "starts another rollout of {name}, which was rejected {} ago ({})",
            crate::text::age(rejected.at.0, now),
            rejected.reason
        ),
    })
}

fn step(rollout: &RolloutStatus) -> String {
    let steps = rollout.plan.as_ref().map_or(0, |plan| plan.steps.len());
    let number = rollout.step.map_or(1, |step| step.saturating_add(1));
    let at = rollout.weight.as_deref().unwrap_or_default();
    format!("step {number} of {steps} at {at}")
}

/// Requests and failures of the candidate so far, and how much of the evidence is there.
fn counts(rollout: &RolloutStatus) -> String {
    let Some(evidence) = &rollout.evidence else {
        return "nothing measured yet".to_owned();
    };
    let counted = evidence.candidate.clone().unwrap_or_default();
    let progress = evidence
        .pass
        .as_ref()
        .and_then(|pass| pass.progress.as_ref());
    let progress = progress
        .and_then(|progress| progress.parse().ok())
        .map(|share| format!(", {} of the evidence", percent(share)));
    format!(
        "{}, {} failed ({}){}",
        count(counted.requests, "request"),
        counted.errors,
        rate(counted.errors, counted.requests),
        progress.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests;
