//! States `Loading` and `Queued`: nodes load the candidate, which serves no requests yet unless it is the first revision.

use super::context::DecisionContext;
use super::refusal::Refusal;
use super::rollback::reject;
use super::{desired, gates, holds};
use crate::rollout::{
    Fallback, Outcome, PlanKind, RevisionRef, Rollout, State, Traffic, TransitionKind, WaitingFor,
    format, message,
};

/// Rows 2, 3 and 6 to 9. Returns whether the state changed.
pub(super) fn advance(ctx: &mut DecisionContext<'_>) -> bool {
    match ctx.state.state {
        State::Loading => loading(ctx),
        State::Queued => queued(ctx),
        _ => false,
    }
}

fn loading(ctx: &mut DecisionContext<'_>) -> bool {
    let Some(r) = &ctx.state.rollout else {
        return false;
    };
    let nodes = r.plan.nodes;
    let first = r.plan.kind == PlanKind::First;
    let over = r.active >= nodes.load_deadline;
    if ctx.loaded() {
        return if first { first_loaded(ctx) } else { queue(ctx) };
    }
    holds::wait(ctx, vec![WaitingFor::Nodes]);
    let view = &ctx.input.nodes;
    let failed = view.of(&ctx.candidate()).failed;
    let kind = if first {
        TransitionKind::FirstFailed
    } else {
        TransitionKind::LoadFailed
    };
    // even all other nodes together would not be enough
    if view.live > 0
        && !nodes
            .min_loaded
            .reached(view.live.saturating_sub(failed), view.live)
    {
        let text = message::nodes_behind(&ctx.state);
        reject(ctx, kind, "LoadFailed", Some(text), None);
        return true;
    }
    if over && nodes.on_load_deadline == Fallback::Rollback {
        let text = format!(
            "{} within {}",
            message::nodes_behind(&ctx.state),
            format::span(nodes.load_deadline)
        );
        reject(ctx, kind, "LoadDeadlineExceeded", Some(text), None);
        return true;
    }
    false
}

fn queue(ctx: &mut DecisionContext<'_>) -> bool {
    let on = ctx.input.nodes.of(&ctx.candidate()).loaded;
    let text = format!(
        "{} is loaded on {on} of {} nodes",
        ctx.candidate(),
        ctx.input.nodes.live
    );
    ctx.begin(State::Queued, |_| ());
    ctx.record_event(TransitionKind::Loaded, text);
    true
}

/// Makes the first revision stable without evaluation: there is nothing to compare it with and nothing to return to.
fn first_loaded(ctx: &mut DecisionContext<'_>) -> bool {
    if ctx.function.abandoned.is_some() && ctx.function.desired.is_none() {
        holds::wait(ctx, vec![WaitingFor::Spec]);
        return false;
    }
    let waiting: Vec<_> = gates::open(ctx, true).into_iter().collect();
    holds::wait(ctx, waiting.clone());
    let blocked = ctx
        .state
        .rollout
        .as_ref()
        .is_none_or(|r| holds::blocks(&r.flags));
    if !waiting.is_empty() || blocked {
        return false;
    }
    let (loaded, live) = (
        ctx.input.nodes.of(&ctx.candidate()).loaded,
        ctx.input.nodes.live,
    );
    let name = ctx.candidate();
    let text = format!(
        "{name} is loaded on {loaded} of {live} nodes and serves as the first stable revision"
    );
    if let Some(entry) = desired::end(ctx, Outcome::Promoted, "FirstRevision", None, text.clone()) {
        ctx.state.stable = Some(RevisionRef {
            revision: entry.revision,
            since: ctx.now,
        });
    }
    ctx.state.superseded = 0;
    ctx.state.state = State::Idle;
    ctx.record_event(TransitionKind::FirstPromoted, text);
    ctx.settle();
    true
}

fn queued(ctx: &mut DecisionContext<'_>) -> bool {
    let Some(r) = &ctx.state.rollout else {
        return false;
    };
    let needs_traffic = r.plan.needs_traffic() && ctx.input.traffic.is_none();
    let full = r.plan.kind == PlanKind::Rollout;
    let mut waiting: Vec<_> = desired::unknown(ctx).into_iter().collect();
    waiting.extend(gates::open(ctx, waiting.is_empty()));
    // a rollout that waits for an approval takes no slot
    if full && !ctx.input.slot && !waiting.contains(&WaitingFor::Approval) {
        waiting.push(WaitingFor::Slot);
    }
    if !ctx.loaded() {
        waiting.push(WaitingFor::Nodes);
    }
    holds::wait(ctx, waiting.clone());
    let blocked = ctx
        .state
        .rollout
        .as_ref()
        .is_none_or(|r| holds::blocks(&r.flags));
    if !waiting.is_empty() || blocked || needs_traffic {
        return false;
    }
    start_traffic(ctx, None);
    true
}

/// Row 9: gives the candidate its first weight. From here on the plan has no `Auto` weights.
pub(super) fn start_traffic(ctx: &mut DecisionContext<'_>, by: Option<&str>) {
    resolve_auto_weights(ctx);
    let steps = ctx
        .state
        .rollout
        .as_ref()
        .is_some_and(|r| !r.plan.steps.is_empty());
    let state = if steps {
        State::Stepping
    } else {
        State::Baking
    };
    ctx.begin(state, |r| {
        r.step = 0;
        r.weight = r.plan.weight(0);
    });
    let kind = if steps {
        TransitionKind::FirstTraffic
    } else {
        TransitionKind::AllTraffic
    };
    let text = ctx
        .state
        .rollout
        .as_ref()
        .map(|r| message::raised(r, state, by))
        .unwrap_or_default();
    ctx.record_event(kind, text);
}

/// Replaces `Auto` weights by numbers.
pub(super) fn resolve_auto_weights(ctx: &mut DecisionContext<'_>) {
    let traffic = ctx.input.traffic.unwrap_or(Traffic {
        requests_per_second: None,
    });
    if let Some(r) = &mut ctx.state.rollout {
        r.plan = r.plan.clone().resolve_auto_weights(traffic);
    }
}

/// Fails if not even an action may raise the weight of this rollout.
pub(super) fn ensure_may_rise(r: &Rollout) -> Result<(), Refusal> {
    if r.flags.paused.is_some() {
        return Err(Refusal::Paused);
    }
    match &r.flags.hold {
        Some(h) if h.reason.stops_clock() => Err(Refusal::Held(h.message.clone())),
        _ => Ok(()),
    }
}
