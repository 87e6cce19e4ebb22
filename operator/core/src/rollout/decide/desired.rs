//! Another wish: rollouts start, end without a verdict, and forget.

use std::time::Duration;

use super::context::DecisionContext;
use crate::function::Revision;
use crate::rollout::history::record;
use crate::rollout::{
    Flags, GateAt, HistoryEntry, Outcome, PassedBy, RevisionRef, Plan, PlanKind, Rollout, RolloutState,
    State, TransitionKind, WaitingFor, Weight, words,
};

/// Rows 1, 4, 5, 24, 25 and 28: a changed wish wins in every state.
pub(super) fn changed(turn: &mut DecisionContext<'_>) -> bool {
    let Some(wish) = turn.function.desired.clone() else {
        return abandon(turn);
    };
    let stable = turn
        .state
        .stable
        .as_ref()
        .is_some_and(|s| s.revision.name == wish.name);
    let rejected = turn
        .state
        .rejected
        .as_ref()
        .is_some_and(|r| r.revision.name == wish.name);
    match turn.state.state {
        State::Loading | State::Queued | State::Stepping | State::Baking => {
            if turn.candidate() == wish.name {
                return false;
            }
            if stable {
                withdraw(turn)
            } else {
                supersede(turn, wish)
            }
        }
        State::Idle if stable => {
            turn.state.superseded = 0;
            return false;
        }
        State::RolledBack | State::Failed if rejected => return false,
        State::RolledBack | State::Failed if stable => {
            let text = match turn.state.rejected.take() {
                Some(r) => format!(
                    "{} is wished again, {} is given up",
                    wish.name, r.revision.name
                ),
                None => format!("{} is wished again", wish.name),
            };
            turn.state.state = State::Idle;
            turn.tell(TransitionKind::Withdrawn, text);
        }
        State::Idle | State::RolledBack | State::Failed => begin(turn, wish),
    }
    true
}

/// A rollout from rest.
fn begin(turn: &mut DecisionContext<'_>, wish: Revision) {
    let kind = kind(turn, &wish);
    let stable = turn
        .state
        .stable
        .as_ref()
        .map(|s| s.revision.name.clone())
        .unwrap_or_default();
    let name = wish.name.clone();
    start(turn, wish, kind, 1);
    match kind {
        PlanKind::First => turn.tell(TransitionKind::FirstStarted, format!("{name} is the first revision; nodes load it")),
        PlanKind::Full => {
            turn.tell(TransitionKind::Started, format!("{name} is to replace {stable}; nodes load it"));
        }
        PlanKind::Revert => turn.tell(
            TransitionKind::RevertStarted,
            format!("back from {stable} to {name}, which was stable a short while ago: no steps, then the bake"),
        ),
    }
}

/// Which plan a wish gets.
fn kind(turn: &DecisionContext<'_>, wish: &Revision) -> PlanKind {
    let recent = turn.function.policy.revert.revisions > 0
        && turn
            .state
            .previous
            .as_ref()
            .is_some_and(|p| p.revision.name == wish.name && turn.now < p.until);
    match &turn.state.stable {
        None => PlanKind::First,
        Some(_) if recent => PlanKind::Revert,
        Some(_) => PlanKind::Full,
    }
}

/// Begins a rollout at weight 0 with a frozen plan and without any evidence.
pub(super) fn start(turn: &mut DecisionContext<'_>, wish: Revision, kind: PlanKind, attempt: u32) {
    let now = turn.now;
    let plan = Plan::freeze(&turn.function.policy, kind);
    // without a stable there is nothing to protect: nodes serve it as they get it, unless a gate comes first
    let ungated = !plan.gates.iter().any(|g| g.at == GateAt::Start);
    let weight = if kind == PlanKind::First && ungated {
        Weight::FULL
    } else {
        Weight::ZERO
    };
    let s = &mut turn.state;
    s.rejected = None;
    s.figures = None;
    s.steps.clear();
    for v in &mut s.actions {
        v.bare = false;
    }
    s.rollout = Some(Rollout {
        candidate: RevisionRef {
            revision: wish,
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
        step_looks: 0,
        step_requests: 0,
        quiet_looks: 0,
        approved: Vec::new(),
        flags: Flags::default(),
        backstops: 0,
        analysis: None,
        checkpoint_at: now,
    });
    s.state = State::Loading;
    turn.look = None;
    turn.new_pair();
    turn.count_nodes();
}

fn supersede(turn: &mut DecisionContext<'_>, wish: Revision) {
    let (old, new) = (turn.candidate(), wish.name.clone());
    let ended = end(
        turn,
        Outcome::Superseded,
        "Superseded",
        None,
        format!("{new} was wished instead"),
    );
    turn.state.superseded += 1;
    let kind = kind(turn, &wish);
    start(turn, wish, kind, 1);
    let from = ended.map_or(Weight::ZERO, |e| e.final_weight);
    turn.tell(
        TransitionKind::Superseded,
        format!("{new} is wished instead of {old}, which goes from {from} to 0 %"),
    );
}

/// Row 24 before the new revision is known: `spec` asks for something else than the candidate. Without a stable
/// revision there is nothing to return to, so the first revision goes on serving until its successor is known.
fn abandon(turn: &mut DecisionContext<'_>) -> bool {
    let old = turn.candidate();
    let live = turn.state.state.is_live() && turn.state.stable.is_some();
    if !live || turn.function.abandoned.as_ref() != Some(&old) {
        return false;
    }
    let ended = end(
        turn,
        Outcome::Superseded,
        "Superseded",
        None,
        "spec asks for something else".into(),
    );
    turn.state.superseded += 1;
    turn.state.state = State::Idle;
    let from = ended.map_or(Weight::ZERO, |e| e.final_weight);
    turn.tell(
        TransitionKind::Abandoned,
        format!(
            "spec no longer asks for {old}, which goes from {from} to 0 %; what it asks for now is not known yet"
        ),
    );
    turn.settle();
    true
}

/// Whether no share may rise, because it is not known which revision `spec` asks for.
pub(super) fn unknown(turn: &DecisionContext<'_>) -> Option<WaitingFor> {
    turn.function.desired.is_none().then_some(WaitingFor::Spec)
}

fn withdraw(turn: &mut DecisionContext<'_>) {
    let old = turn.candidate();
    let stable = turn
        .state
        .stable
        .as_ref()
        .map(|s| s.revision.name.clone())
        .unwrap_or_default();
    let ended = end(
        turn,
        Outcome::Withdrawn,
        "Withdrawn",
        None,
        format!("{stable} was wished again"),
    );
    turn.state.superseded = 0;
    turn.state.state = State::Idle;
    let from = ended.map_or(Weight::ZERO, |e| e.final_weight);
    turn.tell(
        TransitionKind::Withdrawn,
        format!("{stable} is wished again; {old} goes from {from} to 0 %"),
    );
    turn.settle();
}

/// Ends the running rollout and writes its line of history.
pub(super) fn end(
    turn: &mut DecisionContext<'_>,
    outcome: Outcome,
    reason: &str,
    by: Option<String>,
    message: String,
) -> Option<HistoryEntry> {
    close_step(
        turn,
        if outcome == Outcome::Promoted {
            PassedBy::Time
        } else {
            PassedBy::Lowered
        },
    );
    let exposed = turn.state.state.is_exposed();
    turn.look = None;
    let r = turn.state.rollout.take()?;
    let entry = HistoryEntry {
        revision: r.candidate.revision,
        attempt: r.attempt,
        outcome,
        reason: reason.into(),
        started_at: r.started_at,
        finished_at: turn.now,
        final_weight: match outcome {
            Outcome::Promoted => Weight::FULL,
            _ if exposed => r.weight,
            _ => Weight::ZERO,
        },
        by: by.filter(|b| !b.is_empty()),
        message,
        decisive: turn.state.figures.as_ref().and_then(|f| f.decisive.clone()),
    };
    record(&mut turn.state.history, entry.clone());
    Some(entry)
}

/// Closes the open step, if any.
pub(super) fn close_step(turn: &mut DecisionContext<'_>, by: PassedBy) {
    count_step(&mut turn.state);
    if let Some(step) = turn.state.steps.last_mut().filter(|s| s.ended_at.is_none()) {
        step.ended_at = Some(turn.now);
        step.passed_by = Some(by);
    }
}

/// What the arms did in the open step, if any: all so far without what they did in the steps before it.
pub(super) fn count_step(state: &mut RolloutState) {
    let sums = state.figures.as_ref().map(|f| (f.candidate, f.stable));
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

/// Row 38: the stable before this one may leave memory.
pub(super) fn previous_expired(turn: &mut DecisionContext<'_>) -> bool {
    if turn.state.rollout.is_some() {
        return false;
    }
    let now = turn.now;
    let Some(previous) = turn.state.previous.take_if(|p| p.until <= now) else {
        return false;
    };
    let age = words::span(turn.function.policy.revert.window);
    let text = format!(
        "{} may leave memory: {age} have passed since it was stable",
        previous.revision.name
    );
    turn.tell(TransitionKind::PreviousExpired, text);
    turn.settle();
    true
}
