//! Rules that reject the candidate: the verdict bad, and deadlines with a rollback. The texts of these transitions.

use super::context::DecisionContext;
use super::{desired, holds};
use crate::rollout::action_lines::command;
use crate::rollout::decision::since;
use crate::rollout::message::decisive;
use crate::rollout::{Fallback, Outcome, Rejected, State, TransitionKind, Verdict, format};

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
            format::span(since(u.since, ctx.now)),
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
        let text = format!("the step took longer than {}", format::span(s.deadline));
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
    let who = format::field_manager(by.as_deref().unwrap_or_default());
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
        .evidence_summary
        .as_ref()
        .map_or(0, |f| f.candidate.requests);
    let exposed = ctx.state.steps.first().map_or(ctx.now, |s| s.started_at);
    format!(
        " after {} in {}",
        format::requests(requests),
        format::span(since(exposed, ctx.now))
    )
}
