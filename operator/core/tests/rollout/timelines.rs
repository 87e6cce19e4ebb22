//! Whole rollouts as a person would read them: time, state, share, row, event, sentence; `..` is the message in between.

use std::time::Duration;

use operator_core::function::Action;
use operator_core::rollout::*;

use crate::world::*;

#[test]
fn good_is_promoted() {
    let mut w = World::new(policy());
    w.run(20);
    w.wish("b");
    w.say = Say::Good;
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
    w.wish("b");
    w.say = Say::Bad("ErrorsWorse");
    w.run(10);
    w.note();
    w.run(3 * 3600);
    w.note();
    insta::assert_snapshot!(w.log);
}

#[test]
fn slow_is_rolled_back_later() {
    let mut w = World::resting(policy());
    w.wish("b");
    w.say = Say::Good;
    w.run(45);
    w.say = Say::NotEnough;
    w.run(60);
    w.note();
    w.say = Say::Bad("SlowerThanStable");
    w.run(10);
    w.note();
    insta::assert_snapshot!(w.log);
}

/// FE-1: the whole of it, as people are told.
#[test]
fn an_outage_of_prometheus_is_held_and_resumed() {
    let mut w = World::resting(policy());
    w.wish("b");
    w.run(20);
    w.note();
    w.say = Say::Outage;
    w.run(95);
    w.note();
    w.run(900);
    w.note();
    w.say = Say::Good;
    w.run(180);
    w.note();
    insta::assert_snapshot!(w.log);
}

#[test]
fn an_edit_in_mid_rollout() {
    let mut w = World::resting(policy());
    w.wish("b");
    w.say = Say::Good;
    w.run(45);
    w.note();
    w.wish("c");
    w.run(45);
    w.note();
    w.run(120);
    w.note();
    insta::assert_snapshot!(w.log);
}

#[test]
fn stable_is_wished_again() {
    let mut w = World::resting(policy());
    w.wish("b");
    w.say = Say::Good;
    w.run(45);
    w.wish("a");
    w.run(5);
    w.note();
    insta::assert_snapshot!(w.log);
}

#[test]
fn pause_and_resume() {
    let mut w = World::resting(policy());
    w.wish("b");
    w.say = Say::Good;
    w.run(10);
    w.verb(Action::Pause, "checkout-b");
    w.run(600);
    w.note();
    w.verb(Action::Resume, "checkout-b");
    w.run(200);
    w.note();
    insta::assert_snapshot!(w.log);
}

#[test]
fn promote_twice_racing() {
    let mut w = World::resting(policy());
    w.wish("b");
    w.run(10);
    w.verb(Action::Promote, "checkout-b/step-0");
    w.run(2);
    w.verb(Action::Promote, "checkout-b/step-0");
    w.run(2);
    w.verb(Action::Promote, "checkout-b/step-0/again");
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
    w.wish("b");
    w.say = Say::Good;
    w.run(600);
    w.note();
    w.verb(Action::Approve, "checkout-b/step-1");
    w.run(100);
    insta::assert_snapshot!(w.log);
}

#[test]
fn abort_and_retry() {
    let mut w = World::resting(policy());
    w.wish("b");
    w.run(20);
    w.verb(Action::Abort, "checkout-b");
    w.run(300);
    w.note();
    w.verb(Action::Retry, "checkout-b");
    w.say = Say::Good;
    w.run(200);
    insta::assert_snapshot!(w.log);
}

/// FC-17: two hours forward and back: no step is skipped, doubled or lost.
#[test]
fn a_clock_that_jumps() {
    let mut w = World::resting(policy());
    w.wish("b");
    w.run(10);
    w.say = Say::Good;
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
    w.wish("b");
    w.say = Say::Good;
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
    w.wish("b");
    w.say = Say::Good;
    w.run(300);
    w.wish("a");
    w.run(100);
    w.note();
    w.run(3700);
    insta::assert_snapshot!(w.log);
}

#[test]
fn nodes_that_cannot_pull() {
    let mut w = World::resting(policy());
    w.able = 3;
    w.wish("b");
    w.run(60);
    w.note();
    w.run(600);
    w.note();
    w.able = 4;
    w.run(5);
    insta::assert_snapshot!(w.log);
}

/// FE-7: the brake in the bake.
#[test]
fn a_brake_in_the_bake() {
    let mut w = World::resting(policy());
    w.wish("b");
    w.say = Say::Good;
    w.run(80);
    w.say = Say::Brake;
    w.run(6);
    w.note();
    w.say = Say::Good;
    w.run(500);
    insta::assert_snapshot!(w.log);
}

/// What happened, without the leader changes in between and without times.
type Ending = (
    Vec<TransitionKind>,
    State,
    Option<RevisionRef>,
    Vec<(Outcome, String)>,
);

fn outcome(w: &World) -> Ending {
    let told = w
        .told
        .iter()
        .map(|t| t.kind)
        .filter(|k| *k != TransitionKind::NewLeader)
        .collect();
    let stable = w.state.stable.clone().map(|s| RevisionRef { since: at(0), ..s });
    let history = w
        .state
        .history
        .iter()
        .map(|h| (h.outcome, h.reason.clone()))
        .collect();
    (told, w.state.state, stable, history)
}

/// The same story, told with the leader killed after `kill` decisions and its successor `gap` seconds later.
fn story(verdict: &Say, kill: Option<u32>, gap: i64) -> World {
    let mut w = World::resting(policy());
    w.promoted = Some(revision("a"));
    w.wish("b");
    w.say = Say::Good;
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
    w.say = verdict.clone();
    steps(&mut w, &|w| w.state.rollout.is_none());
    w
}

/// FC-5: killed after any decision, with any gap, good or bad: the same transitions, stable and history.
#[test]
fn a_restart_at_any_instant_leads_to_the_same_end() {
    for verdict in [Say::Good, Say::Bad("ErrorsWorse")] {
        let undisturbed = story(&verdict, None, 0);
        for kill in 0..40 {
            for gap in [1, 20, 80] {
                let w = story(&verdict, Some(kill), gap);
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
    let w = story(&Say::Good, Some(7), 20);
    let numbers: Vec<u64> = w.told.iter().map(|t| t.number).collect();
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
    assert_eq!(w.writes, before, "rest writes nothing");
    assert_eq!(
        Duration::from_secs(5),
        w.function.policy.analysis.look_period
    );
}

#[test]
fn a_share_that_all_live_nodes_follow_is_written_at_once_and_once() {
    let mut w = World::resting(policy());
    w.acking = false;
    w.wish("b");
    w.tick();
    let before = w.writes;
    w.after(1);
    assert_eq!(w.writes, before, "nobody has answered");
    assert!(w.message().contains("on its way"), "{}", w.message());
    w.acking = true;
    w.after(1);
    assert_eq!((w.writes, w.persisted.nodes.applied), (before + 1, 4));
    assert!(!w.message().contains("on its way"), "{}", w.message());
    for acking in [false, true, false, true] {
        w.acking = acking;
        w.after(1);
    }
    assert_eq!(w.writes, before + 1, "a node that flaps is no news");
    w.say = Say::Good;
    w.run(40);
    assert_eq!(w.weight(), 5000);
    w.run(2);
    assert_eq!(w.persisted.nodes.applied, 4, "again for the next share");
}
