//! The error backstop lowers the weight by one step.

use super::context::DecisionContext;
use super::rollback::reject;
use super::{desired, holds};
use crate::rollout::{BackstopHold, State, TransitionKind, Weight, format};

/// Number of times the backstop may be reached before only the action `resume` lets the weight rise again.
const MAX_BACKSTOPS: u32 = 3;

/// Row 16: too many of the candidate's requests fail, and the comparison with stable has not decided. Lowers the weight by
/// one step, so that stable has more requests to compare with.
pub(super) fn apply(ctx: &mut DecisionContext<'_>) -> bool {
    if !ctx.evaluation.is_some_and(|l| l.backstop) {
        return false;
    }
    ctx.evaluation = None;
    let now = ctx.now;
    let (state, Some(r)) = (ctx.state.state, &mut ctx.state.rollout) else {
        return false;
    };
    let steps = r.plan.steps.len();
    if steps == 0 && r.plan.final_weight() == Weight::FULL {
        let text =
            "too many of the candidate's requests fail, and stable has no requests to compare with"
                .to_owned();
        reject(
            ctx,
            TransitionKind::BackstopRollback,
            "TotalErrors",
            Some(text),
            None,
        );
        return true;
    }
    r.backstops += 1;
    r.flags.backstop = Some(BackstopHold {
        since: now,
        until_action: r.backstops >= MAX_BACKSTOPS,
    });
    let from = r.weight;
    let down = match state {
        State::Baking => steps.checked_sub(1),
        _ => r.step.checked_sub(1),
    };
    if let Some(step) = down {
        desired::close_step(ctx, crate::rollout::PassedBy::Lowered);
        ctx.begin(State::Stepping, |r| {
            r.step = step;
            r.weight = r.plan.weight(step);
        });
    }
    let Some(r) = &ctx.state.rollout else {
        return true;
    };
    let share = if down.is_some() {
        format!("from {from} to {}", r.weight)
    } else {
        format!("stays at {from}")
    };
    let wait = if r.backstops >= MAX_BACKSTOPS {
        "until a person requests `resume`".into()
    } else {
        format!("for {}", format::span(holds::BACKSTOP_HOLD))
    };
    let text = format!(
        "too many of the candidate's requests fail, and the comparison with stable has not decided: the weight goes {share} and is held {wait}"
    );
    let text = text.replace("goes stays", "stays");
    holds::set(
        ctx,
        crate::rollout::HoldReason::TotalErrors,
        holds::backstop_text(ctx),
    );
    ctx.record_event(TransitionKind::BackstopReached, text);
    true
}
