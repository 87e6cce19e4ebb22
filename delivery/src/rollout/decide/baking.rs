//! State `Baking`: the candidate has nearly all requests, and stable keeps the holdback as a control.

use super::context::DecisionContext;
use super::stepping::{early, needs_slot};
use super::{desired, gates, holds};
use crate::rollout::decision::later;
use crate::rollout::{
    Outcome, PlanKind, Previous, RevisionRef, State, TransitionKind, WaitingFor, format,
};

/// Row 13, and row 23 before it: promotes the candidate when the bake is complete.
pub(super) fn advance(ctx: &mut DecisionContext<'_>) -> bool {
    if ctx.state.state != State::Baking {
        return false;
    }
    let Some(r) = &ctx.state.rollout else {
        return false;
    };
    let mut waiting: Vec<_> = desired::unknown(ctx).into_iter().collect();
    if r.acked_at.is_none() || !ctx.follows() {
        waiting.push(WaitingFor::Nodes);
    }
    if early(r.active, r.plan.bake.duration, r.step_evaluations) || r.flags.unmeasured.is_some() {
        waiting.push(WaitingFor::Time);
    }
    let blocked = holds::blocks(&r.flags);
    let reached = waiting.is_empty() && !blocked;
    waiting.extend(gates::open(ctx, reached));
    if needs_slot(ctx) && !waiting.contains(&WaitingFor::Approval) {
        waiting.push(WaitingFor::Slot);
    }
    let ready = waiting.is_empty() && !blocked;
    holds::wait(ctx, waiting);
    if ready {
        promote(ctx, None);
    }
    ready
}

/// Makes the candidate stable. The old stable revision stays loaded for a rollout back.
pub(super) fn promote(ctx: &mut DecisionContext<'_>, by: Option<&str>) {
    let Some(r) = &ctx.state.rollout else { return };
    let reverted = r.plan.kind == PlanKind::Revert;
    let name = ctx.candidate();
    let old = ctx.state.stable.take();
    let who = format::field_manager(by.unwrap_or_default());
    let time = format::span(crate::rollout::decision::since(r.started_at, ctx.now));
    let before = old
        .as_ref()
        .map(|o| format!(" instead of {}", o.revision.name))
        .unwrap_or_default();
    let text = format!("{name} is stable{before}, promoted{who} after {time}");
    let reason = if reverted { "Reverted" } else { "Promoted" };
    if let Some(entry) = desired::end(
        ctx,
        Outcome::Promoted,
        reason,
        by.map(str::to_owned),
        text.clone(),
    ) {
        ctx.state.stable = Some(RevisionRef {
            revision: entry.revision,
            since: ctx.now,
        });
    }
    let revert = ctx.function.policy.as_ref().map(|policy| policy.revert);
    ctx.state.previous = old.zip(revert).and_then(|(old, revert)| {
        let until = later(ctx.now, revert.window);
        (revert.revisions > 0 && until > ctx.now).then_some(Previous {
            revision: old.revision,
            until,
        })
    });
    ctx.state.superseded = 0;
    ctx.state.health_of_promoted();
    ctx.state.state = State::Idle;
    ctx.record_event(TransitionKind::Promoted, text);
    ctx.settle();
}
