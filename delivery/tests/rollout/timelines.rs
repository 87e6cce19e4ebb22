//! Timelines of whole rollouts: time, state, weight, row, Event and message; `..` marks `status.message` in between.

use std::time::Duration;

use delivery::function::Action;
use delivery::rollout::*;

use crate::world::*;

#[test]
fn good_is_promoted() {
    let mut w = World::new(policy());
    w.run(20);
    w.set_desired("b");
    w.scenario = Scenario::Good;
    w.run(50);
    w.note();
    w.run(150);
    w.note();
    insta::assert_snapshot!(w.log);
}

#[test]
fn dead_is_rolled_back() {
    let mut w = World::resting(policy());
    w.requests = 11;
    w.set_desired("b");
    w.scenario = Scenario::Bad("ErrorsWorse");
    w.run(10);
    w.note();
    w.run(3 * 3600);
    w.note();
    insta::assert_snapshot!(w.log);
}

#[test]
fn slow_is_rolled_back_later() {
    let mut w = World::resting(policy());
    w.set_desired("b");
    w.scenario = Scenario::Good;
    w.run(45);
    w.scenario = Scenario::NotEnough;
    w.run(60);
    w.note();
    w.scenario = Scenario::Bad("SlowerThanStable");
    w.run(10);
    w.note();
    insta::assert_snapshot!(w.log);
}

/// FE-1: an outage of Prometheus with all its messages.
#[test]
fn an_outage_of_prometheus_is_held_and_resumed() {
    let mut w = World::resting(policy());
    w.set_desired("b");
    w.run(20);
    w.note();
    w.scenario = Scenario::Outage;
    w.run(95);
    w.note();
    w.run(900);
    w.note();
    w.scenario = Scenario::Good;
    w.run(180);
    w.note();
    insta::assert_snapshot!(w.log);
}

#[test]
fn an_edit_in_mid_rollout() {
    let mut w = World::resting(policy());
    w.set_desired("b");
    w.scenario = Scenario::Good;
    w.run(45);
    w.note();
    w.set_desired("c");
    w.run(45);
    w.note();
    w.run(120);
    w.note();
    insta::assert_snapshot!(w.log);
}

#[test]
fn stable_is_desired_again() {
    let mut w = World::resting(policy());
    w.set_desired("b");
    w.scenario = Scenario::Good;
    w.run(45);
    w.set_desired("a");
    w.run(5);
    w.note();
    insta::assert_snapshot!(w.log);
}

#[test]
fn pause_and_resume() {
    let mut w = World::resting(policy());
    w.set_desired("b");
    w.scenario = Scenario::Good;
    w.run(10);
    w.annotate(Action::Pause, "checkout-b");
    w.run(600);
    w.note();
    w.annotate(Action::Resume, "checkout-b");
    w.run(200);
    w.note();
    insta::assert_snapshot!(w.log);
}

#[test]
fn promote_twice_racing() {
    let mut w = World::resting(policy());
    w.set_desired("b");
    w.run(10);
    w.annotate(Action::Promote, "checkout-b/step-0");
    w.run(2);
    w.annotate(Action::Promote, "checkout-b/step-0");
    w.run(2);
    w.annotate(Action::Promote, "checkout-b/step-0/again");
    w.run(2);
    w.note();
    insta::assert_snapshot!(w.log);
}

#[test]
fn an_approval_gate() {
    let mut p = policy();
    p.gates = vec![Gate {
        name: "release-manager".into(),
        at: GateAt::Promotion,
    }];
    let mut w = World::resting(p);
    w.set_desired("b");
    w.scenario = Scenario::Good;
    w.run(600);
    w.note();
    w.annotate(Action::Approve, "checkout-b/step-1");
    w.run(100);
    insta::assert_snapshot!(w.log);
}

#[test]
fn abort_and_retry() {
    let mut w = World::resting(policy());
    w.set_desired("b");
    w.run(20);
    w.annotate(Action::Abort, "checkout-b");
    w.run(300);
    w.note();
    w.annotate(Action::Retry, "checkout-b");
    w.scenario = Scenario::Good;
    w.run(200);
    insta::assert_snapshot!(w.log);
}

/// FC-17: the clock jumps two hours forward and back; no step is skipped, repeated or lost.
#[test]
fn a_clock_that_jumps() {
    let mut w = World::resting(policy());
    w.set_desired("b");
    w.run(10);
    w.scenario = Scenario::Good;
    w.after(7200);
    w.note();
    w.after(-7200);
    w.note();
    w.run(200);
    insta::assert_snapshot!(w.log);
}

#[test]
fn suspended_for_a_while() {
    let mut w = World::resting(policy());
    w.set_desired("b");
    w.scenario = Scenario::Good;
    w.run(20);
    w.function.suspend = true;
    w.run(3600);
    w.note();
    w.function.suspend = false;
    w.run(200);
    insta::assert_snapshot!(w.log);
}

#[test]
fn revert_after_promotion() {
    let mut w = World::resting(policy());
    w.set_desired("b");
    w.scenario = Scenario::Good;
    w.run(300);
    w.set_desired("a");
    w.run(100);
    w.note();
    w.run(3700);
    insta::assert_snapshot!(w.log);
}

#[test]
fn nodes_that_cannot_pull() {
    let mut w = World::resting(policy());
    w.able = 3;
    w.set_desired("b");
    w.run(60);
    w.note();
    w.run(600);
    w.note();
    w.able = 4;
    w.run(5);
    insta::assert_snapshot!(w.log);
}

/// FE-7: the error backstop is reached in the bake.
#[test]
fn the_backstop_in_the_bake() {
    let mut w = World::resting(policy());
    w.set_desired("b");
    w.scenario = Scenario::Good;
    w.run(80);
    w.scenario = Scenario::Backstop;
    w.run(6);
    w.note();
    w.scenario = Scenario::Good;
    w.run(500);
    insta::assert_snapshot!(w.log);
}

/// Result of a timeline, without changes of the leader and without times.
type Ending = (
    Vec<TransitionKind>,
    State,
    Option<RevisionRef>,
    Vec<(Outcome, String)>,
);

fn outcome(w: &World) -> Ending {
    let events = w
        .events
        .iter()
        .map(|t| t.kind)
        .filter(|k| *k != TransitionKind::NewLeader)
        .collect();
    let stable = w
        .state
        .stable
        .clone()
        .map(|s| RevisionRef { since: at(0), ..s });
    let history = w
        .state
        .history
        .iter()
        .map(|h| (h.outcome, h.reason.clone()))
        .collect();
    (events, w.state.state, stable, history)
}

/// Runs a rollout to its end. The leader is killed after `kill` decisions, and its successor starts `gap` seconds later.
fn play(verdict: &Scenario, kill: Option<u32>, gap: i64) -> World {
    let mut w = World::resting(policy());
    w.promoted = Some(revision("a"));
    w.set_desired("b");
    w.scenario = Scenario::Good;
    let mut decisions = 0;
    let mut steps = |w: &mut World, until: &dyn Fn(&World) -> bool| {
        for _ in 0..1000 {
            if until(w) {
                return;
            }
            if kill == Some(decisions) {
                w.restart(gap);
            } else {
                let wake = w.last.as_ref().and_then(|d| d.wake_at).unwrap_or(w.now);
                w.now = wake.max(w.now);
                w.tick();
            }
            decisions += 1;
        }
        panic!("never: {}", w.log);
    };
    w.tick();
    steps(&mut w, &|w| w.weight() >= 5000 || w.state.rollout.is_none());
    w.scenario = verdict.clone();
    steps(&mut w, &|w| w.state.rollout.is_none());
    w
}

/// FC-5: a leader killed after any decision, with any gap, leads to the same transitions, stable revision and history.
#[test]
fn a_restart_at_any_instant_leads_to_the_same_end() {
    for verdict in [Scenario::Good, Scenario::Bad("ErrorsWorse")] {
        let undisturbed = play(&verdict, None, 0);
        for kill in 0..40 {
            for gap in [1, 20, 80] {
                let w = play(&verdict, Some(kill), gap);
                assert_eq!(
                    outcome(&w),
                    outcome(&undisturbed),
                    "killed after {kill}: {}",
                    w.log
                );
            }
        }
    }
}

#[test]
fn a_transition_is_numbered_once() {
    let w = play(&Scenario::Good, Some(7), 20);
    let numbers: Vec<u64> = w.events.iter().map(|t| t.number).collect();
    let mut once = numbers.clone();
    once.dedup();
    assert_eq!(numbers, once);
    assert!(numbers.is_sorted());
}

#[test]
fn a_rollout_writes_at_transitions_and_every_half_minute() {
    let mut w = World::stepping(policy());
    let before = w.writes;
    w.run(3600);
    assert!(
        (115..=121).contains(&(w.writes - before)),
        "{}",
        w.writes - before
    );
    let mut w = World::queued(policy());
    let before = w.writes;
    w.run(3600);
    assert_eq!(w.writes, before, "a queue waits without writing");
    let mut w = World::resting(policy());
    let before = w.writes;
    w.run(3600);
    assert_eq!(w.writes, before, "no writes without a rollout");
    assert_eq!(
        Duration::from_secs(5),
        w.function.policy.unwrap().analysis.evaluation_interval
    );
}

#[test]
fn a_weight_that_all_live_nodes_apply_is_written_at_once_and_once() {
    let mut w = World::resting(policy());
    w.acking = false;
    w.set_desired("b");
    w.tick();
    let before = w.writes;
    w.after(1);
    assert_eq!(w.writes, before, "no node has answered");
    assert!(w.message().contains("on its way"), "{}", w.message());
    w.acking = true;
    w.after(1);
    assert_eq!((w.writes, w.persisted.nodes.applied), (before + 1, 4));
    assert!(!w.message().contains("on its way"), "{}", w.message());
    for acking in [false, true, false, true] {
        w.acking = acking;
        w.after(1);
    }
    assert_eq!(w.writes, before + 1, "a node that flaps causes no write");
    w.scenario = Scenario::Good;
    w.run(40);
    assert_eq!(w.weight(), 5000);
    w.run(2);
    assert_eq!(w.persisted.nodes.applied, 4, "again for the next weight");
}
