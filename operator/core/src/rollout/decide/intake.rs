//! Taking facts in: clocks, leadership, nodes, the look. None of these raises anything.

use std::time::Duration;

use jiff::Timestamp;

use super::turn::Turn;
use crate::rollout::decision::since;
use crate::rollout::{
    AnalysisState, FencingToken, Flags, HoldReason, Measured, Paused, PlanKind, RolloutState,
    State, TransitionKind, Unmeasured, WaitingFor,
};

/// Nobody led, or the clock was set forward, when so much time passed between two decisions: it is not active time.
const MOST_GAP: Duration = Duration::from_secs(90);

/// Clocks, nodes and leadership, once per decision.
pub(super) fn facts(turn: &mut Turn<'_>) {
    let gap = clock(turn);
    leadership(turn, gap);
    turn.count_nodes();
    acknowledgement(turn);
    unmeasured(turn, gap);
}

/// Samples are missing since the last usable look, as far as that was this leader's.
fn unmeasured(turn: &mut Turn<'_>, gap: Duration) {
    let Measured::Unavailable { kind, message } = &turn.evidence.measured else {
        return;
    };
    let (now, exposed) = (turn.now, turn.state.state.is_exposed());
    let same_leader = turn.before.pair.epoch == turn.state.pair.epoch && gap <= MOST_GAP;
    let Some(r) = turn.state.rollout.as_mut().filter(|_| exposed) else {
        return;
    };
    let last = r
        .analysis
        .as_ref()
        .map_or(r.step_started_at, |a| a.looked_at.max(r.step_started_at));
    let began = if same_leader { last.min(now) } else { now };
    r.flags.unmeasured = Some(Unmeasured {
        since: r.flags.unmeasured.as_ref().map_or(began, |u| u.since),
        kind: *kind,
        message: message.clone(),
        tried_at: now,
    });
}

/// Counts active time; returns how long nobody decided.
fn clock(turn: &mut Turn<'_>) -> Duration {
    let (now, epoch) = (turn.now, turn.evidence.epoch);
    let same_leader = epoch <= turn.state.pair.epoch;
    let Some(r) = &mut turn.state.rollout else {
        return Duration::ZERO;
    };
    let elapsed = since(r.clock_at, now);
    let hold = r.flags.hold.as_ref().map(|h| h.reason);
    // a person who is asked may take their time, like one who paused
    let stopped = r.flags.paused.is_some()
        || r.flags.waiting_for.contains(&WaitingFor::Approval)
        || hold.is_some_and(HoldReason::stops_clock);
    if same_leader && !stopped && elapsed <= MOST_GAP {
        r.active += elapsed;
    }
    r.clock_at = now;
    // times that lie in the future since the clock was set back would otherwise stop everything until then
    r.acked_at = r.acked_at.map(|t| t.min(now));
    r.step_started_at = r.step_started_at.min(now);
    if let Some(a) = &mut r.analysis {
        a.looked_at = a.looked_at.min(now);
    }
    clamp(&mut r.flags, now);
    elapsed
}

fn clamp(flags: &mut Flags, now: Timestamp) {
    let Flags {
        paused: _,
        hold: _,
        waiting_for: _,
        asked_since,
        unmeasured,
        short_since,
        unreached_since,
        shared,
        brake,
    } = flags;
    if let Some(u) = unmeasured {
        u.since = u.since.min(now);
        u.tried_at = u.tried_at.min(now);
    }
    for t in [asked_since, short_since, unreached_since]
        .into_iter()
        .flatten()
    {
        *t = (*t).min(now);
    }
    if let Some(s) = shared {
        s.since = s.since.min(now);
        s.stable_ok_since = s.stable_ok_since.map(|t| t.min(now));
    }
    if let Some(b) = brake {
        b.since = b.since.min(now);
    }
}

/// A new leader sends the persisted share with its own epoch and takes no step for one look.
fn leadership(turn: &mut Turn<'_>, gap: Duration) {
    let exposed = turn.state.state.is_exposed();
    if turn.state.rollout.is_none() || turn.evidence.epoch <= turn.state.pair.epoch {
        return;
    }
    turn.new_pair();
    if exposed && gap > turn.evidence.unsupervised_ttl {
        resupervise(turn, gap);
    } else {
        if let Some(r) = &mut turn.state.rollout {
            r.acked_at = None;
            r.all_acked_at = None;
            r.step_looks = r.step_looks.min(1);
            // what the old leader saw of the nodes says nothing about now
            r.flags.short_since = None;
            r.flags.unreached_since = None;
        }
        turn.tell(
            TransitionKind::NewLeader,
            "another operator leads; the rollout goes on from what was written",
        );
    }
}

fn acknowledgement(turn: &mut Turn<'_>) {
    let (now, pair) = (turn.now, turn.state.pair);
    let nodes = &turn.evidence.nodes;
    let exposed = turn.state.state.is_exposed();
    let Some(r) = turn.state.rollout.as_mut().filter(|_| exposed) else {
        return;
    };
    let enough = nodes.pair == pair
        && nodes.live > 0
        && r.plan.nodes.min_loaded.reached(nodes.applied, nodes.live);
    if enough && r.acked_at.is_none() {
        r.acked_at = Some(now);
    }
}

/// Counts a look that is the next one of this rollout; once.
pub(super) fn look(turn: &mut Turn<'_>) -> bool {
    let Measured::Look(look) = &turn.evidence.measured else {
        return false;
    };
    let now = turn.now;
    if turn.look.is_some() || !turn.state.state.is_exposed() {
        return false;
    }
    let Some(r) = &mut turn.state.rollout else {
        return false;
    };
    let taken = r.analysis.as_ref().map_or(0, |a| a.looks);
    if look.number != taken + 1 || look.revision != r.candidate.revision.name {
        return false;
    }
    r.analysis = Some(AnalysisState {
        state: look.analysis.clone(),
        looks: look.number,
        looked_at: look.at,
    });
    r.flags.unmeasured = None;
    if r.acked_at.is_some_and(|acked| look.at > acked) {
        r.step_looks += 1;
        r.step_requests += look.candidate_requests;
    }
    r.quiet_looks = if look.candidate_requests == 0 {
        r.quiet_looks + 1
    } else {
        0
    };
    super::holds::shared(&mut r.flags, look, now);
    turn.state.figures = Some(look.figures.clone());
    super::wish::count_step(&mut turn.state);
    if turn.state.unhealthy.is_some() != look.stable_unhealthy.is_some() {
        turn.write();
    }
    turn.state.unhealthy.clone_from(&look.stable_unhealthy);
    turn.look = Some(look);
    false
}

/// Nodes were without contact for so long that they had returned to stable: the share is sent again.
pub(super) fn contact(turn: &mut Turn<'_>) -> bool {
    let nodes = &turn.evidence.nodes;
    let ttl = turn.evidence.unsupervised_ttl;
    let (now, pair, exposed) = (turn.now, turn.state.pair, turn.state.state.is_exposed());
    let Some(r) = &mut turn.state.rollout else {
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
    let most_left = nodes.pair == pair
        && r.acked_at.is_some()
        && !r
            .plan
            .nodes
            .min_loaded
            .reached(nodes.live.saturating_sub(nodes.returned), nodes.live);
    if !exposed || (away <= ttl && !most_left) {
        return false;
    }
    resupervise(turn, away.max(ttl));
    true
}

fn resupervise(turn: &mut Turn<'_>, away: Duration) {
    turn.new_pair();
    let (now, state) = (turn.now, turn.state.state);
    if let Some(r) = &mut turn.state.rollout {
        r.step_started_at = now;
        r.active = Duration::ZERO;
        r.acked_at = None;
        r.all_acked_at = None;
        r.step_looks = 0;
        r.step_requests = 0;
        r.flags.short_since = None;
        let what = if state == State::Baking {
            "bake"
        } else {
            "step"
        };
        let text = format!(
            "nodes were without contact for {} and had returned to stable; {} is sent again and the {what} starts over",
            crate::rollout::words::span(away),
            r.weight,
        );
        turn.tell(TransitionKind::Resupervised, text);
    }
}

/// Status was lost, or is older than what nodes already follow: stable is recovered, and nothing starts by itself.
pub(super) fn lost_state(turn: &mut Turn<'_>) -> bool {
    let evidence = turn.evidence;
    let highest = evidence.nodes.highest_pair.unwrap_or_default();
    let ours = turn.state.pair;
    // a leader that crashed between hint and write leaves the pair between
    let older = highest
        > FencingToken {
            serial: ours.serial + 1,
            ..ours
        };
    let blank = ours == FencingToken::default()
        && turn.state.stable.is_none()
        && turn.state.rollout.is_none();
    let lost = older || (blank && turn.state.state == State::Idle && evidence.promoted.is_some());
    if !lost {
        return false;
    }
    let placed = turn.state.stable.as_ref().map(|s| s.revision.clone());
    let stable = evidence.promoted.clone().or(placed);
    // numbers name Events: those of a forgotten life must not come again
    let seconds = u64::try_from(turn.now.as_second()).unwrap_or(0);
    let transitions = turn.state.transitions.max(if blank { seconds } else { 0 });
    turn.state = RolloutState {
        pair: FencingToken {
            epoch: evidence.epoch.max(highest.epoch).max(ours.epoch),
            serial: ours.serial.max(highest.serial) + 2,
        },
        stable: stable.clone().map(|revision| crate::rollout::Placed {
            revision,
            since: turn.now,
        }),
        history: turn.before.history.clone(),
        verbs: turn.before.verbs.clone(),
        observed_generation: turn.before.observed_generation,
        transitions,
        ..RolloutState::default()
    };
    let name = stable.map_or_else(|| "nothing".into(), |s| s.name);
    let wish = turn.function.wish.clone().filter(|w| w.name != name);
    let resting = wish.is_none() || turn.state.stable.is_none();
    let text = if resting {
        format!("status was lost; {name} serves as stable")
    } else {
        format!("status was lost; {name} serves as stable and the rollout waits for `resume`")
    };
    if let (Some(wish), Some(_)) = (wish, &turn.state.stable) {
        super::wish::start(turn, wish, PlanKind::Full, 1);
        let (since, by, reason) = (turn.now, "operator".into(), "StateLost".into());
        if let Some(r) = &mut turn.state.rollout {
            r.flags.paused = Some(Paused { since, by, reason });
        }
    }
    turn.tell(TransitionKind::StateLost, text);
    true
}
