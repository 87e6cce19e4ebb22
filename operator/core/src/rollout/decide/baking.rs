//! Baking: the candidate has nearly everything, stable keeps the holdback as a control.

use super::stepping::{early, needs_slot};
use super::context::DecisionContext;
use super::{gates, holds, desired};
use crate::rollout::decision::later;
use crate::rollout::{
    Outcome, RevisionRef, PlanKind, Previous, State, TransitionKind, WaitingFor, words,
};

/// Row 13, and 23 before it.
pub(super) fn advance(turn: &mut DecisionContext<'_>) -> bool {
    if turn.state.state != State::Baking {
        return false;
    }
    let Some(r) = &turn.state.rollout else {
        return false;
    };
    let mut waiting: Vec<_> = desired::unknown(turn).into_iter().collect();
    if r.acked_at.is_none() || !turn.follows() {
        waiting.push(WaitingFor::Nodes);
    }
    if early(r.active, r.plan.bake.duration, r.step_looks) || r.flags.unmeasured.is_some() {
        waiting.push(WaitingFor::Time);
    }
    let blocked = holds::blocks(&r.flags);
    let reached = waiting.is_empty() && !blocked;
    waiting.extend(gates::open(turn, reached));
    if needs_slot(turn) && !waiting.contains(&WaitingFor::Approval) {
        waiting.push(WaitingFor::Slot);
    }
    let ready = waiting.is_empty() && !blocked;
    holds::wait(turn, waiting);
    if ready {
        promote(turn, None);
    }
    ready
}

/// The candidate is stable; the old stable stays loaded for the way back.
pub(super) fn promote(turn: &mut DecisionContext<'_>, by: Option<&str>) {
    let Some(r) = &turn.state.rollout else { return };
    let reverted = r.plan.kind == PlanKind::Revert;
    let name = turn.candidate();
    let old = turn.state.stable.take();
    let who = words::through(by.unwrap_or_default());
    let time = words::span(crate::rollout::decision::since(r.started_at, turn.now));
    let before = old
        .as_ref()
        .map(|o| format!(" instead of {}", o.revision.name))
        .unwrap_or_default();
    let text = format!("{name} is stable{before}, promoted{who} after {time}");
    let reason = if reverted { "Reverted" } else { "Promoted" };
    if let Some(entry) = desired::end(
        turn,
        Outcome::Promoted,
        reason,
        by.map(str::to_owned),
        text.clone(),
    ) {
        turn.state.stable = Some(RevisionRef {
            revision: entry.revision,
            since: turn.now,
        });
    }
    let revert = turn.function.policy.revert;
    let until = later(turn.now, revert.window);
    turn.state.previous = old
        .filter(|_| revert.revisions > 0 && until > turn.now)
        .map(|o| Previous {
            revision: o.revision,
            until,
        });
    turn.state.superseded = 0;
    turn.state.state = State::Idle;
    turn.tell(TransitionKind::Promoted, text);
    turn.settle();
}
