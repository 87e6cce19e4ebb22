//! Holds: the weight does not rise for a named reason other than evidence. Each hold begins and ends with one Event.

use std::time::Duration;

use jiff::Timestamp;

use super::context::DecisionContext;
use crate::rollout::decision::{later, since};
use crate::rollout::{
    Evaluation, Fallback, Flags, Hold, HoldReason, Rollout, SharedFailure, State, TransitionKind,
    UnmeasuredKind, WaitingFor, format,
};

/// Time without usable samples after which a rollout is held.
const UNMEASURED_GRACE: Duration = Duration::from_secs(60);
/// Time that nodes have to acknowledge a weight, or to reconnect, before they cause a hold.
const NODES_GRACE: Duration = Duration::from_secs(30);
/// Duration of the hold after the error backstop was reached.
pub(super) const BACKSTOP_HOLD: Duration = Duration::from_secs(300);
/// Time for which stable must meet its objective before a shared failure ends.
const SHARED_OVER: Duration = Duration::from_secs(300);

/// Rows 8, 18 to 22 and 35: sets, changes or clears the hold. Returns whether it changed.
pub(super) fn refresh(ctx: &mut DecisionContext<'_>) -> bool {
    let now = ctx.now;
    nodes_short(ctx);
    let Some(r) = &mut ctx.state.rollout else {
        return false;
    };
    r.flags
        .backstop
        .take_if(|b| !b.until_action && since(b.since, now) >= BACKSTOP_HOLD);
    let held = r.flags.hold.as_ref().map(|h| h.reason);
    match (cause(ctx), held) {
        (None, None) => false,
        (None, Some(reason)) => {
            if let Some(r) = &mut ctx.state.rollout {
                let hold = r.flags.hold.take();
                let time = hold.map_or(Duration::ZERO, |h| since(h.since, now));
                let text = format!(
                    "the hold is over ({}, {})",
                    reason.as_str(),
                    format::span(time)
                );
                ctx.record_event(TransitionKind::Resumed, text);
            }
            true
        }
        (Some((reason, message)), _) => {
            let new = held != Some(reason);
            set(ctx, reason, message.clone());
            // the backstop was reported when it was reached, even if another reason applied in between
            if new && reason != HoldReason::TotalErrors {
                ctx.record_event(TransitionKind::of_hold(reason), format!("held: {message}"));
            }
            new
        }
    }
}

/// Sets the hold. Its begin stays if the reason is the same.
pub(super) fn set(ctx: &mut DecisionContext<'_>, reason: HoldReason, message: String) {
    let now = ctx.now;
    if let Some(r) = &mut ctx.state.rollout {
        let since = r
            .flags
            .hold
            .as_ref()
            .filter(|h| h.reason == reason)
            .map_or(now, |h| h.since);
        r.flags.hold = Some(Hold {
            reason,
            since,
            message,
        });
    }
}

fn nodes_short(ctx: &mut DecisionContext<'_>) {
    let now = ctx.now;
    let followed = ctx.follows();
    let watched = matches!(
        ctx.state.state,
        State::Queued | State::Stepping | State::Baking
    );
    if let Some(r) = &mut ctx.state.rollout {
        match (watched, followed) {
            (true, false) => r.flags.short_since = r.flags.short_since.or(Some(now)),
            _ => r.flags.short_since = None,
        }
    }
}

/// Returns the first reason that applies, and its message.
fn cause(ctx: &DecisionContext<'_>) -> Option<(HoldReason, String)> {
    let r = ctx.state.rollout.as_ref()?;
    HoldReason::ALL
        .into_iter()
        .find_map(|reason| text(ctx, r, reason).map(|t| (reason, t)))
}

fn text(ctx: &DecisionContext<'_>, r: &Rollout, reason: HoldReason) -> Option<String> {
    let (now, flags, exposed) = (ctx.now, &r.flags, ctx.state.state.is_exposed());
    match reason {
        HoldReason::Suspended => ctx
            .function
            .suspend
            .then(|| "the function is suspended".into()),
        HoldReason::NoNodes => no_nodes(ctx, flags),
        HoldReason::TotalErrors => flags.backstop.map(|_| backstop_text(ctx)),
        HoldReason::PrometheusUnavailable => unmeasured_text(ctx, r, UnmeasuredKind::NoAnswer),
        HoldReason::SamplesMissing => unmeasured_text(ctx, r, UnmeasuredKind::NothingUsable),
        HoldReason::SharedFailure => flags.shared.as_ref().map(|s| s.message.clone()),
        HoldReason::NodesNotReady => {
            let short = flags
                .short_since
                .is_some_and(|t| since(t, now) >= NODES_GRACE);
            short.then(|| crate::rollout::message::nodes_behind(&ctx.state))
        }
        // what a node cannot answer with one of the revisions is counted for the other one, or for none
        HoldReason::ShareMismatch if !ctx.both_loaded() => None,
        HoldReason::ShareMismatch => match ctx.evaluation {
            Some(evaluation) => evaluation.share_mismatch.clone(),
            None => flags
                .hold
                .as_ref()
                .filter(|h| exposed && h.reason == reason)
                .map(|h| h.message.clone()),
        },
        HoldReason::LoadDeadlineExceeded => load_deadline(ctx, r),
        HoldReason::DeadlineExceeded => {
            let step = r
                .plan
                .steps
                .get(r.step)
                .filter(|_| ctx.state.state == State::Stepping)?;
            let over = r.active >= step.deadline && step.on_deadline == Fallback::Hold;
            over.then(|| {
                format!(
                    "the step has taken longer than {}; the evaluation continues",
                    format::span(step.deadline)
                )
            })
        }
    }
}

fn no_nodes(ctx: &DecisionContext<'_>, flags: &Flags) -> Option<String> {
    let desired = ctx.input.nodes.desired;
    // a leader that has just started has no reports of nodes yet
    let since_when = flags
        .unreached_since
        .filter(|_| ctx.input.nodes.live == 0)?;
    (since(since_when, ctx.now) >= NODES_GRACE).then(|| match desired {
        0 => "no node matches the placement".into(),
        _ => format!("none of {desired} nodes can be reached"),
    })
}

fn load_deadline(ctx: &DecisionContext<'_>, r: &Rollout) -> Option<String> {
    let nodes = &r.plan.nodes;
    let over = ctx.state.state == State::Loading
        && r.active >= nodes.load_deadline
        && nodes.on_load_deadline == Fallback::Hold
        && !ctx.loaded();
    over.then(|| {
        let behind = crate::rollout::message::nodes_behind(&ctx.state);
        format!(
            "{behind}, after {}; they keep trying",
            format::span(nodes.load_deadline)
        )
    })
}

fn unmeasured_text(ctx: &DecisionContext<'_>, r: &Rollout, kind: UnmeasuredKind) -> Option<String> {
    let u = r
        .flags
        .unmeasured
        .as_ref()
        .filter(|u| u.kind == kind && ctx.state.state.is_exposed())?;
    let time = since(u.since, ctx.now);
    let share = r.weight;
    (time >= UNMEASURED_GRACE).then(|| {
        let what = unmeasured(kind);
        let analysis = &r.plan.analysis;
        let end = match analysis.on_unknown {
            Fallback::Hold => "nothing is rolled back for this".to_owned(),
            Fallback::Rollback => format!(
                "after {} without usable samples it is rolled back",
                format::span(analysis.max_unknown)
            ),
        };
        format!(
            "{what} for {} ({}). The weight stays at {share}; {end}",
            format::span(time),
            u.message
        )
    })
}

/// Message of a hold of the error backstop.
pub(super) fn backstop_text(ctx: &DecisionContext<'_>) -> String {
    let until_action = ctx
        .state
        .rollout
        .as_ref()
        .and_then(|r| r.flags.backstop)
        .is_some_and(|b| b.until_action);
    let end = if until_action {
        "only `resume` ends this".to_owned()
    } else {
        format!("it may rise again after {}", format::span(BACKSTOP_HOLD))
    };
    format!(
        "too many of the candidate's requests fail, and the comparison with stable has not decided; {end}"
    )
}

/// Main clause that says how samples are missing.
pub(super) const fn unmeasured(kind: UnmeasuredKind) -> &'static str {
    match kind {
        UnmeasuredKind::NoAnswer => "Prometheus has not answered",
        UnmeasuredKind::NothingUsable => "there have been no usable samples",
    }
}

/// Updates the shared failure from an evaluation.
pub(super) fn shared(flags: &mut Flags, evaluation: &Evaluation, now: Timestamp) {
    if let Some(message) = &evaluation.shared_failure {
        let since = flags.shared.as_ref().map_or(now, |s| s.since);
        flags.shared = Some(SharedFailure {
            since,
            stable_ok_since: None,
            message: message.clone(),
        });
    } else if let Some(s) = &mut flags.shared {
        s.stable_ok_since = if evaluation.stable_meets_slo {
            s.stable_ok_since.or(Some(now))
        } else {
            None
        };
        if s.stable_ok_since
            .is_some_and(|t| since(t, now) >= SHARED_OVER)
        {
            flags.shared = None;
        }
    }
}

/// Whether a pause or a hold stops the weight from rising. A deadline alone does not.
pub(super) fn blocks(flags: &Flags) -> bool {
    flags.paused.is_some()
        || flags
            .hold
            .as_ref()
            .is_some_and(|h| h.reason != HoldReason::DeadlineExceeded)
}

/// Times at which a hold could begin or end.
pub(super) fn limits(r: &Rollout) -> Vec<Timestamp> {
    let f = &r.flags;
    let mut times = Vec::new();
    if let Some(u) = &f.unmeasured {
        times.push(later(u.since, UNMEASURED_GRACE));
        times.push(later(u.since, r.plan.analysis.max_unknown));
    }
    times.extend(
        [f.short_since, f.unreached_since]
            .into_iter()
            .flatten()
            .map(|t| later(t, NODES_GRACE)),
    );
    times.extend(
        f.backstop
            .filter(|b| !b.until_action)
            .map(|b| later(b.since, BACKSTOP_HOLD)),
    );
    times
}

/// Sets the conditions that the rollout waits for, in a fixed order.
pub(super) fn wait(ctx: &mut DecisionContext<'_>, mut waiting: Vec<WaitingFor>) {
    waiting.sort_unstable();
    waiting.dedup();
    if let Some(r) = &mut ctx.state.rollout {
        // an edited gate or another step can make the approval unnecessary
        let asked = waiting.contains(&WaitingFor::Approval);
        r.flags.approval_requested_at = r.flags.approval_requested_at.filter(|_| asked);
        r.flags.waiting_for = waiting;
    }
}
