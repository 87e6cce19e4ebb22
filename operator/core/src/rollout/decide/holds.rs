//! Holds: the share stays for a named reason other than evidence. Each begins and ends with one event.

use std::time::Duration;

use jiff::Timestamp;

use super::context::DecisionContext;
use crate::rollout::decision::{later, since};
use crate::rollout::{
    Fallback, Flags, Hold, HoldReason, Look, Rollout, Shared, State, TransitionKind,
    UnmeasuredKind, WaitingFor, words,
};

/// Without usable samples for this long a rollout is held.
const UNMEASURED: Duration = Duration::from_secs(60);
/// Nodes get this long to acknowledge a share, or to be heard of again, before they hold a rollout.
const NODES_GRACE: Duration = Duration::from_secs(30);
/// After a brake.
pub(super) const BRAKE: Duration = Duration::from_secs(300);
/// Stable must meet its objective for this long before a shared failure is over.
const SHARED_OVER: Duration = Duration::from_secs(300);

/// Rows 8, 18–22, 35: sets, changes or clears the hold.
pub(super) fn refresh(turn: &mut DecisionContext<'_>) -> bool {
    let now = turn.now;
    nodes_short(turn);
    let Some(r) = &mut turn.state.rollout else {
        return false;
    };
    r.flags
        .brake
        .take_if(|b| !b.until_verb && since(b.since, now) >= BRAKE);
    let held = r.flags.hold.as_ref().map(|h| h.reason);
    match (cause(turn), held) {
        (None, None) => false,
        (None, Some(reason)) => {
            if let Some(r) = &mut turn.state.rollout {
                let hold = r.flags.hold.take();
                let time = hold.map_or(Duration::ZERO, |h| since(h.since, now));
                let text = format!(
                    "the hold is over ({}, {})",
                    reason.as_str(),
                    words::span(time)
                );
                turn.tell(TransitionKind::Resumed, text);
            }
            true
        }
        (Some((reason, message)), _) => {
            let new = held != Some(reason);
            set(turn, reason, message.clone());
            // a brake was told when it happened, also if another reason came between
            if new && reason != HoldReason::TotalErrors {
                turn.tell(TransitionKind::of_hold(reason), format!("held: {message}"));
            }
            new
        }
    }
}

/// Sets the hold, keeping its begin if the reason is the same.
pub(super) fn set(turn: &mut DecisionContext<'_>, reason: HoldReason, message: String) {
    let now = turn.now;
    if let Some(r) = &mut turn.state.rollout {
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

fn nodes_short(turn: &mut DecisionContext<'_>) {
    let now = turn.now;
    let followed = turn.follows();
    let watched = matches!(
        turn.state.state,
        State::Queued | State::Stepping | State::Baking
    );
    if let Some(r) = &mut turn.state.rollout {
        match (watched, followed) {
            (true, false) => r.flags.short_since = r.flags.short_since.or(Some(now)),
            _ => r.flags.short_since = None,
        }
    }
}

/// The first of the reasons that apply.
fn cause(turn: &DecisionContext<'_>) -> Option<(HoldReason, String)> {
    let r = turn.state.rollout.as_ref()?;
    HoldReason::ALL
        .into_iter()
        .find_map(|reason| text(turn, r, reason).map(|t| (reason, t)))
}

fn text(turn: &DecisionContext<'_>, r: &Rollout, reason: HoldReason) -> Option<String> {
    let (now, flags, exposed) = (turn.now, &r.flags, turn.state.state.is_exposed());
    match reason {
        HoldReason::Suspended => turn
            .function
            .suspend
            .then(|| "the function is suspended".into()),
        HoldReason::NoNodes => no_nodes(turn, flags),
        HoldReason::TotalErrors => flags.brake.map(|_| braked_text(turn)),
        HoldReason::PrometheusUnavailable => unmeasured_text(turn, r, UnmeasuredKind::NoAnswer),
        HoldReason::SamplesMissing => unmeasured_text(turn, r, UnmeasuredKind::NothingUsable),
        HoldReason::SharedFailure => flags.shared.as_ref().map(|s| s.message.clone()),
        HoldReason::NodesNotReady => {
            let short = flags
                .short_since
                .is_some_and(|t| since(t, now) >= NODES_GRACE);
            short.then(|| crate::rollout::message::nodes_behind(&turn.state))
        }
        HoldReason::ShareMismatch => match turn.look {
            Some(look) => look.share_mismatch.clone(),
            None => flags
                .hold
                .as_ref()
                .filter(|h| exposed && h.reason == reason)
                .map(|h| h.message.clone()),
        },
        HoldReason::LoadDeadlineExceeded => load_deadline(turn, r),
        HoldReason::DeadlineExceeded => {
            let step = r
                .plan
                .steps
                .get(r.step)
                .filter(|_| turn.state.state == State::Stepping)?;
            let over = r.active >= step.deadline && step.on_deadline == Fallback::Hold;
            over.then(|| {
                format!(
                    "the step has taken longer than {}; evidence goes on",
                    words::span(step.deadline)
                )
            })
        }
    }
}

fn no_nodes(turn: &DecisionContext<'_>, flags: &Flags) -> Option<String> {
    let desired = turn.evidence.nodes.desired;
    // a leader that has just started has not heard of any node yet
    let since_when = flags
        .unreached_since
        .filter(|_| turn.evidence.nodes.live == 0)?;
    (since(since_when, turn.now) >= NODES_GRACE).then(|| match desired {
        0 => "no node matches the placement".into(),
        _ => format!("none of {desired} nodes can be reached"),
    })
}

fn load_deadline(turn: &DecisionContext<'_>, r: &Rollout) -> Option<String> {
    let nodes = &r.plan.nodes;
    let over = turn.state.state == State::Loading
        && r.active >= nodes.load_deadline
        && nodes.on_load_deadline == Fallback::Hold
        && !turn.loaded();
    over.then(|| {
        let behind = crate::rollout::message::nodes_behind(&turn.state);
        format!(
            "{behind}, after {}; they go on trying",
            words::span(nodes.load_deadline)
        )
    })
}

fn unmeasured_text(turn: &DecisionContext<'_>, r: &Rollout, kind: UnmeasuredKind) -> Option<String> {
    let u = r
        .flags
        .unmeasured
        .as_ref()
        .filter(|u| u.kind == kind && turn.state.state.is_exposed())?;
    let time = since(u.since, turn.now);
    let share = r.weight;
    (time >= UNMEASURED).then(|| {
        let what = unmeasured(kind);
        format!(
            "{what} for {} ({}). The share stays at {share}; nothing is rolled back for this",
            words::span(time),
            u.message
        )
    })
}

/// What a brake hold says.
pub(super) fn braked_text(turn: &DecisionContext<'_>) -> String {
    let until_verb = turn
        .state
        .rollout
        .as_ref()
        .and_then(|r| r.flags.brake)
        .is_some_and(|b| b.until_verb);
    let end = if until_verb {
        "only `resume` ends this".to_owned()
    } else {
        format!("it may rise again after {}", words::span(BRAKE))
    };
    format!("too many requests fail, on whichever revision; {end}")
}

/// How samples are missing, as the subject of a sentence.
pub(super) const fn unmeasured(kind: UnmeasuredKind) -> &'static str {
    match kind {
        UnmeasuredKind::NoAnswer => "Prometheus has not answered",
        UnmeasuredKind::NothingUsable => "no usable samples have come",
    }
}

/// Takes in what a look says about both arms and the objective.
pub(super) fn shared(flags: &mut Flags, look: &Look, now: Timestamp) {
    if let Some(message) = &look.shared_failure {
        let since = flags.shared.as_ref().map_or(now, |s| s.since);
        flags.shared = Some(Shared {
            since,
            stable_ok_since: None,
            message: message.clone(),
        });
    } else if let Some(s) = &mut flags.shared {
        s.stable_ok_since = if look.stable_meets_slo {
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

/// Whether a hold stops raises; a deadline alone does not.
pub(super) fn blocks(flags: &Flags) -> bool {
    flags.paused.is_some()
        || flags
            .hold
            .as_ref()
            .is_some_and(|h| h.reason != HoldReason::DeadlineExceeded)
}

/// When a hold might begin or end.
pub(super) fn limits(r: &Rollout) -> Vec<Timestamp> {
    let f = &r.flags;
    let mut times = Vec::new();
    if let Some(u) = &f.unmeasured {
        times.push(later(u.since, UNMEASURED));
        times.push(later(u.since, r.plan.analysis.max_unknown));
    }
    times.extend(
        [f.short_since, f.unreached_since]
            .into_iter()
            .flatten()
            .map(|t| later(t, NODES_GRACE)),
    );
    times.extend(
        f.brake
            .filter(|b| !b.until_verb)
            .map(|b| later(b.since, BRAKE)),
    );
    times
}

/// Sets what is still waited for, in a fixed order.
pub(super) fn wait(turn: &mut DecisionContext<'_>, mut waiting: Vec<WaitingFor>) {
    waiting.sort_unstable();
    waiting.dedup();
    if let Some(r) = &mut turn.state.rollout {
        // gone where an edited gate or a promise of another step took the question away
        let asked = waiting.contains(&WaitingFor::Approval);
        r.flags.asked_since = r.flags.asked_since.filter(|_| asked);
        r.flags.waiting_for = waiting;
    }
}
