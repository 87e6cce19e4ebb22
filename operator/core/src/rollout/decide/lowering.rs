//! Rules that lower the weight: verdicts, deadlines with a rollback, and the error backstop.

use super::context::DecisionContext;
use super::{desired, holds};
use crate::rollout::action_lines::command;
use crate::rollout::decision::since;
use crate::rollout::message::decisive;
use crate::rollout::{
    BackstopHold, Fallback, Outcome, Rejected, State, TransitionKind, Verdict, Weight, words,
};

/// Number of times the backstop may be reached before only the action `resume` lets the weight rise again.
const MAX_BACKSTOPS: u32 = 3;

/// Row 14: rolls back on the verdict bad. A pause, a hold or a gate does not delay it.
pub(super) fn bad(ctx: &mut DecisionContext<'_>) -> bool {
    let Some(Verdict::Bad { reason }) = ctx.evaluation.map(|l| l.verdict.clone()) else {
        return false;
    };
    reject(ctx, TransitionKind::CheckBad, &reason, None, None);
    true
}

/// Rows 18 and 19 with `Rollback` instead of `Hold`. A step that is good in the same evaluation ends first.
pub(super) fn overdue(ctx: &mut DecisionContext<'_>) -> bool {
    let Some(r) = ctx
        .state
        .rollout
        .as_ref()
        .filter(|_| ctx.state.state.is_exposed())
    else {
        return false;
    };
    let analysis = &r.plan.analysis;
    if let Some(u) = &r.flags.unmeasured
        && analysis.on_unknown == Fallback::Rollback
        && since(u.since, ctx.now) >= analysis.max_unknown
    {
        let what = holds::unmeasured(u.kind);
        let text = format!(
            "{what} for {} ({})",
            words::span(since(u.since, ctx.now)),
            u.message
        );
        reject(
            ctx,
            TransitionKind::UnknownRollback,
            "MetricsUnavailable",
            Some(text),
            None,
        );
        return true;
    }
    let step = r
        .plan
        .steps
        .get(r.step)
        .filter(|_| ctx.state.state == State::Stepping);
    if let Some(s) = step
        && s.on_deadline == Fallback::Rollback
        && r.active >= s.deadline
    {
        let text = format!("the step took longer than {}", words::span(s.deadline));
        reject(
            ctx,
            TransitionKind::DeadlineRollback,
            "DeadlineExceeded",
            Some(text),
            None,
        );
        return true;
    }
    false
}

/// Sends all requests to stable and rejects the candidate. `text` replaces the decisive figures in the message.
pub(super) fn reject(
    ctx: &mut DecisionContext<'_>,
    kind: TransitionKind,
    reason: &str,
    text: Option<String>,
    by: Option<String>,
) {
    let Some(r) = &ctx.state.rollout else { return };
    let (revision, attempt, weight) = (r.candidate.revision.clone(), r.attempt, r.weight);
    let exposed = ctx.state.state.is_exposed();
    let action = if by.is_some() {
        "aborted"
    } else {
        "rolled back"
    };
    let from = if exposed {
        format!(" from {weight}{}", after(ctx))
    } else {
        " before it got any request".into()
    };
    let why = text.unwrap_or_else(|| decisive(&ctx.state).unwrap_or_default());
    let who = words::field_manager(by.as_deref().unwrap_or_default());
    let colon = if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    };
    let reasoned = if by.is_some() {
        String::new()
    } else {
        format!(" ({reason})")
    };
    let sentence = format!("{action}{who}{from}{reasoned}{colon}.");
    let outcome = if by.is_some() {
        Outcome::Aborted
    } else {
        Outcome::RolledBack
    };
    desired::end(ctx, outcome, reason, by, sentence.clone());
    ctx.state.superseded = 0;
    ctx.state.previous.take_if(|p| p.revision == revision);
    ctx.state.state = if ctx.state.stable.is_some() {
        State::RolledBack
    } else {
        State::Failed
    };
    ctx.state.rejected = Some(Rejected {
        revision,
        reason: reason.into(),
        message: sentence.clone(),
        at: ctx.now,
        attempt,
    });
    let again = command(ctx.function, &ctx.state, crate::function::Action::Retry);
    ctx.record_event(kind, format!("{sentence} To retry: {again}"));
    ctx.settle();
}

/// Formats requests and time since the candidate got its first weight: ` after 11 requests in 10 s`.
fn after(ctx: &DecisionContext<'_>) -> String {
    let requests = ctx
        .state
        .figures
        .as_ref()
        .map_or(0, |f| f.candidate.requests);
    let exposed = ctx.state.steps.first().map_or(ctx.now, |s| s.started_at);
    format!(
        " after {} in {}",
        words::requests(requests),
        words::span(since(exposed, ctx.now))
    )
}

/// Row 16: too many of the candidate's requests fail, and the comparison with stable has not decided. Lowers the weight by
/// one step, so that stable has more requests to compare with.
pub(super) fn backstop(ctx: &mut DecisionContext<'_>) -> bool {
    if !ctx.evaluation.is_some_and(|l| l.backstop) {
        return false;
    }
    ctx.evaluation = None;
    let now = ctx.now;
    let (state, Some(r)) = (ctx.state.state, &mut ctx.state.rollout) else {
        return false;
    };
    let steps = r.plan.steps.len();
    if steps == 0 && r.plan.final_weight() == Weight::FULL {
        let text =
            "too many of the candidate's requests fail, and stable has no requests to compare with"
                .to_owned();
        reject(
            ctx,
            TransitionKind::BackstopRollback,
            "TotalErrors",
            Some(text),
            None,
        );
        return true;
    }
    r.backstops += 1;
    r.flags.backstop = Some(BackstopHold {
        since: now,
        until_action: r.backstops >= MAX_BACKSTOPS,
    });
    let from = r.weight;
    let down = match state {
        State::Baking => steps.checked_sub(1),
        _ => r.step.checked_sub(1),
    };
    if let Some(step) = down {
        desired::close_step(ctx, crate::rollout::PassedBy::Lowered);
        ctx.begin(State::Stepping, |r| {
            r.step = step;
            r.weight = r.plan.weight(step);
        });
    }
    let Some(r) = &ctx.state.rollout else {
        return true;
    };
    let share = if down.is_some() {
        format!("from {from} to {}", r.weight)
    } else {
        format!("stays at {from}")
    };
    let wait = if r.backstops >= MAX_BACKSTOPS {
        "until a person requests `resume`".into()
    } else {
        format!("for {}", words::span(holds::BACKSTOP_HOLD))
    };
    let text = format!(
        "too many of the candidate's requests fail, and the comparison with stable has not decided: the weight goes {share} and is held {wait}"
    );
    let text = text.replace("goes stays", "stays");
    holds::set(
        ctx,
        crate::rollout::HoldReason::TotalErrors,
        holds::backstop_text(ctx),
    );
    ctx.record_event(TransitionKind::BackstopReached, text);
    true
}
