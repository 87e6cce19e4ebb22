//! The error backstop in whole rollouts: it looks at what the candidate adds, never at stable's failures alone.

use std::time::Duration;

use delivery::rollout::{
    BakePolicy, HoldReason, Holdback, Measured, Outcome, Policy, RolloutState, State, Step,
    StepWeight, Weight,
};
use delivery::samples::{Outcome as RequestOutcome, StatusClass};

use crate::world::World;

/// Rates of failed requests: candidate and stable.
type Rates = (f64, f64);

fn own_steps() -> Policy {
    let step = |percent| Step {
        weight: StepWeight::Fixed(Weight::percent(percent)),
        ..Step::default()
    };
    Policy {
        steps: vec![step(5), step(50)],
        bake: BakePolicy {
            duration: Duration::from_secs(300),
            holdback: Holdback::Fixed(Weight::percent(10)),
        },
        ..Policy::default()
    }
}

/// What happened in a rollout.
#[derive(Debug, Default)]
struct Played {
    backstops: u32,
    holds: Vec<HoldReason>,
    outcome: Option<Outcome>,
    state: RolloutState,
}

/// Five seconds of requests that all take equally long, however few they are.
fn count(world: &mut World, [nc, xc, ns, xs]: [u64; 4]) {
    world.now += Duration::from_secs(5);
    for (arm, (requests, errors)) in world.counters.iter_mut().zip([(nc, xc), (ns, xs)]) {
        arm.add(RequestOutcome::Ok, StatusClass::Other, requests - errors);
        arm.add(RequestOutcome::Ok, StatusClass::ServerError, errors);
        arm.latency.0[18] += requests;
    }
}

/// Plays a rollout for at most six hours without any action of a person. Stable has failed at the rate `before` for the
/// last five of fifteen minutes; `rates` are those after so many seconds of the rollout in this state.
fn play(
    policy: Policy,
    per_second: f64,
    before: f64,
    rates: impl Fn(u32, State) -> Rates,
) -> Played {
    let mut world = World::resting(policy);
    world.per_second = per_second;
    let mut carry = [0.0; 3];
    let mut whole = |index: usize, value: f64| -> u64 {
        carry[index] += value;
        let whole = carry[index].floor();
        carry[index] -= whole;
        whole as u64
    };
    for period in 0..180 {
        let failing = if period < 120 { 0.01 } else { before };
        let all = whole(0, per_second * 5.0);
        count(&mut world, [0, 0, all, whole(2, all as f64 * failing)]);
        world.before.push(world.snapshot());
    }
    world.settle(Measured::NotDue);
    let mut played = Played::default();
    for period in 0..6 * 720 {
        let Some(rollout) = &world.state.rollout else {
            break;
        };
        let (weight, state) = (rollout.weight.share(), world.state.state);
        let all = per_second * 5.0;
        let (candidate, stable) = rates(period * 5, state);
        let nc = whole(0, all * weight).min(all as u64);
        let ns = all as u64 - nc;
        let xc = whole(1, nc as f64 * candidate).min(nc);
        let xs = whole(2, ns as f64 * stable).min(ns);
        count(&mut world, [nc, xc, ns, xs]);
        let measured = world.measure();
        world.settle(measured);
        if let Some(rollout) = &world.state.rollout {
            played.backstops = rollout.backstops;
            let hold = rollout.flags.hold.as_ref().map(|hold| hold.reason);
            if hold != played.holds.last().copied() {
                played.holds.extend(hold);
            }
        }
    }
    played.outcome = world.state.history.first().map(|entry| entry.outcome);
    played.state = world.state;
    played
}

/// Stable fails 60 % of its requests from a moment on, and the next version repairs that.
#[test]
fn a_repair_is_promoted_without_a_person() {
    for policy in [Policy::default(), own_steps()] {
        for per_second in [10.0, 100.0, 1000.0] {
            for before in [0.01, 0.6] {
                let played = play(policy.clone(), per_second, before, |_, _| (0.0, 0.6));
                let what = format!("{per_second}/s, {before}: {:?}", played.holds);
                assert_eq!(played.backstops, 0, "{what}");
                assert_eq!(played.outcome, Some(Outcome::Promoted), "{what}");
                assert_eq!(played.holds, [], "{what}");
            }
        }
    }
}

/// The next version fails less, although still far more than usual.
#[test]
fn a_partial_repair_is_promoted_without_a_person() {
    for per_second in [10.0, 100.0] {
        let played = play(own_steps(), per_second, 0.6, |_, _| (0.2, 0.6));
        assert_eq!(played.backstops, 0, "{:?}", played.holds);
        assert_eq!(
            played.outcome,
            Some(Outcome::Promoted),
            "{:?}",
            played.holds
        );
    }
}

/// An outage behind both revisions in the bake holds the rollout and lowers nothing.
#[test]
fn an_outage_behind_both_is_held_and_ends_by_itself() {
    for per_second in [10.0, 100.0, 1000.0] {
        let started = std::cell::Cell::new(None);
        let played = play(own_steps(), per_second, 0.01, |at, state| {
            if state == State::Baking && started.get().is_none() {
                started.set(Some(at));
            }
            let outage = started
                .get()
                .is_some_and(|from| (60..180).contains(&(at - from)));
            if outage { (0.6, 0.6) } else { (0.01, 0.01) }
        });
        let what = format!("{per_second}/s: {:?} {}", played.holds, played.backstops);
        assert!(played.backstops <= 1, "{what}");
        assert!(played.holds.contains(&HoldReason::SharedFailure), "{what}");
        assert_eq!(
            played.outcome,
            Some(Outcome::Promoted),
            "{what} {:#?}",
            played.state
        );
    }
}

/// A candidate that begins to fail in the bake loses its weight within two evaluations, long before stable's tenth of the
/// requests shows it to be worse.
#[test]
fn a_candidate_that_fails_in_the_bake_is_lowered_and_rolled_back() {
    for per_second in [10.0, 100.0] {
        let baked = std::cell::Cell::new(false);
        let played = play(own_steps(), per_second, 0.01, |_, state| {
            baked.set(baked.get() || state == State::Baking);
            (if baked.get() { 0.06 } else { 0.01 }, 0.01)
        });
        assert_eq!(played.state.state, State::RolledBack, "{:?}", played.holds);
    }
}

/// If the weight cannot be lowered further, the backstop is reported once and not at every evaluation.
#[test]
fn the_backstop_starts_again_after_it_was_reported() {
    let mut world = World::stepping();
    let mut reported = Vec::new();
    for _ in 0..4 {
        let mut evaluation = world.evaluate([99, 30, 1, 0]);
        reported.push(evaluation.backstop);
        // the state machine would hold, lower the weight or roll back; here it stays
        evaluation.backstop = false;
        let state = world.state.clone();
        world.take(evaluation);
        let analysis = world
            .state
            .rollout
            .as_ref()
            .and_then(|r| r.analysis.clone());
        world.state = state;
        let rollout = world.state.rollout.as_mut().unwrap();
        rollout.analysis = analysis;
    }
    assert_eq!(reported, [false, true, false, true]);
}
