//! Facts: clocks, leadership, nodes and the evaluation. None of them raises the weight.

use std::time::Duration;

use jiff::Timestamp;

use super::context::DecisionContext;
use crate::rollout::decision::since;
use crate::rollout::{
    AnalysisState, FencingToken, Flags, HoldReason, Measured, PassedBy, Paused, PlanKind,
    RolloutState, State, Suspension, TransitionKind, Unmeasured, WaitingFor, hint_token,
};

/// Longest time between two decisions that counts as active. A longer one means that there was no leader, or that the
/// clock was set forward.
const MAX_GAP: Duration = Duration::from_secs(90);

/// Takes in clocks, nodes and leadership, once per decision.
pub(super) fn update(ctx: &mut DecisionContext<'_>) {
    let gap = clock(ctx);
    leadership(ctx, gap);
    ctx.count_nodes();
    acknowledgement(ctx);
    unmeasured(ctx, gap);
}

/// Records that samples are missing. The period starts at the last usable evaluation, if this leader made it.
fn unmeasured(ctx: &mut DecisionContext<'_>, gap: Duration) {
    let Measured::Unavailable { kind, message } = &ctx.input.measured else {
        return;
    };
    let (now, exposed) = (ctx.now, ctx.state.state.is_exposed());
    let same_leader = ctx.before.token.epoch == ctx.state.token.epoch && gap <= MAX_GAP;
    let Some(r) = ctx.state.rollout.as_mut().filter(|_| exposed) else {
        return;
    };
    let last = r
        .analysis
        .as_ref()
        .map_or(r.step_started_at, |a| a.evaluated_at.max(r.step_started_at));
    let began = if same_leader { last.min(now) } else { now };
    r.flags.unmeasured = Some(Unmeasured {
        since: r.flags.unmeasured.as_ref().map_or(began, |u| u.since),
        kind: *kind,
        message: message.clone(),
        tried_at: now,
    });
}

/// Counts active time. Returns the time since the last decision.
fn clock(ctx: &mut DecisionContext<'_>) -> Duration {
    let (now, epoch) = (ctx.now, ctx.input.epoch);
    let same_leader = epoch <= ctx.state.token.epoch;
    let Some(r) = &mut ctx.state.rollout else {
        return Duration::ZERO;
    };
    let elapsed = since(r.clock_at, now);
    let hold = r.flags.hold.as_ref().map(|h| h.reason);
    // waiting for an approval stops the clock, as a pause does
    let stopped = r.flags.paused.is_some()
        || r.flags.waiting_for.contains(&WaitingFor::Approval)
        || hold.is_some_and(HoldReason::stops_clock);
    if same_leader && !stopped && elapsed <= MAX_GAP {
        r.active += elapsed;
    }
    r.clock_at = now;
    // if the clock was set back, times in the future would stop the rollout until they are reached
    r.acked_at = r.acked_at.map(|t| t.min(now));
    r.step_started_at = r.step_started_at.min(now);
    if let Some(a) = &mut r.analysis {
        a.evaluated_at = a.evaluated_at.min(now);
    }
    clamp(&mut r.flags, now);
    elapsed
}

fn clamp(flags: &mut Flags, now: Timestamp) {
    let Flags {
        paused: _,
        hold: _,
        waiting_for: _,
        approval_requested_at,
        unmeasured,
        short_since,
        unreached_since,
        shared,
        backstop,
    } = flags;
    if let Some(u) = unmeasured {
        u.since = u.since.min(now);
        u.tried_at = u.tried_at.min(now);
    }
    for t in [approval_requested_at, short_since, unreached_since]
        .into_iter()
        .flatten()
    {
        *t = (*t).min(now);
    }
    if let Some(s) = shared {
        s.since = s.since.min(now);
        s.stable_ok_since = s.stable_ok_since.map(|t| t.min(now));
    }
    if let Some(b) = backstop {
        b.since = b.since.min(now);
    }
}

/// Lets a new leader send the persisted split with its own epoch. It needs a new evaluation before the next step.
fn leadership(ctx: &mut DecisionContext<'_>, gap: Duration) {
    let exposed = ctx.state.state.is_exposed();
    if ctx.input.epoch <= ctx.state.token.epoch {
        return;
    }
    let highest = ctx.input.nodes.highest_token.unwrap_or_default();
    if ctx.state.rollout.is_none() {
        // a node ahead of the state follows again once the state is sent with a greater token; see `lost_state`
        if highest > hint_token(ctx.state.token) && highest.epoch < ctx.input.epoch {
            ctx.new_token();
        }
        return;
    }
    ctx.new_token();
    if exposed && gap > ctx.input.unsupervised_ttl {
        resupervise(ctx, gap);
    } else {
        if let Some(r) = &mut ctx.state.rollout {
            r.acked_at = None;
            r.all_acked_at = None;
            r.step_evaluations = r.step_evaluations.min(1);
            // the old leader's observations of the nodes are outdated
            r.flags.short_since = None;
            r.flags.unreached_since = None;
        }
        ctx.record_event(
            TransitionKind::NewLeader,
            "another operator replica leads; the rollout continues from the written state",
        );
    }
}

fn acknowledgement(ctx: &mut DecisionContext<'_>) {
    let (now, token) = (ctx.now, ctx.state.token);
    let nodes = &ctx.input.nodes;
    let exposed = ctx.state.state.is_exposed();
    let Some(r) = ctx.state.rollout.as_mut().filter(|_| exposed) else {
        return;
    };
    let enough = nodes.token == token
        && nodes.live > 0
        && r.plan.nodes.min_loaded.reached(nodes.applied, nodes.live);
    if enough && r.acked_at.is_none() {
        r.acked_at = Some(now);
    }
}

/// Counts the evaluation if it is the next one of this rollout. Always returns `false`: it changes no state by itself.
pub(super) fn evaluation(ctx: &mut DecisionContext<'_>) -> bool {
    let Measured::Evaluation(evaluation) = &ctx.input.measured else {
        return false;
    };
    let now = ctx.now;
    if ctx.evaluation.is_some() || !ctx.state.state.is_exposed() {
        return false;
    }
    let Some(r) = &mut ctx.state.rollout else {
        return false;
    };
    let taken = r.analysis.as_ref().map_or(0, |a| a.evaluations);
    if evaluation.number != taken + 1 || evaluation.revision != r.candidate.revision.name {
        return false;
    }
    r.analysis = Some(AnalysisState {
        state: evaluation.analysis.clone(),
        evaluations: evaluation.number,
        evaluated_at: evaluation.at,
    });
    r.flags.unmeasured = None;
    if r.acked_at.is_some_and(|acked| evaluation.at > acked) {
        r.step_evaluations += 1;
        r.step_requests += evaluation.candidate_requests;
    }
    r.quiet_evaluations = if evaluation.candidate_requests == 0 {
        r.quiet_evaluations + 1
    } else {
        0
    };
    super::holds::shared(&mut r.flags, evaluation, now);
    ctx.state.evidence_summary = Some(evaluation.evidence_summary.clone());
    super::desired::count_step(&mut ctx.state);
    if ctx
        .state
        .set_stable_health(evaluation.stable_health.clone())
    {
        ctx.write();
    }
    ctx.evaluation = Some(evaluation);
    false
}

/// Row 34: sends the split again if nodes were without contact for so long that they returned to stable.
pub(super) fn contact(ctx: &mut DecisionContext<'_>) -> bool {
    let nodes = &ctx.input.nodes;
    let ttl = ctx.input.unsupervised_ttl;
    let (now, token, exposed) = (ctx.now, ctx.state.token, ctx.state.state.is_exposed());
    let Some(r) = &mut ctx.state.rollout else {
        return false;
    };
    if nodes.live == 0 {
        r.flags.unreached_since = r.flags.unreached_since.or(Some(now));
        return false;
    }
    let away = r
        .flags
        .unreached_since
        .take()
        .map_or(Duration::ZERO, |t| since(t, now));
    let most_left = nodes.token == token
        && r.acked_at.is_some()
        && !r
            .plan
            .nodes
            .min_loaded
            .reached(nodes.live.saturating_sub(nodes.returned), nodes.live);
    if !exposed || (away <= ttl && !most_left) {
        return false;
    }
    resupervise(ctx, away.max(ttl));
    true
}

fn resupervise(ctx: &mut DecisionContext<'_>, away: Duration) {
    ctx.new_token();
    let (now, state) = (ctx.now, ctx.state.state);
    if let Some(r) = &mut ctx.state.rollout {
        r.step_started_at = now;
        r.active = Duration::ZERO;
        r.acked_at = None;
        r.all_acked_at = None;
        r.step_evaluations = 0;
        r.step_requests = 0;
        r.flags.short_since = None;
        let what = if state == State::Baking {
            "bake"
        } else {
            "step"
        };
        let text = format!(
            "nodes were without contact for {} and had returned to stable; {} is sent again and the {what} starts over",
            crate::rollout::format::span(away),
            r.weight,
        );
        ctx.record_event(TransitionKind::Resupervised, text);
    }
}

/// Row 37: the status was lost, or is older than what most nodes have acknowledged. Restores stable; no rollout proceeds
/// without a person. The report of one node is not enough, because it could reset every function that is placed on it.
pub(super) fn lost_state(ctx: &mut DecisionContext<'_>) -> bool {
    let input = ctx.input;
    let highest = input.nodes.highest_token.unwrap_or_default();
    let ours = ctx.state.token;
    // a leader that crashed between hint and write leaves the token in between
    let most = input.nodes.ahead.saturating_mul(2) > input.nodes.live;
    let older = highest > hint_token(ours) && most;
    let blank = ours == FencingToken::default()
        && ctx.state.stable.is_none()
        && ctx.state.rollout.is_none();
    let lost = older || (blank && ctx.state.state == State::Idle && input.promoted.is_some());
    if !lost {
        return false;
    }
    let placed = ctx.state.stable.as_ref().map(|s| s.revision.clone());
    let stable = input.promoted.clone().or(placed);
    // numbers are part of the names of Events: those used before the loss must not be used again
    let seconds = u64::try_from(ctx.now.as_second()).unwrap_or(0);
    let transitions = ctx.state.transitions.max(if blank { seconds } else { 0 });
    ctx.state = RolloutState {
        token: FencingToken {
            epoch: input.epoch.max(highest.epoch).max(ours.epoch),
            serial: ours.serial.max(highest.serial) + 2,
        },
        stable: stable.clone().map(|revision| crate::rollout::RevisionRef {
            revision,
            since: ctx.now,
        }),
        history: ctx.before.history.clone(),
        actions: ctx.before.actions.clone(),
        observed_generation: ctx.before.observed_generation,
        // nodes have not acknowledged it with this token
        suspension: if ctx.function.suspend {
            Suspension::Suspending
        } else {
            Suspension::Off
        },
        transitions,
        ..RolloutState::default()
    };
    let Some(stable) = stable else {
        // A function that was deleted and created again under its name: nodes remember the tokens of the deleted one, and
        // follow the new one once it has a greater token. Nothing was lost.
        ctx.write();
        return true;
    };
    let name = stable.name;
    let target = ctx.function.target().filter(|(w, _)| w.name != name);
    let text = if target.is_none() {
        format!("status was lost; {name} serves as stable")
    } else {
        format!("status was lost; {name} serves as stable and the rollout waits for `resume`")
    };
    if let Some((desired, policy)) = target {
        super::desired::start(ctx, desired.clone(), policy, PlanKind::Rollout, 1);
        let (since, by, reason) = (ctx.now, "operator".into(), "StateLost".into());
        if let Some(r) = &mut ctx.state.rollout {
            r.flags.paused = Some(Paused { since, by, reason });
        }
    }
    ctx.record_event(TransitionKind::StateLost, text);
    true
}

/// The last leader ended between a hint and the write of its decision: nodes act on a lower weight than the state has, and the
/// reason is lost. The candidate gets no requests again without a person. Decisions that follow again from the same facts,
/// such as an action or a changed spec, come first.
pub(super) fn unrecorded(ctx: &mut DecisionContext<'_>) -> bool {
    let token = ctx.before.token;
    let new_leader = ctx.input.epoch > token.epoch;
    let hinted = ctx.input.nodes.highest_token == Some(hint_token(token));
    if !new_leader || !hinted || !ctx.state.state.is_exposed() {
        return false;
    }
    super::desired::close_step(ctx, PassedBy::Lowered);
    let (since, name) = (ctx.now, ctx.candidate());
    ctx.begin(State::Queued, |r| {
        r.step = 0;
        r.flags.paused = Some(Paused {
            since,
            by: "operator".into(),
            reason: "StateLost".into(),
        });
    });
    let text = format!(
        "the last operator replica lowered the weight of {name} and could not record why; it gets no requests until `resume`"
    );
    ctx.record_event(TransitionKind::StateLost, text);
    true
}
