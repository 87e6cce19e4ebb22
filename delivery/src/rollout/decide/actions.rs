//! Actions that people request by annotation. Each value acts at most once. An action that does not apply is recorded with
//! the reason.

use super::context::DecisionContext;
use super::refusal::Refusal;
use super::rollback::reject;
use super::{baking, desired, gates, loading, stepping};
use crate::function::{Action, Annotation, Revision};
use crate::rollout::pending_gates::unapproved;
use crate::rollout::{
    ActionRecord, ActionResult, PassedBy, Paused, PlanKind, Policy, State, TransitionKind,
    WaitingFor, format,
};

/// Handles the first new annotation among `actions`, in their order. Returns whether there was one.
pub(super) fn take(ctx: &mut DecisionContext<'_>, actions: &[Action]) -> bool {
    let function = ctx.function;
    let fresh = actions.iter().find_map(|action| {
        function
            .actions
            .iter()
            .find(|a| a.action == *action && is_fresh(ctx, a))
            .cloned()
    });
    let Some(annotation) = fresh else {
        return false;
    };
    let value = annotation.normalized_value();
    if annotation.action == Action::Pause {
        ctx.pause_seen = true;
    }
    let result = act(ctx, &annotation, &value);
    record(ctx, &annotation, value, result);
    true
}

fn is_fresh(ctx: &DecisionContext<'_>, annotation: &Annotation) -> bool {
    let value = annotation.normalized_value();
    if value.is_empty() || waits(ctx, annotation.action) {
        return false;
    }
    !ctx.state.is_used(annotation.action, &value)
}

/// Whether the action could raise a weight and must wait until the desired revision is known or the spec is refused.
fn waits(ctx: &DecisionContext<'_>, action: Action) -> bool {
    let raises = matches!(
        action,
        Action::Retry | Action::Promote | Action::PromoteFull
    );
    raises && ctx.function.target().is_none() && ctx.function.refused.is_none()
}

/// Returns what the newest spec asks for. Fails while it is not accepted, because it may no longer ask for this revision.
fn accepted<'a>(ctx: &DecisionContext<'a>) -> Result<(&'a Revision, &'a Policy), Refusal> {
    let function = ctx.function;
    let why = || function.refused.clone().unwrap_or_default();
    function.target().ok_or_else(|| Refusal::NotAccepted(why()))
}

fn record(
    ctx: &mut DecisionContext<'_>,
    annotation: &Annotation,
    value: String,
    result: Result<(), Refusal>,
) {
    let done = result.is_ok();
    if let Err(why) = &result {
        let text = format!("{}={value} is ignored: {why}", annotation.action.as_str());
        ctx.record_event(TransitionKind::ActionIgnored, text);
    }
    let records = &mut ctx.state.actions;
    let before = records
        .iter()
        .position(|r| r.action == annotation.action)
        .map(|i| records.remove(i));
    let bare = before.is_some_and(|r| r.bare) || (done && !value.contains('/'));
    records.push(ActionRecord {
        action: annotation.action,
        // retry begins another attempt, in which no action was handled yet
        bare: bare && annotation.action != Action::Retry,
        value,
        at: ctx.now,
        by: annotation.by.clone(),
        result: match result {
            Ok(()) => ActionResult::Done,
            Err(why) => ActionResult::Ignored(why.to_string()),
        },
    });
    records.sort_by_key(|r| r.action);
    ctx.write();
}

/// Carries out the action, or returns why it does not apply.
fn act(ctx: &mut DecisionContext<'_>, annotation: &Annotation, value: &str) -> Result<(), Refusal> {
    let (name, token) = value
        .split_once('/')
        .map_or((value, None), |(n, t)| (n, Some(t)));
    if annotation.action == Action::Retry {
        return retry(ctx, name);
    }
    let Some(r) = &ctx.state.rollout else {
        return Err(match &ctx.state.rejected {
            Some(x) if x.revision.name == name => Refusal::RolledBack,
            _ => Refusal::NoRollout,
        });
    };
    if r.candidate.revision.name != name {
        let name = r.candidate.revision.name.clone();
        return Err(Refusal::OtherCandidate(name));
    }
    if let Some(n) = token.and_then(|t| t.strip_prefix("step-")?.split('/').next())
        && (ctx.state.state != State::Stepping || n.parse() != Ok(r.step))
    {
        return Err(Refusal::OtherStep(n.to_owned()));
    }
    let by = annotation.by.as_str();
    match annotation.action {
        Action::Abort => {
            reject(
                ctx,
                TransitionKind::Aborted,
                "Aborted",
                Some(String::new()),
                Some(by.into()),
            );
            Ok(())
        }
        Action::Pause => pause(ctx, by),
        Action::Resume => resume(ctx, by),
        Action::Approve => approve(ctx, by),
        Action::Promote => promote(ctx, by),
        Action::PromoteFull => promote_full(ctx, by),
        Action::Retry => retry(ctx, name),
    }
}

fn pause(ctx: &mut DecisionContext<'_>, by: &str) -> Result<(), Refusal> {
    let now = ctx.now;
    let Some(r) = &mut ctx.state.rollout else {
        return Ok(());
    };
    if r.flags.paused.is_some() {
        return Err(Refusal::AlreadyPaused);
    }
    r.flags.paused = Some(Paused {
        since: now,
        by: by.into(),
        reason: "Paused".into(),
    });
    let text = format!(
        "paused{} at {}; evaluation and rollback continue",
        format::field_manager(by),
        r.weight
    );
    ctx.record_event(TransitionKind::Paused, text);
    Ok(())
}

fn resume(ctx: &mut DecisionContext<'_>, by: &str) -> Result<(), Refusal> {
    if ctx.pause_seen {
        return Err(Refusal::PausedAtOnce);
    }
    let Some(r) = &mut ctx.state.rollout else {
        return Ok(());
    };
    let (paused, backstop_reached) = (r.flags.paused.take(), r.flags.backstop.take());
    if paused.is_none() && backstop_reached.is_none() {
        return Err(Refusal::NotPaused);
    }
    r.flags
        .hold
        .take_if(|h| h.reason == crate::rollout::HoldReason::TotalErrors);
    ctx.record_event(
        TransitionKind::Unpaused,
        format!("resumed{}", format::field_manager(by)),
    );
    Ok(())
}

fn approve(ctx: &mut DecisionContext<'_>, by: &str) -> Result<(), Refusal> {
    let awaited = ctx
        .state
        .rollout
        .as_ref()
        .is_some_and(|r| r.flags.waiting_for.contains(&WaitingFor::Approval));
    let keys = unapproved(&ctx.state);
    if !awaited || keys.is_empty() {
        return Err(Refusal::NoApprovalNeeded);
    }
    if let Some(r) = &mut ctx.state.rollout {
        r.approved.extend(keys.iter().cloned());
        r.flags.waiting_for.retain(|w| *w != WaitingFor::Approval);
        r.flags.approval_requested_at = None;
    }
    let text = format!("approved{}: {}", format::field_manager(by), keys.join(", "));
    ctx.record_event(TransitionKind::Approved, text);
    Ok(())
}

fn promote(ctx: &mut DecisionContext<'_>, by: &str) -> Result<(), Refusal> {
    accepted(ctx)?;
    if let Some(r) = &ctx.state.rollout {
        loading::ensure_may_rise(r)?;
    }
    match ctx.state.state {
        State::Queued => {
            gates::skip(ctx);
            loading::start_traffic(ctx, Some(by));
        }
        State::Stepping => stepping::next(ctx, PassedBy::Action, Some(by)),
        State::Baking => baking::promote(ctx, Some(by)),
        _ => return Err(Refusal::StillLoading),
    }
    Ok(())
}

fn promote_full(ctx: &mut DecisionContext<'_>, by: &str) -> Result<(), Refusal> {
    accepted(ctx)?;
    if let Some(r) = &ctx.state.rollout {
        loading::ensure_may_rise(r)?;
        if r.plan.kind == PlanKind::First {
            return Err(Refusal::FirstRevision);
        }
    }
    match ctx.state.state {
        State::Loading if !ctx.loaded() => return Err(Refusal::StillLoading),
        State::Loading | State::Queued => loading::resolve_auto_weights(ctx),
        State::Stepping => (),
        _ => return Err(Refusal::AlreadyBaking),
    }
    stepping::to_bake(ctx, by);
    Ok(())
}

fn retry(ctx: &mut DecisionContext<'_>, name: &str) -> Result<(), Refusal> {
    let Some(rejected) = ctx.state.rejected.clone() else {
        return Err(Refusal::NothingRejected);
    };
    if rejected.revision.name != name {
        return Err(Refusal::OtherRejected(rejected.revision.name));
    }
    let (_, policy) = accepted(ctx)?;
    let kind = if ctx.state.stable.is_some() {
        PlanKind::Rollout
    } else {
        PlanKind::First
    };
    let attempt = rejected.attempt + 1;
    desired::start(ctx, rejected.revision, policy, kind, attempt);
    let text = format!("{name} is tried again, attempt {attempt}; nodes load it");
    ctx.record_event(TransitionKind::Retried, text);
    Ok(())
}
