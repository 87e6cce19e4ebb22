//! What a person asks for, by annotation. Each value acts at most once; what has no meaning here is recorded with the reason.

use super::lowering::reject;
use super::turn::Turn;
use super::{baking, gates, loading, stepping, wish};
use crate::function::{Annotation, Verb};
use crate::rollout::gates_ahead::unapproved;
use crate::rollout::{
    PassedBy, Paused, PlanKind, State, TransitionKind, VerbRecord, VerbResult, WaitingFor, words,
};

/// Acts on the first fresh annotation among `which`, in their order.
pub(super) fn take(turn: &mut Turn<'_>, which: &[Verb]) -> bool {
    let function = turn.function;
    let fresh = which.iter().find_map(|verb| {
        function
            .verbs
            .iter()
            .find(|a| a.verb == *verb && is_fresh(turn, a))
            .cloned()
    });
    let Some(annotation) = fresh else {
        return false;
    };
    let value = annotation.meant();
    if annotation.verb == Verb::Pause {
        turn.pause_seen = true;
    }
    let result = act(turn, &annotation, &value);
    record(turn, &annotation, value, result);
    true
}

fn is_fresh(turn: &Turn<'_>, annotation: &Annotation) -> bool {
    let value = annotation.meant();
    if value.is_empty() || waits(turn, annotation.verb) {
        return false;
    }
    !turn.state.is_used(annotation.verb, &value)
}

/// What raises a share is looked at once the revision that `spec` asks for is known, or the spec is refused.
fn waits(turn: &Turn<'_>, verb: Verb) -> bool {
    let raises = matches!(verb, Verb::Retry | Verb::Promote | Verb::PromoteFull);
    raises && turn.function.wish.is_none() && turn.function.refused.is_none()
}

/// Nothing rises while the spec is not accepted, since it is not known whether it still asks for this revision.
fn accepted(turn: &Turn<'_>) -> Result<(), String> {
    match &turn.function.refused {
        Some(why) if turn.function.wish.is_none() => {
            Err(format!("the spec is not accepted: {why}"))
        }
        _ => Ok(()),
    }
}

fn record(turn: &mut Turn<'_>, annotation: &Annotation, value: String, result: Result<(), String>) {
    let done = result.is_ok();
    if let Err(why) = &result {
        let text = format!("{}={value} is ignored: {why}", annotation.verb.as_str());
        turn.tell(TransitionKind::VerbIgnored, text);
    }
    let verbs = &mut turn.state.verbs;
    let before = verbs
        .iter()
        .position(|r| r.verb == annotation.verb)
        .map(|i| verbs.remove(i));
    let bare = before.is_some_and(|r| r.bare) || (done && !value.contains('/'));
    verbs.push(VerbRecord {
        verb: annotation.verb,
        // retry begins another attempt, in which nothing has fired yet
        bare: bare && annotation.verb != Verb::Retry,
        value,
        at: turn.now,
        by: annotation.by.clone(),
        result: result.map_or_else(VerbResult::Ignored, |()| VerbResult::Done),
    });
    verbs.sort_by_key(|r| r.verb);
    turn.write();
}

/// Does what the verb says, or says why not.
fn act(turn: &mut Turn<'_>, annotation: &Annotation, value: &str) -> Result<(), String> {
    let (name, token) = value
        .split_once('/')
        .map_or((value, None), |(n, t)| (n, Some(t)));
    if annotation.verb == Verb::Retry {
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
    match annotation.verb {
        Verb::Abort => {
            reject(
                turn,
                TransitionKind::Aborted,
                "Aborted",
                Some(String::new()),
                Some(by.into()),
            );
            Ok(())
        }
        Verb::Pause => pause(turn, by),
        Verb::Resume => resume(turn, by),
        Verb::Approve => approve(turn, by),
        Verb::Promote => promote(turn, by),
        Verb::PromoteFull => promote_full(turn, by),
        Verb::Retry => retry(turn, name),
    }
}

fn pause(turn: &mut Turn<'_>, by: &str) -> Result<(), String> {
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

fn resume(turn: &mut Turn<'_>, by: &str) -> Result<(), String> {
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
        .take_if(|h| h.reason == crate::rollout::HoldReason::Brake);
    turn.tell(
        TransitionKind::Unpaused,
        format!("resumed{}", words::through(by)),
    );
    Ok(())
}

fn approve(turn: &mut Turn<'_>, by: &str) -> Result<(), String> {
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

fn promote(turn: &mut Turn<'_>, by: &str) -> Result<(), String> {
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

fn promote_full(turn: &mut Turn<'_>, by: &str) -> Result<(), String> {
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

fn retry(turn: &mut Turn<'_>, name: &str) -> Result<(), String> {
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
    wish::start(turn, rejected.revision, kind, attempt);
    let text = format!("{name} is tried again, attempt {attempt}; nodes load it");
    turn.tell(TransitionKind::Retried, text);
    Ok(())
}
