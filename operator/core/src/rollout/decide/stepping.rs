//! Stepping: the share rises when everything that is required is good at one look.

use std::time::Duration;

use super::context::DecisionContext;
use super::{gates, holds, desired};
use crate::rollout::{
    Advance, PassedBy, PlanKind, State, Step, TransitionKind, Verdict, WaitingFor, message,
};

/// A step ends after at least so many looks with its share acknowledged, so that no jump of a clock passes it.
pub(super) const LEAST_LOOKS: u32 = 2;
/// Looks without one candidate request after which the message says so.
pub(super) const QUIET_LOOKS: u32 = 10;

/// Rows 11, 12, 17 and 23.
pub(super) fn advance(turn: &mut DecisionContext<'_>) -> bool {
    if turn.state.state != State::Stepping {
        return super::lowering::overdue(turn);
    }
    let Some(step) = turn
        .state
        .rollout
        .as_ref()
        .and_then(|r| r.plan.steps.get(r.step))
        .cloned()
    else {
        return false;
    };
    let mut waiting = missing(turn, &step);
    waiting.extend(desired::unknown(turn));
    let blocked = turn
        .state
        .rollout
        .as_ref()
        .is_none_or(|r| holds::blocks(&r.flags));
    // between looks the last word is shown, but only a look that is good now ends a step
    let good =
        step.advance == Advance::Time || turn.look.is_some_and(|l| l.verdict == Verdict::Good);
    let reached = waiting.is_empty() && !blocked && good;
    waiting.extend(gates::open(turn, reached));
    if needs_slot(turn) && !waiting.contains(&WaitingFor::Approval) {
        waiting.push(WaitingFor::Slot);
    }
    let ready = waiting.is_empty() && !blocked && good;
    holds::wait(turn, waiting);
    if ready {
        let by = match step.advance {
            Advance::Evidence => PassedBy::Evidence,
            Advance::Time => PassedBy::Time,
        };
        next(turn, by, None);
        return true;
    }
    super::lowering::overdue(turn)
}

pub(super) fn needs_slot(turn: &DecisionContext<'_>) -> bool {
    let full = turn
        .state
        .rollout
        .as_ref()
        .is_some_and(|r| r.plan.kind == PlanKind::Full);
    full && !turn.evidence.slot
}

/// What the step itself still waits for.
fn missing(turn: &DecisionContext<'_>, step: &Step) -> Vec<WaitingFor> {
    let Some(r) = &turn.state.rollout else {
        return Vec::new();
    };
    let was = |w: WaitingFor| r.flags.waiting_for.contains(&w);
    let evidence = match step.advance {
        Advance::Evidence => turn
            .look
            .map_or_else(|| was(WaitingFor::Evidence), |l| l.verdict != Verdict::Good),
        Advance::Time => r.flags.unmeasured.is_some(),
    };
    let covered = turn
        .look
        .map_or_else(|| !was(WaitingFor::Coverage), |l| l.covered);
    let checks = [
        (WaitingFor::Nodes, r.acked_at.is_none() || !turn.follows()),
        (
            WaitingFor::Time,
            early(r.active, step.min_duration, r.step_looks),
        ),
        (WaitingFor::Requests, r.step_requests < step.min_requests),
        (WaitingFor::Traffic, r.quiet_looks >= QUIET_LOOKS),
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

pub(super) fn early(active: Duration, least: Duration, looks: u32) -> bool {
    active < least || looks < LEAST_LOOKS
}

/// The next step, or the bake after the last one.
pub(super) fn next(turn: &mut DecisionContext<'_>, passed: PassedBy, by: Option<&str>) {
    desired::close_step(turn, passed);
    let Some(r) = &turn.state.rollout else { return };
    let last = r.plan.is_last(r.step);
    let state = if last { State::Baking } else { State::Stepping };
    let step = r.step + 1;
    turn.begin(state, |r| {
        r.step = step;
        r.weight = r.plan.weight(step);
        r.flags.brake = None;
    });
    let kind = match (last, by) {
        (true, _) => TransitionKind::BakeStarted,
        (false, None) => TransitionKind::NextStep,
        (false, Some(_)) => TransitionKind::PromotedByAction,
    };
    let text = turn
        .state
        .rollout
        .as_ref()
        .map(|r| message::raised(r, state, by))
        .unwrap_or_default();
    turn.tell(kind, text);
}

/// Straight to the bake.
pub(super) fn to_bake(turn: &mut DecisionContext<'_>, by: &str) {
    desired::close_step(turn, PassedBy::Verb);
    turn.begin(State::Baking, |r| {
        r.step = r.plan.steps.len();
        r.weight = r.plan.final_weight();
        r.flags.brake = None;
    });
    let text = turn
        .state
        .rollout
        .as_ref()
        .map(|r| message::raised(r, State::Baking, Some(by)))
        .unwrap_or_default();
    turn.tell(TransitionKind::PromotedFullByAction, text);
}
