//! State `Stepping`: the weight rises when all requirements are met in one evaluation.

use std::time::Duration;

use super::context::DecisionContext;
use super::{desired, gates, holds};
use crate::rollout::{
    Advance, PassedBy, PlanKind, State, Step, TransitionKind, Verdict, WaitingFor, message,
};

/// Minimum number of evaluations after the acknowledgement before a step ends, so that a jump of the clock cannot end it.
pub(super) const MIN_EVALUATIONS: u32 = 2;
/// Number of evaluations without a candidate request after which the message reports it.
pub(super) const QUIET_EVALUATIONS: u32 = 10;

/// Rows 11, 12, 17 and 23. Returns whether the state changed.
pub(super) fn advance(ctx: &mut DecisionContext<'_>) -> bool {
    if ctx.state.state != State::Stepping {
        return super::rollback::overdue(ctx);
    }
    let Some(step) = ctx
        .state
        .rollout
        .as_ref()
        .and_then(|r| r.plan.steps.get(r.step))
        .cloned()
    else {
        return false;
    };
    let mut waiting = missing(ctx, &step);
    waiting.extend(desired::unknown(ctx));
    let blocked = ctx
        .state
        .rollout
        .as_ref()
        .is_none_or(|r| holds::blocks(&r.flags));
    // between evaluations the last result is shown, but only a good evaluation in this decision ends a step
    let good =
        step.advance == Advance::Time || ctx.evaluation.is_some_and(|l| l.verdict == Verdict::Good);
    let reached = waiting.is_empty() && !blocked && good;
    waiting.extend(gates::open(ctx, reached));
    if needs_slot(ctx) && !waiting.contains(&WaitingFor::Approval) {
        waiting.push(WaitingFor::Slot);
    }
    let ready = waiting.is_empty() && !blocked && good;
    holds::wait(ctx, waiting);
    if ready {
        let by = match step.advance {
            Advance::Evidence => PassedBy::Evidence,
            Advance::Time => PassedBy::Time,
        };
        next(ctx, by, None);
        return true;
    }
    super::rollback::overdue(ctx)
}

pub(super) fn needs_slot(ctx: &DecisionContext<'_>) -> bool {
    let full = ctx
        .state
        .rollout
        .as_ref()
        .is_some_and(|r| r.plan.kind == PlanKind::Rollout);
    full && !ctx.input.slot
}

/// Conditions of the step itself that are not met yet.
fn missing(ctx: &DecisionContext<'_>, step: &Step) -> Vec<WaitingFor> {
    let Some(r) = &ctx.state.rollout else {
        return Vec::new();
    };
    let was = |w: WaitingFor| r.flags.waiting_for.contains(&w);
    let evidence = match step.advance {
        Advance::Evidence => ctx
            .evaluation
            .map_or_else(|| was(WaitingFor::Evidence), |l| l.verdict != Verdict::Good),
        Advance::Time => r.flags.unmeasured.is_some(),
    };
    let covered = ctx
        .evaluation
        .map_or_else(|| !was(WaitingFor::Coverage), |l| l.covered);
    let checks = [
        (WaitingFor::Nodes, r.acked_at.is_none() || !ctx.follows()),
        (
            WaitingFor::Time,
            early(r.active, step.min_duration, r.step_evaluations),
        ),
        (WaitingFor::Requests, r.step_requests < step.min_requests),
        (
            WaitingFor::Traffic,
            r.quiet_evaluations >= QUIET_EVALUATIONS,
        ),
        (WaitingFor::Evidence, evidence),
        (WaitingFor::Coverage, !covered),
    ];
    let traffic_needed = step.advance == Advance::Evidence;
    checks
        .into_iter()
        .filter(|(w, open)| *open && (traffic_needed || *w != WaitingFor::Traffic))
        .map(|(w, _)| w)
        .collect()
}

pub(super) fn early(active: Duration, least: Duration, evaluations: u32) -> bool {
    active < least || evaluations < MIN_EVALUATIONS
}

/// Starts the next step, or the bake after the last one.
pub(super) fn next(ctx: &mut DecisionContext<'_>, passed: PassedBy, by: Option<&str>) {
    desired::close_step(ctx, passed);
    let Some(r) = &ctx.state.rollout else { return };
    let last = r.plan.is_last(r.step);
    let state = if last { State::Baking } else { State::Stepping };
    let step = r.step + 1;
    ctx.begin(state, |r| {
        r.step = step;
        r.weight = r.plan.weight(step);
        r.flags.backstop = None;
    });
    let kind = match (last, by) {
        (true, _) => TransitionKind::BakeStarted,
        (false, None) => TransitionKind::NextStep,
        (false, Some(_)) => TransitionKind::PromotedByAction,
    };
    let text = ctx
        .state
        .rollout
        .as_ref()
        .map(|r| message::raised(r, state, by))
        .unwrap_or_default();
    ctx.record_event(kind, text);
}

/// Starts the bake at once.
pub(super) fn to_bake(ctx: &mut DecisionContext<'_>, by: &str) {
    desired::close_step(ctx, PassedBy::Action);
    ctx.begin(State::Baking, |r| {
        r.step = r.plan.steps.len();
        r.weight = r.plan.final_weight();
        r.flags.backstop = None;
    });
    let text = ctx
        .state
        .rollout
        .as_ref()
        .map(|r| message::raised(r, State::Baking, Some(by)))
        .unwrap_or_default();
    ctx.record_event(TransitionKind::PromotedFullByAction, text);
}
