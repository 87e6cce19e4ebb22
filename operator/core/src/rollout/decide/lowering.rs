//! Whatever lowers a share: verdicts, deadlines that the user wants to end so, the brake.

use super::context::DecisionContext;
use super::{holds, desired};
use crate::rollout::decision::since;
use crate::rollout::message::decisive;
use crate::rollout::action_lines::verb_line;
use crate::rollout::{
    BackstopHold, Fallback, Outcome, Rejected, State, TransitionKind, Verdict, Weight, words,
};

/// After so many brakes only a person lets the share rise again.
const MOST_BRAKES: u32 = 3;

/// Row 14: the tests say Bad. Neither a pause nor a hold nor a gate delays it.
pub(super) fn bad(turn: &mut DecisionContext<'_>) -> bool {
    let Some(Verdict::Bad { reason }) = turn.look.map(|l| l.verdict.clone()) else {
        return false;
    };
    reject(turn, TransitionKind::CheckBad, &reason, None, None);
    true
}

/// Rows 18 and 19, where the user wants a rollback rather than a hold; a step that is good at this very look was taken before.
pub(super) fn overdue(turn: &mut DecisionContext<'_>) -> bool {
    let Some(r) = turn
        .state
        .rollout
        .as_ref()
        .filter(|_| turn.state.state.is_exposed())
    else {
        return false;
    };
    let analysis = &r.plan.analysis;
    if let Some(u) = &r.flags.unmeasured
        && analysis.on_unknown == Fallback::Rollback
        && since(u.since, turn.now) >= analysis.max_unknown
    {
        let what = holds::unmeasured(u.kind);
        let text = format!(
            "{what} for {} ({})",
            words::span(since(u.since, turn.now)),
            u.message
        );
        reject(
            turn,
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
        .filter(|_| turn.state.state == State::Stepping);
    if let Some(s) = step
        && s.on_deadline == Fallback::Rollback
        && r.active >= s.deadline
    {
        let text = format!("the step took longer than {}", words::span(s.deadline));
        reject(
            turn,
            TransitionKind::DeadlineRollback,
            "DeadlineExceeded",
            Some(text),
            None,
        );
        return true;
    }
    false
}

/// Everybody back to stable; the candidate is not tried again by itself. `text` replaces the decisive figures.
pub(super) fn reject(
    turn: &mut DecisionContext<'_>,
    kind: TransitionKind,
    reason: &str,
    text: Option<String>,
    by: Option<String>,
) {
    let Some(r) = &turn.state.rollout else { return };
    let (revision, attempt, weight) = (r.candidate.revision.clone(), r.attempt, r.weight);
    let exposed = turn.state.state.is_exposed();
    let verb = if by.is_some() {
        "aborted"
    } else {
        "rolled back"
    };
    let from = if exposed {
        format!(" from {weight}{}", after(turn))
    } else {
        " before it got any request".into()
    };
    let why = text.unwrap_or_else(|| decisive(&turn.state).unwrap_or_default());
    let who = words::through(by.as_deref().unwrap_or_default());
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
    let told = format!("{verb}{who}{from}{reasoned}{colon}.");
    let outcome = if by.is_some() {
        Outcome::Aborted
    } else {
        Outcome::RolledBack
    };
    desired::end(turn, outcome, reason, by, told.clone());
    turn.state.superseded = 0;
    turn.state.previous.take_if(|p| p.revision == revision);
    turn.state.state = if turn.state.stable.is_some() {
        State::RolledBack
    } else {
        State::Failed
    };
    turn.state.rejected = Some(Rejected {
        revision,
        reason: reason.into(),
        message: told.clone(),
        at: turn.now,
        attempt,
    });
    let again = verb_line(turn.function, &turn.state, crate::function::Action::Retry);
    turn.tell(kind, format!("{told} Again: {again}"));
    turn.settle();
}

/// ` after 11 requests in 10 s`, over the whole time in which the candidate got requests.
fn after(turn: &DecisionContext<'_>) -> String {
    let requests = turn
        .state
        .figures
        .as_ref()
        .map_or(0, |f| f.candidate.requests);
    let exposed = turn.state.steps.first().map_or(turn.now, |s| s.started_at);
    format!(
        " after {} in {}",
        words::requests(requests),
        words::span(since(exposed, turn.now))
    )
}

/// Row 16: the errors of all traffic are too many, and no verdict says whose they are. One step down.
pub(super) fn brake(turn: &mut DecisionContext<'_>) -> bool {
    if !turn.look.is_some_and(|l| l.brake) {
        return false;
    }
    turn.look = None;
    let now = turn.now;
    let (state, Some(r)) = (turn.state.state, &mut turn.state.rollout) else {
        return false;
    };
    let steps = r.plan.steps.len();
    if steps == 0 && r.plan.final_weight() == Weight::FULL {
        let text = "too many requests fail, and stable keeps no share to compare with".to_owned();
        reject(turn, TransitionKind::BackstopRollback, "TotalErrors", Some(text), None);
        return true;
    }
    r.backstops += 1;
    r.flags.brake = Some(BackstopHold {
        since: now,
        until_verb: r.backstops >= MOST_BRAKES,
    });
    let from = r.weight;
    let down = match state {
        State::Baking => steps.checked_sub(1),
        _ => r.step.checked_sub(1),
    };
    if let Some(step) = down {
        desired::close_step(turn, crate::rollout::PassedBy::Lowered);
        turn.begin(State::Stepping, |r| {
            r.step = step;
            r.weight = r.plan.weight(step);
        });
    }
    let Some(r) = &turn.state.rollout else {
        return true;
    };
    let share = if down.is_some() {
        format!("from {from} to {}", r.weight)
    } else {
        format!("stays at {from}")
    };
    let wait = if r.backstops >= MOST_BRAKES {
        "until a person says `resume`".into()
    } else {
        format!("for {}", words::span(holds::BRAKE))
    };
    let text = format!(
        "too many requests fail, on whichever revision: the share goes {share} and is held {wait}"
    );
    let text = text.replace("goes stays", "stays");
    holds::set(
        turn,
        crate::rollout::HoldReason::TotalErrors,
        holds::braked_text(turn),
    );
    turn.tell(TransitionKind::BackstopReached, text);
    true
}
