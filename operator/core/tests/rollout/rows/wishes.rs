//! Rows 24 to 28, 33, 37 and 38: other wishes, other leaders, lost state.

use std::time::Duration;

use super::*;
use operator_core::rollout::TransitionKind as Kind;

/// HK-9: the newest wish wins in every state.
#[test]
fn row_24_another_wish_takes_the_share_at_once_from_any_state() {
    for mut w in [
        World::queued(policy()),
        World::stepping(policy()),
        World::baking(policy()),
    ] {
        w.able = 0;
        w.told.clear();
        let from = w.weight();
        w.wish("c");
        let d = w.after(1);
        assert_eq!((w.state.state, w.weight()), (State::Loading, 0));
        assert_eq!(w.kinds(), [Kind::Superseded]);
        assert_eq!(d.hint.is_some(), from > 0);
        assert!(
            w.told[0]
                .message
                .contains("checkout-c is wished instead of checkout-b"),
            "{}",
            w.told[0].message
        );
        assert_eq!(outcome(&w).0, Outcome::Superseded);
        assert!(w.rollout().analysis.is_none() && w.state.figures.is_none());
    }
}

#[test]
fn row_24_an_edit_in_the_moment_of_failure_runs_and_is_not_swallowed() {
    let mut w = World::stepping(policy());
    w.say = Say::Bad("ErrorsWorse");
    w.wish("c");
    w.after(5);
    assert_eq!(w.rollout().candidate.revision.name, "checkout-c");
    assert_eq!(w.kinds()[0], Kind::Superseded);
}

#[test]
fn row_24_never_finishing_is_told() {
    let mut w = World::stepping(policy());
    w.able = 0;
    for name in ["c", "d", "e", "f"] {
        w.wish(name);
        w.after(1);
    }
    assert!(
        w.message().contains("Superseded 4 times in a row"),
        "{}",
        w.message()
    );
}

/// The share falls before the new revision is known, and nothing that happens meanwhile brings it back.
#[test]
fn row_24_what_spec_no_longer_asks_for_gets_nothing_before_its_successor_is_known() {
    for mut w in [
        World::queued(policy()),
        World::stepping(policy()),
        World::baking(policy()),
        {
            let mut w = World::stepping(policy());
            w.verb(Verb::Pause, "checkout-b");
            w.tick();
            w.function.suspend = true;
            w.tick();
            w
        },
    ] {
        w.told.clear();
        let (from, mut next) = (w.weight(), w.clone());
        w.abandoned();
        let d = w.after(1);
        assert_eq!(
            (w.state.state, w.weight(), stable(&w)),
            (State::Idle, 0, "checkout-a")
        );
        assert_eq!(
            (w.kinds(), outcome(&w).0),
            (vec![Kind::Abandoned], Outcome::Superseded)
        );
        assert_eq!((d.hint.is_some(), d.persist), (from > 0, true));
        w.say = Say::Good;
        w.restart(5);
        w.run(3600);
        assert_eq!((w.weight(), w.kinds()), (0, vec![Kind::Abandoned]));
        // it was the stable revision: nothing more happens
        let mut back = w.clone();
        back.wish("a");
        back.after(1);
        assert_eq!(
            (back.state.state, back.kinds()),
            (State::Idle, vec![Kind::Abandoned])
        );
        // it is another one: that one begins from the beginning
        w.function.suspend = false;
        w.wish("c");
        w.after(1);
        assert_eq!(w.kinds()[1], Kind::Started);
        assert_eq!(w.rollout().attempt, 1);
        // another revision than the candidate says nothing
        next.function.wish = None;
        next.function.abandoned = Some("checkout-a".into());
        next.after(1);
        assert_eq!((next.weight(), next.kinds()), (from, vec![]));
    }
}

/// Without a stable revision there is nothing to return to.
#[test]
fn row_24_a_first_revision_serves_until_its_successor_is_known_but_is_not_promoted() {
    let mut w = World::new(policy());
    w.able = 0;
    w.tick();
    assert_eq!((w.state.state, w.weight()), (State::Loading, 10_000));
    w.abandoned();
    w.able = 4;
    w.run(60);
    assert_eq!((w.state.state, w.weight()), (State::Loading, 10_000));
    w.wish("c");
    w.run(10);
    assert_eq!(stable(&w), "checkout-c");
}

/// A restart of the operator, an outage or a refused edit neither raises nor lowers a share.
#[test]
fn while_the_desired_revision_is_unknown_no_share_rises_and_none_falls() {
    for lose in [World::unknown, World::refused] {
        for mut w in [
            World::queued(policy()),
            World::stepping(policy()),
            World::baking(policy()),
        ] {
            let from = (w.state.state, w.weight());
            w.told.clear();
            w.slot = true;
            w.say = Say::Good;
            lose(&mut w);
            w.run(3600);
            assert_eq!((w.state.state, w.weight()), from, "{}", w.log);
            assert_eq!(w.rollout().flags.waiting_for, [WaitingFor::Spec]);
            assert!(w.message().contains("which revision"), "{}", w.message());
            w.restart(5);
            w.run(60);
            assert_eq!((w.state.state, w.weight()), from, "{}", w.log);
            // what is bad is rolled back all the same
            let mut bad = w.clone();
            bad.say = Say::Bad("ErrorsWorse");
            bad.run(10);
            assert_eq!(bad.weight(), 0);
            // and the same revision goes on where it was
            w.wish("b");
            w.run(600);
            assert_eq!(stable(&w), "checkout-b", "{}", w.log);
        }
    }
}

/// A verb that raises waits until the desired revision is known, and is ignored with the reason while the spec is refused.
#[test]
fn no_person_raises_what_spec_may_not_ask_for() {
    for verb in [Verb::Promote, Verb::PromoteFull] {
        let mut w = World::stepping(policy());
        w.unknown();
        w.verb(verb, "checkout-b");
        w.run(60);
        assert_eq!((w.weight(), w.kinds()), (500, vec![]));
        w.wish("b");
        w.after(1);
        assert!(w.weight() > 500, "{}", w.log);
        let mut w = World::stepping(policy());
        w.refused();
        w.verb(verb, "checkout-b");
        w.run(60);
        assert_eq!((w.weight(), w.kinds()), (500, vec![Kind::VerbIgnored]));
        let text = &w.told[0].message;
        assert!(text.contains("not accepted: InvalidRoute"), "{text}");
    }
    let mut w = World::rolled_back(policy());
    w.refused();
    w.verb(Verb::Retry, "checkout-b");
    w.run(60);
    assert_eq!(
        (w.state.state, w.kinds()),
        (State::RolledBack, vec![Kind::VerbIgnored])
    );
    let mut w = World::rolled_back(policy());
    w.unknown();
    w.verb(Verb::Retry, "checkout-b");
    w.run(60);
    assert_eq!((w.state.state, w.kinds()), (State::RolledBack, vec![]));
    w.wish("b");
    w.after(1);
    assert_eq!(w.kinds()[0], Kind::Retried);
}

#[test]
fn row_25_the_stable_wish_withdraws() {
    for mut w in [
        World::queued(policy()),
        World::stepping(policy()),
        World::baking(policy()),
    ] {
        w.told.clear();
        w.wish("a");
        w.after(1);
        assert_eq!(
            (w.state.state, w.weight(), stable(&w)),
            (State::Idle, 0, "checkout-a")
        );
        assert_eq!(
            (w.kinds(), outcome(&w).0),
            (vec![Kind::Withdrawn], Outcome::Withdrawn)
        );
        w.after(1);
        assert_eq!(
            w.condition(ConditionType::Ready),
            (true, "Withdrawn".into())
        );
    }
}

#[test]
fn row_26_a_rejected_wish_stays_rejected() {
    let mut w = World::rolled_back(policy());
    let before = w.writes;
    w.run(3 * 3600);
    w.restart(60);
    assert_eq!(w.writes, before, "rest writes nothing");
    w.function.policy.bake.duration = Duration::from_secs(1);
    w.function.generation += 1;
    assert!(w.after(1).persist, "an edit is observed");
    assert_eq!((w.state.state, w.kinds()), (State::RolledBack, vec![]));
    assert_eq!(w.state.observed_generation, w.function.generation);
    assert_eq!(
        w.message(),
        "not tried again: checkout-b was rolled back 3 h ago (ErrorsWorse). Change it, or \
         kubectl -n shop annotate ef checkout selvage.dev/retry=checkout-b --overwrite"
    );
}

#[test]
fn row_27_retry_is_another_attempt_with_fresh_evidence() {
    let mut w = World::rolled_back(policy());
    w.verb(Verb::Retry, "checkout-b");
    w.slot = false;
    w.after(1);
    assert_eq!(
        (w.rollout().attempt, w.rollout().analysis.is_none()),
        (2, true)
    );
    assert_eq!(w.kinds()[0], Kind::Retried);
    assert!(w.state.rejected.is_none());
    // the line for the next time differs, so that it has an effect
    w.slot = true;
    w.say = Say::Bad("ErrorsWorse");
    w.run(10);
    assert!(
        w.message().ends_with("retry=checkout-b/3 --overwrite"),
        "{}",
        w.message()
    );
}

#[test]
fn row_28_leaving_a_rejected_wish_and_coming_back_runs_it_again() {
    let mut w = World::rolled_back(policy());
    w.wish("a");
    w.after(1);
    assert_eq!(
        (w.state.state, w.kinds()),
        (State::Idle, vec![Kind::Withdrawn])
    );
    w.wish("b");
    w.after(1);
    assert_eq!(w.kinds()[1], Kind::Started);
    let mut w = World::rolled_back(policy());
    w.wish("c");
    w.after(1);
    assert_eq!(w.kinds()[0], Kind::Started);
    assert!(w.state.rejected.is_none());
}

/// FC-5, FC-6: a successor goes on under a greater epoch.
#[test]
fn row_33_a_new_leader_goes_on_and_takes_no_step_for_one_look() {
    let mut w = World::stepping(policy());
    w.say = Say::Good;
    w.run(28);
    let pair = w.state.pair;
    w.restart(7);
    assert_eq!((w.weight(), w.state.pair.epoch), (500, 2));
    assert!(w.state.pair > pair);
    assert_eq!(w.kinds(), [Kind::NewLeader]);
    // time since the last write is not counted, so the step takes longer, never shorter
    w.run(40);
    assert_eq!(w.weight(), 5000);
}

/// FC-10: a status that was lost starts nothing by itself.
#[test]
fn row_37_lost_state_is_recovered_without_starting_anything() {
    let mut w = World::stepping(policy());
    let acked = w.state.pair;
    w.state = RolloutState::default();
    w.promoted = Some(revision("a"));
    w.highest = Some(acked);
    w.say = Say::Good;
    w.after(1);
    assert!(w.state.pair > acked);
    assert_eq!((stable(&w), w.weight()), ("checkout-a", 0));
    assert_eq!(w.kinds()[0], Kind::StateLost);
    w.run(3600);
    assert_eq!((w.state.state, w.weight()), (State::Queued, 0));
    assert_eq!(
        w.condition(ConditionType::Progressing),
        (true, "StateLost".into())
    );
    w.verb(Verb::Resume, "checkout-b");
    w.run(10);
    assert_eq!(w.weight(), 500);
}

/// FC-10: a status from a backup is known by what nodes have acknowledged since.
#[test]
fn row_37_a_status_older_than_the_nodes_is_lost_but_a_hint_before_a_crash_is_not() {
    let mut w = World::stepping(policy());
    let pair = w.state.pair;
    w.highest = Some(FencingToken {
        serial: pair.serial + 1,
        ..pair
    });
    w.after(1);
    assert_eq!(w.kinds(), []);
    w.highest = Some(FencingToken {
        epoch: pair.epoch + 1,
        serial: 1,
    });
    w.promoted = Some(revision("a"));
    w.after(1);
    assert_eq!(w.kinds()[0], Kind::StateLost);
    assert!(
        w.state.pair
            > FencingToken {
                epoch: pair.epoch + 1,
                serial: 1
            }
    );
    // the wish is stable: nothing to wait for
    let mut w = World::resting(policy());
    w.state = RolloutState::default();
    w.promoted = Some(revision("a"));
    w.after(1);
    assert_eq!((w.state.state, stable(&w)), (State::Idle, "checkout-a"));
}

#[test]
fn row_38_the_previous_stable_leaves_memory_after_its_window() {
    let mut w = promoted_b();
    w.after(3500);
    assert_eq!(shares(&w.state).previous.as_deref(), Some("checkout-a"));
    let d = w.after(101);
    assert_eq!((shares(&w.state).previous, d.wake_at), (None, None));
    assert_eq!(w.kinds(), [Kind::PreviousExpired]);
}
