//! Loading and Queued: nothing is served yet (but the very first revision), nodes get the candidate.

use super::lowering::reject;
use super::context::DecisionContext;
use super::{gates, holds, desired};
use crate::rollout::{
    Fallback, Outcome, RevisionRef, PlanKind, Rollout, State, Traffic, TransitionKind, WaitingFor,
    message, words,
};

/// Rows 2, 3 and 6 to 9.
pub(super) fn advance(turn: &mut DecisionContext<'_>) -> bool {
    match turn.state.state {
        State::Loading => loading(turn),
        State::Queued => queued(turn),
        _ => false,
    }
}

fn loading(turn: &mut DecisionContext<'_>) -> bool {
    let Some(r) = &turn.state.rollout else {
        return false;
    };
    let nodes = r.plan.nodes;
    let first = r.plan.kind == PlanKind::First;
    let over = r.active >= nodes.load_deadline;
    if turn.loaded() {
        return if first {
            first_loaded(turn)
        } else {
            queue(turn)
        };
    }
    holds::wait(turn, vec![WaitingFor::Nodes]);
    let view = &turn.evidence.nodes;
    let failed = view.of(&turn.candidate()).failed;
    let kind = if first {
        TransitionKind::FirstFailed
    } else {
        TransitionKind::LoadFailed
    };
    // not even all others together would be enough
    if view.live > 0
        && !nodes
            .min_loaded
            .reached(view.live.saturating_sub(failed), view.live)
    {
        let text = message::nodes_behind(&turn.state);
        reject(turn, kind, "LoadFailed", Some(text), None);
        return true;
    }
    if over && nodes.on_load_deadline == Fallback::Rollback {
        let text = format!(
            "{} within {}",
            message::nodes_behind(&turn.state),
            words::span(nodes.load_deadline)
        );
        reject(turn, kind, "LoadDeadlineExceeded", Some(text), None);
        return true;
    }
    false
}

fn queue(turn: &mut DecisionContext<'_>) -> bool {
    let on = turn.evidence.nodes.of(&turn.candidate()).loaded;
    let text = format!(
        "{} is loaded on {on} of {} nodes",
        turn.candidate(),
        turn.evidence.nodes.live
    );
    turn.begin(State::Queued, |_| ());
    turn.tell(TransitionKind::Loaded, text);
    true
}

/// The very first revision needs no proof: there is nothing to compare it with and nothing to fall back to.
fn first_loaded(turn: &mut DecisionContext<'_>) -> bool {
    if turn.function.abandoned.is_some() && turn.function.desired.is_none() {
        holds::wait(turn, vec![WaitingFor::Spec]);
        return false;
    }
    let waiting: Vec<_> = gates::open(turn, true).into_iter().collect();
    holds::wait(turn, waiting.clone());
    let blocked = turn
        .state
        .rollout
        .as_ref()
        .is_none_or(|r| holds::blocks(&r.flags));
    if !waiting.is_empty() || blocked {
        return false;
    }
    let (loaded, live) = (
        turn.evidence.nodes.of(&turn.candidate()).loaded,
        turn.evidence.nodes.live,
    );
    let name = turn.candidate();
    let text = format!(
        "{name} is loaded on {loaded} of {live} nodes and serves as the first stable revision"
    );
    if let Some(entry) = desired::end(turn, Outcome::Promoted, "FirstRevision", None, text.clone()) {
        turn.state.stable = Some(RevisionRef {
            revision: entry.revision,
            since: turn.now,
        });
    }
    turn.state.superseded = 0;
    turn.state.state = State::Idle;
    turn.tell(TransitionKind::FirstPromoted, text);
    turn.settle();
    true
}

fn queued(turn: &mut DecisionContext<'_>) -> bool {
    let Some(r) = &turn.state.rollout else {
        return false;
    };
    let needs_traffic = r.plan.needs_traffic() && turn.evidence.traffic.is_none();
    let full = r.plan.kind == PlanKind::Full;
    let mut waiting: Vec<_> = desired::unknown(turn).into_iter().collect();
    waiting.extend(gates::open(turn, waiting.is_empty()));
    // a rollout that waits for a person waits for nothing else, and takes no place
    if full && !turn.evidence.slot && !waiting.contains(&WaitingFor::Approval) {
        waiting.push(WaitingFor::Slot);
    }
    if !turn.loaded() {
        waiting.push(WaitingFor::Nodes);
    }
    holds::wait(turn, waiting.clone());
    let blocked = turn
        .state
        .rollout
        .as_ref()
        .is_none_or(|r| holds::blocks(&r.flags));
    if !waiting.is_empty() || blocked || needs_traffic {
        return false;
    }
    first_share(turn, None);
    true
}

/// Row 9: the first raise. From here on the plan's weights are figures.
pub(super) fn first_share(turn: &mut DecisionContext<'_>, by: Option<&str>) {
    size(turn);
    let steps = turn
        .state
        .rollout
        .as_ref()
        .is_some_and(|r| !r.plan.steps.is_empty());
    let state = if steps {
        State::Stepping
    } else {
        State::Baking
    };
    turn.begin(state, |r| {
        r.step = 0;
        r.weight = r.plan.weight(0);
    });
    let kind = if steps {
        TransitionKind::FirstShare
    } else {
        TransitionKind::OnlyShare
    };
    let text = turn
        .state
        .rollout
        .as_ref()
        .map(|r| message::raised(r, state, by))
        .unwrap_or_default();
    turn.tell(kind, text);
}

/// Replaces `Auto` weights by figures.
pub(super) fn size(turn: &mut DecisionContext<'_>) {
    let traffic = turn.evidence.traffic.unwrap_or(Traffic {
        requests_per_second: None,
    });
    if let Some(r) = &mut turn.state.rollout {
        r.plan = r.plan.clone().sized(traffic);
    }
}

/// Whether the share of this rollout may rise at all by a person's word.
pub(super) fn raisable(r: &Rollout) -> Result<(), String> {
    if r.flags.paused.is_some() {
        return Err("the rollout is paused; `resume` comes first".into());
    }
    match &r.flags.hold {
        Some(h) if h.reason.stops_clock() => Err(h.message.clone()),
        _ => Ok(()),
    }
}
