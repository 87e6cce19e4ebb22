//! Changes of the desired revision: rollouts start, and end without a verdict.

use std::time::Duration;

use super::context::DecisionContext;
use crate::function::Revision;
use crate::rollout::history::record;
use crate::rollout::{
    Flags, GateAt, HistoryEntry, Outcome, PassedBy, Plan, PlanKind, Policy, RevisionRef, Rollout,
    RolloutState, State, TransitionKind, WaitingFor, Weight,
};

/// Rows 1, 4, 5, 24, 25 and 28: a changed desired revision takes effect in every state.
pub(super) fn changed(ctx: &mut DecisionContext<'_>) -> bool {
    let Some((desired, policy)) = ctx.function.target() else {
        return abandon(ctx);
    };
    let stable = ctx
        .state
        .stable
        .as_ref()
        .is_some_and(|s| s.revision.name == desired.name);
    let rejected = ctx
        .state
        .rejected
        .as_ref()
        .is_some_and(|r| r.revision.name == desired.name);
    match ctx.state.state {
        State::Loading | State::Queued | State::Stepping | State::Baking => {
            if ctx.candidate() == desired.name {
                return false;
            }
            if stable {
                withdraw(ctx)
            } else {
                supersede(ctx, desired, policy)
            }
        }
        State::Idle if stable => {
            ctx.state.superseded = 0;
            return false;
        }
        State::RolledBack | State::Failed if rejected => return false,
        State::RolledBack | State::Failed if stable => {
            let text = match ctx.state.rejected.take() {
                Some(r) => format!(
                    "spec asks for {} again, {} is no longer rolled out",
                    desired.name, r.revision.name
                ),
                None => format!("spec asks for {} again", desired.name),
            };
            ctx.state.state = State::Idle;
            ctx.record_event(TransitionKind::Withdrawn, text);
        }
        State::Idle | State::RolledBack | State::Failed => begin(ctx, desired, policy),
    }
    true
}

/// Begins a rollout from a state without one.
fn begin(ctx: &mut DecisionContext<'_>, desired: &Revision, policy: &Policy) {
    let kind = kind(ctx, desired, policy);
    let stable = ctx
        .state
        .stable
        .as_ref()
        .map(|s| s.revision.name.clone())
        .unwrap_or_default();
    let name = desired.name.clone();
    start(ctx, desired.clone(), policy, kind, 1);
    match kind {
        PlanKind::First => ctx.record_event(
            TransitionKind::FirstStarted,
            format!("{name} is the first revision; nodes load it"),
        ),
        PlanKind::Rollout => {
            ctx.record_event(
                TransitionKind::Started,
                format!("{name} is to replace {stable}; nodes load it"),
            );
        }
        PlanKind::Revert => ctx.record_event(
            TransitionKind::RevertStarted,
            format!(
                "back from {stable} to {name}, which was stable recently: no steps, then the bake"
            ),
        ),
    }
}

/// Kind of the rollout to the desired revision.
fn kind(ctx: &DecisionContext<'_>, desired: &Revision, policy: &Policy) -> PlanKind {
    let recent = policy.revert.revisions > 0
        && ctx
            .state
            .previous
            .as_ref()
            .is_some_and(|p| p.revision.name == desired.name && ctx.now < p.until);
    match &ctx.state.stable {
        None => PlanKind::First,
        Some(_) if recent => PlanKind::Revert,
        Some(_) => PlanKind::Rollout,
    }
}

/// Begins a rollout with a frozen plan and without evidence. The weight is 0, except for a first revision without Start gates.
pub(super) fn start(
    ctx: &mut DecisionContext<'_>,
    desired: Revision,
    policy: &Policy,
    kind: PlanKind,
    attempt: u32,
) {
    let now = ctx.now;
    let plan = Plan::freeze(policy, kind);
    // without a stable revision there is nothing to protect: nodes serve it as soon as they have loaded it, unless a gate applies
    let ungated = !plan.gates.iter().any(|g| g.at == GateAt::Start);
    let weight = if kind == PlanKind::First && ungated {
        Weight::FULL
    } else {
        Weight::ZERO
    };
    let s = &mut ctx.state;
    s.rejected = None;
    s.evidence_summary = None;
    s.steps.clear();
    for v in &mut s.actions {
        v.bare = false;
    }
    s.rollout = Some(Rollout {
        candidate: RevisionRef {
            revision: desired,
            since: now,
        },
        attempt,
        plan,
        step: 0,
        weight,
        started_at: now,
        step_started_at: now,
        active: Duration::ZERO,
        clock_at: now,
        acked_at: None,
        all_acked_at: None,
        step_evaluations: 0,
        step_requests: 0,
        quiet_evaluations: 0,
        approved: Vec::new(),
        flags: Flags::default(),
        backstops: 0,
        analysis: None,
        checkpoint_at: now,
    });
    s.state = State::Loading;
    ctx.evaluation = None;
    ctx.new_token();
    ctx.count_nodes();
}

fn supersede(ctx: &mut DecisionContext<'_>, desired: &Revision, policy: &Policy) {
    let (old, new) = (ctx.candidate(), desired.name.clone());
    let ended = end(
        ctx,
        Outcome::Superseded,
        "Superseded",
        None,
        format!("spec asked for {new} instead"),
    );
    ctx.state.superseded += 1;
    let kind = kind(ctx, desired, policy);
    start(ctx, desired.clone(), policy, kind, 1);
    let from = ended.map_or(Weight::ZERO, |e| e.final_weight);
    ctx.record_event(
        TransitionKind::Superseded,
        format!("{new} replaces {old} as the desired revision; {old} goes from {from} to 0 %"),
    );
}

/// Row 24 before the new revision is known: the spec no longer asks for the candidate. Without a stable revision there is
/// nothing to return to, so the first revision continues to serve until the new one is known.
fn abandon(ctx: &mut DecisionContext<'_>) -> bool {
    let old = ctx.candidate();
    let live = ctx.state.state.is_live() && ctx.state.stable.is_some();
    if !live || ctx.function.abandoned.as_ref() != Some(&old) {
        return false;
    }
    let ended = end(
        ctx,
        Outcome::Superseded,
        "Superseded",
        None,
        "spec no longer asked for it".into(),
    );
    ctx.state.superseded += 1;
    ctx.state.state = State::Idle;
    let from = ended.map_or(Weight::ZERO, |e| e.final_weight);
    ctx.record_event(
        TransitionKind::Abandoned,
        format!(
            "spec no longer asks for {old}, which goes from {from} to 0 %; what it asks for now is not known yet"
        ),
    );
    ctx.settle();
    true
}

/// Returns [`WaitingFor::Spec`] while the desired revision is not known, so that no weight rises.
pub(super) fn unknown(ctx: &DecisionContext<'_>) -> Option<WaitingFor> {
    ctx.function.target().is_none().then_some(WaitingFor::Spec)
}

fn withdraw(ctx: &mut DecisionContext<'_>) {
    let old = ctx.candidate();
    let stable = ctx
        .state
        .stable
        .as_ref()
        .map(|s| s.revision.name.clone())
        .unwrap_or_default();
    let ended = end(
        ctx,
        Outcome::Withdrawn,
        "Withdrawn",
        None,
        format!("spec asked for {stable} again"),
    );
    ctx.state.superseded = 0;
    ctx.state.state = State::Idle;
    let from = ended.map_or(Weight::ZERO, |e| e.final_weight);
    ctx.record_event(
        TransitionKind::Withdrawn,
        format!("spec asks for {stable} again; {old} goes from {from} to 0 %"),
    );
    ctx.settle();
}

/// Ends the running rollout and adds it to the history. Returns the new entry.
pub(super) fn end(
    ctx: &mut DecisionContext<'_>,
    outcome: Outcome,
    reason: &str,
    by: Option<String>,
    message: String,
) -> Option<HistoryEntry> {
    close_step(
        ctx,
        if outcome == Outcome::Promoted {
            PassedBy::Time
        } else {
            PassedBy::Lowered
        },
    );
    let exposed = ctx.state.state.is_exposed();
    ctx.evaluation = None;
    let r = ctx.state.rollout.take()?;
    let entry = HistoryEntry {
        revision: r.candidate.revision,
        attempt: r.attempt,
        outcome,
        reason: reason.into(),
        started_at: r.started_at,
        finished_at: ctx.now,
        final_weight: match outcome {
            Outcome::Promoted => Weight::FULL,
            _ if exposed => r.weight,
            _ => Weight::ZERO,
        },
        by: by.filter(|b| !b.is_empty()),
        message,
        decisive: ctx
            .state
            .evidence_summary
            .as_ref()
            .and_then(|f| f.decisive.clone()),
    };
    record(&mut ctx.state.history, entry.clone());
    Some(entry)
}

/// Closes the open step, if any.
pub(super) fn close_step(ctx: &mut DecisionContext<'_>, by: PassedBy) {
    count_step(&mut ctx.state);
    if let Some(step) = ctx.state.steps.last_mut().filter(|s| s.ended_at.is_none()) {
        step.ended_at = Some(ctx.now);
        step.passed_by = Some(by);
    }
}

/// Counts both revisions in the open step, if any: the totals of the rollout minus the counts of the earlier steps.
pub(super) fn count_step(state: &mut RolloutState) {
    let sums = state
        .evidence_summary
        .as_ref()
        .map(|f| (f.candidate, f.stable));
    let (mut candidate, mut stable) = sums.unwrap_or_default();
    let Some((step, earlier)) = state.steps.split_last_mut() else {
        return;
    };
    for before in earlier {
        candidate = candidate.without(before.candidate);
        stable = stable.without(before.stable);
    }
    if step.ended_at.is_none() {
        (step.candidate, step.stable) = (candidate, stable);
    }
}

/// Row 38: nodes may unload the previous stable revision.
pub(super) fn previous_expired(ctx: &mut DecisionContext<'_>) -> bool {
    if ctx.state.rollout.is_some() {
        return false;
    }
    let now = ctx.now;
    let Some(previous) = ctx.state.previous.take_if(|p| p.until <= now) else {
        return false;
    };
    let text = format!(
        "nodes may unload {}: its revert window is over",
        previous.revision.name
    );
    ctx.record_event(TransitionKind::PreviousExpired, text);
    ctx.settle();
    true
}
