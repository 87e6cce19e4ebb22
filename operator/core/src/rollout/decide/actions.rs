//! What a person asks for, by annotation. Each value acts at most once; what has no meaning here is recorded with the reason.

use super::lowering::reject;
use super::context::DecisionContext;
use super::{baking, gates, loading, stepping, desired};
use crate::function::{Annotation, Action};
use crate::rollout::gates_ahead::unapproved;
use crate::rollout::{
    PassedBy, Paused, PlanKind, State, TransitionKind, ActionRecord, ActionResult, WaitingFor, words,
};

/// Acts on the first fresh annotation among `which`, in their order.
pub(super) fn take(turn: &mut DecisionContext<'_>, which: &[Action]) -> bool {
    let function = turn.function;
    let fresh = which.iter().find_map(|verb| {
        function
            .actions
            .iter()
            .find(|a| a.action == *verb && is_fresh(turn, a))
            .cloned()
    });
    let Some(annotation) = fresh else {
        return false;
    };
    let value = annotation.meant();
    if annotation.action == Action::Pause {
        turn.pause_seen = true;
    }
    let result = act(turn, &annotation, &value);
    record(turn, &annotation, value, result);
    true
}

fn is_fresh(turn: &DecisionContext<'_>, annotation: &Annotation) -> bool {
    let value = annotation.meant();
    if value.is_empty() || waits(turn, annotation.action) {
        return false;
    }
    !turn.state.is_used(annotation.action, &value)
}

/// What raises a share is looked at once the revision that `spec` asks for is known, or the spec is refused.
fn waits(turn: &DecisionContext<'_>, verb: Action) -> bool {
    let raises = matches!(verb, Action::Retry | Action::Promote | Action::PromoteFull);
    raises && turn.function.desired.is_none() && turn.function.refused.is_none()
}

/// Nothing rises while the spec is not accepted, since it is not known whether it still asks for this revision.
fn accepted(turn: &DecisionContext<'_>) -> Result<(), String> {
    match &turn.function.refused {
        Some(why) if turn.function.desired.is_none() => {
            Err(format!("the spec is not accepted: {why}"))
        }
        _ => Ok(()),
    }
}

fn record(turn: &mut DecisionContext<'_>, annotation: &Annotation, value: String, result: Result<(), String>) {
    let done = result.is_ok();
    if let Err(why) = &result {
        let text = format!("{}={value} is ignored: {why}", annotation.action.as_str());
        turn.tell(TransitionKind::ActionIgnored, text);
    }
    let verbs = &mut turn.state.actions;
    let before = verbs
        .iter()
        .position(|r| r.verb == annotation.action)
        .map(|i| verbs.remove(i));
    let bare = before.is_some_and(|r| r.bare) || (done && !value.contains('/'));
    verbs.push(ActionRecord {
        verb: annotation.action,
        // retry begins another attempt, in which nothing has fired yet
        bare: bare && annotation.action != Action::Retry,
        value,
        at: turn.now,
        by: annotation.by.clone(),
        result: result.map_or_else(ActionResult::Ignored, |()| ActionResult::Done),
    });
    verbs.sort_by_key(|r| r.verb);
    turn.write();
}

/// Does what the verb says, or says why not.
fn act(turn: &mut DecisionContext<'_>, annotation: &Annotation, value: &str) -> Result<(), String> {
    let (name, token) = value
        .split_once('/')
        .map_or((value, None), |(n, t)| (n, Some(t)));
    if annotation.action == Action::Retry {
        return retry(turn, name);
    }
    let Some(r) = &turn.state.rollout else {
        return Err(match &turn.state.rejected {
            Some(x) if x.revision.name == name => {
                "it was rolled back; `retry` tries it again".into()
            }
            _ => "no rollout is running".into(),
        });
    };
    if r.candidate.revision.name != name {
        return Err(format!("the candidate is {}", r.candidate.revision.name));
    }
    if let Some(n) = token.and_then(|t| t.strip_prefix("step-")?.split('/').next())
        && (turn.state.state != State::Stepping || n.parse() != Ok(r.step))
    {
        return Err(format!("step {n} is not the present one"));
    }
    let by = annotation.by.as_str();
    match annotation.action {
        Action::Abort => {
            reject(
                turn,
                TransitionKind::Aborted,
                "Aborted",
                Some(String::new()),
                Some(by.into()),
            );
            Ok(())
        }
        Action::Pause => pause(turn, by),
        Action::Resume => resume(turn, by),
        Action::Approve => approve(turn, by),
        Action::Promote => promote(turn, by),
        Action::PromoteFull => promote_full(turn, by),
        Action::Retry => retry(turn, name),
    }
}

fn pause(turn: &mut DecisionContext<'_>, by: &str) -> Result<(), String> {
    let now = turn.now;
    let Some(r) = &mut turn.state.rollout else {
        return Ok(());
    };
    if r.flags.paused.is_some() {
        return Err("it is paused already".into());
    }
    r.flags.paused = Some(Paused {
        since: now,
        by: by.into(),
        reason: "Paused".into(),
    });
    let text = format!(
        "paused{} at {}; evidence and rollback go on",
        words::through(by),
        r.weight
    );
    turn.tell(TransitionKind::Paused, text);
    Ok(())
}

fn resume(turn: &mut DecisionContext<'_>, by: &str) -> Result<(), String> {
    if turn.pause_seen {
        return Err("a `pause` came with it".into());
    }
    let Some(r) = &mut turn.state.rollout else {
        return Ok(());
    };
    let (paused, braked) = (r.flags.paused.take(), r.flags.brake.take());
    if paused.is_none() && braked.is_none() {
        return Err("it is not paused".into());
    }
    r.flags
        .hold
        .take_if(|h| h.reason == crate::rollout::HoldReason::TotalErrors);
    turn.tell(
        TransitionKind::Unpaused,
        format!("resumed{}", words::through(by)),
    );
    Ok(())
}

fn approve(turn: &mut DecisionContext<'_>, by: &str) -> Result<(), String> {
    let awaited = turn
        .state
        .rollout
        .as_ref()
        .is_some_and(|r| r.flags.waiting_for.contains(&WaitingFor::Approval));
    let keys = unapproved(&turn.state);
    if !awaited || keys.is_empty() {
        return Err("no approval is awaited".into());
    }
    if let Some(r) = &mut turn.state.rollout {
        r.approved.extend(keys.iter().cloned());
        r.flags.waiting_for.retain(|w| *w != WaitingFor::Approval);
        r.flags.asked_since = None;
    }
    let text = format!("approved{}: {}", words::through(by), keys.join(", "));
    turn.tell(TransitionKind::Approved, text);
    Ok(())
}

fn promote(turn: &mut DecisionContext<'_>, by: &str) -> Result<(), String> {
    accepted(turn)?;
    if let Some(r) = &turn.state.rollout {
        loading::raisable(r)?;
    }
    match turn.state.state {
        State::Queued => {
            gates::skip(turn);
            loading::first_share(turn, Some(by));
        }
        State::Stepping => stepping::next(turn, PassedBy::Verb, Some(by)),
        State::Baking => baking::promote(turn, Some(by)),
        _ => return Err("nodes are still loading it".into()),
    }
    Ok(())
}

fn promote_full(turn: &mut DecisionContext<'_>, by: &str) -> Result<(), String> {
    accepted(turn)?;
    if let Some(r) = &turn.state.rollout {
        loading::raisable(r)?;
        if r.plan.kind == PlanKind::First {
            return Err("the first revision is served as soon as nodes have it".into());
        }
    }
    match turn.state.state {
        State::Loading if !turn.loaded() => return Err("nodes are still loading it".into()),
        State::Loading | State::Queued => loading::size(turn),
        State::Stepping => (),
        _ => return Err("it is in the bake already; `promote` ends that".into()),
    }
    stepping::to_bake(turn, by);
    Ok(())
}

fn retry(turn: &mut DecisionContext<'_>, name: &str) -> Result<(), String> {
    let Some(rejected) = turn.state.rejected.clone() else {
        return Err("nothing was rolled back".into());
    };
    if rejected.revision.name != name {
        return Err(format!(
            "what was rolled back is {}",
            rejected.revision.name
        ));
    }
    accepted(turn)?;
    let kind = if turn.state.stable.is_some() {
        PlanKind::Full
    } else {
        PlanKind::First
    };
    let attempt = rejected.attempt + 1;
    desired::start(turn, rejected.revision, kind, attempt);
    let text = format!("{name} is tried again, attempt {attempt}; nodes load it");
    turn.tell(TransitionKind::Retried, text);
    Ok(())
}
