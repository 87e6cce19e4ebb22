//! Rows 24 to 28, 33, 37 and 38: changes of the desired revision, new leaders and lost state.

use std::time::Duration;

use super::*;
use delivery::rollout::TransitionKind as Kind;

/// HK-9: the newest desired revision takes effect in every state.
#[test]
fn row_24_another_desired_revision_replaces_the_candidate_in_every_state() {
    for mut w in [
        World::queued(policy()),
        World::stepping(policy()),
        World::baking(policy()),
    ] {
        w.able = 0;
        w.events.clear();
        let from = w.weight();
        w.set_desired("c");
        let d = w.after(1);
        assert_eq!((w.state.state, w.weight()), (State::Loading, 0));
        assert_eq!(w.kinds(), [Kind::Superseded]);
        assert_eq!(d.hint.is_some(), from > 0);
        assert!(
            w.events[0]
                .message
                .contains("checkout-c replaces checkout-b as the desired revision"),
            "{}",
            w.events[0].message
        );
        assert_eq!(outcome(&w).0, Outcome::Superseded);
        assert!(w.rollout().analysis.is_none() && w.state.evidence_summary.is_none());
    }
}

#[test]
fn row_24_an_edit_at_the_time_of_a_failure_is_rolled_out() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Bad("ErrorsWorse");
    w.set_desired("c");
    w.after(5);
    assert_eq!(w.rollout().candidate.revision.name, "checkout-c");
    assert_eq!(w.kinds()[0], Kind::Superseded);
}

#[test]
fn row_24_repeatedly_superseded_rollouts_are_reported() {
    let mut w = World::stepping(policy());
    w.able = 0;
    for name in ["c", "d", "e", "f"] {
        w.set_desired(name);
        w.after(1);
    }
    assert!(
        w.message().contains("Superseded 4 times in a row"),
        "{}",
        w.message()
    );
}

/// The weight falls before the new revision is known, and no later event restores it.
#[test]
fn row_24_an_abandoned_candidate_gets_no_requests_before_the_new_revision_is_known() {
    for mut w in [
        World::queued(policy()),
        World::stepping(policy()),
        World::baking(policy()),
        {
            let mut w = World::stepping(policy());
            w.annotate(Action::Pause, "checkout-b");
            w.tick();
            w.function.suspend = true;
            w.tick();
            w
        },
    ] {
        w.events.clear();
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
        w.scenario = Scenario::Good;
        w.restart(5);
        w.run(3600);
        assert_eq!((w.weight(), w.kinds()), (0, vec![Kind::Abandoned]));
        // the desired revision is stable: no rollout starts
        let mut back = w.clone();
        back.set_desired("a");
        back.after(1);
        assert_eq!(
            (back.state.state, back.kinds()),
            (State::Idle, vec![Kind::Abandoned])
        );
        // the desired revision is a new one: its rollout starts from the beginning
        w.function.suspend = false;
        w.set_desired("c");
        w.after(1);
        assert_eq!(w.kinds()[1], Kind::Started);
        assert_eq!(w.rollout().attempt, 1);
        // `abandoned` names another revision than the candidate: no effect
        next.function.desired = None;
        next.function.abandoned = Some("checkout-a".into());
        next.after(1);
        assert_eq!((next.weight(), next.kinds()), (from, vec![]));
    }
}

/// Without a stable revision there is nothing to return to.
#[test]
fn row_24_an_abandoned_first_revision_serves_but_is_not_promoted() {
    let mut w = World::new(policy());
    w.able = 0;
    w.tick();
    assert_eq!((w.state.state, w.weight()), (State::Loading, 10_000));
    w.abandoned();
    w.able = 4;
    w.run(60);
    assert_eq!((w.state.state, w.weight()), (State::Loading, 10_000));
    w.set_desired("c");
    w.run(10);
    assert_eq!(stable(&w), "checkout-c");
}

/// A restart of the operator, an outage or a refused edit neither raises nor lowers a weight.
#[test]
fn while_the_desired_revision_is_unknown_the_weight_does_not_change() {
    for lose in [World::unknown, World::refused] {
        for mut w in [
            World::queued(policy()),
            World::stepping(policy()),
            World::baking(policy()),
        ] {
            let from = (w.state.state, w.weight());
            w.events.clear();
            w.slot = true;
            w.scenario = Scenario::Good;
            lose(&mut w);
            w.run(3600);
            assert_eq!((w.state.state, w.weight()), from, "{}", w.log);
            assert_eq!(w.rollout().flags.waiting_for, [WaitingFor::Spec]);
            assert!(
                w.message().contains("until the desired revision is known"),
                "{}",
                w.message()
            );
            w.restart(5);
            w.run(60);
            assert_eq!((w.state.state, w.weight()), from, "{}", w.log);
            // a bad candidate is still rolled back
            let mut bad = w.clone();
            bad.scenario = Scenario::Bad("ErrorsWorse");
            bad.run(10);
            assert_eq!(bad.weight(), 0);
            // and the same revision continues where it was
            w.set_desired("b");
            w.run(600);
            assert_eq!(stable(&w), "checkout-b", "{}", w.log);
        }
    }
}

/// An action that raises the weight waits until the desired revision is known, and is ignored with the reason while the spec
/// is refused.
#[test]
fn no_action_raises_the_weight_while_the_desired_revision_is_unknown() {
    for action in [Action::Promote, Action::PromoteFull] {
        let mut w = World::stepping(policy());
        w.unknown();
        w.annotate(action, "checkout-b");
        w.run(60);
        assert_eq!((w.weight(), w.kinds()), (500, vec![]));
        w.set_desired("b");
        w.after(1);
        assert!(w.weight() > 500, "{}", w.log);
        let mut w = World::stepping(policy());
        w.refused();
        w.annotate(action, "checkout-b");
        w.run(60);
        assert_eq!((w.weight(), w.kinds()), (500, vec![Kind::ActionIgnored]));
        let text = &w.events[0].message;
        assert!(text.contains("not accepted: InvalidRoute"), "{text}");
    }
    let mut w = World::rolled_back(policy());
    w.refused();
    w.annotate(Action::Retry, "checkout-b");
    w.run(60);
    assert_eq!(
        (w.state.state, w.kinds()),
        (State::RolledBack, vec![Kind::ActionIgnored])
    );
    let mut w = World::rolled_back(policy());
    w.unknown();
    w.annotate(Action::Retry, "checkout-b");
    w.run(60);
    assert_eq!((w.state.state, w.kinds()), (State::RolledBack, vec![]));
    w.set_desired("b");
    w.after(1);
    assert_eq!(w.kinds()[0], Kind::Retried);
}

/// The policy of a spec that is not accepted is not known, so it was not edited either.
#[test]
fn a_refused_spec_is_no_edited_policy() {
    let mut gated = gated(GateAt::Step);
    gated.analysis.harm_budget = 0.1;
    let mut w = World::stepping(gated);
    w.refused();
    w.run(10);
    assert!(!w.message().contains("edited"), "{}", w.message());
    assert!(w.message().contains("does not rise"), "{}", w.message());
}

#[test]
fn row_25_the_desired_revision_becoming_stable_again_withdraws_the_rollout() {
    for mut w in [
        World::queued(policy()),
        World::stepping(policy()),
        World::baking(policy()),
    ] {
        w.events.clear();
        w.set_desired("a");
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
fn row_26_a_rejected_revision_stays_rejected() {
    let mut w = World::rolled_back(policy());
    let before = w.writes;
    w.run(3 * 3600);
    w.restart(60);
    assert_eq!(w.writes, before, "rest writes nothing");
    w.function.policy.as_mut().unwrap().bake.duration = Duration::from_secs(1);
    w.function.generation += 1;
    assert!(w.after(1).persist, "an edit is observed");
    assert_eq!((w.state.state, w.kinds()), (State::RolledBack, vec![]));
    assert_eq!(w.state.observed_generation, w.function.generation);
    assert_eq!(
        w.message(),
        "not tried again: checkout-b was rolled back 3 h ago (ErrorsWorse). Change the spec, or run: \
         kubectl selvage retry checkout -n shop, or: kubectl -n shop annotate ef checkout selvage.dev/retry=checkout-b --overwrite"
    );
}

#[test]
fn row_27_retry_is_another_attempt_with_fresh_evidence() {
    let mut w = World::rolled_back(policy());
    w.annotate(Action::Retry, "checkout-b");
    w.slot = false;
    w.after(1);
    assert_eq!(
        (w.rollout().attempt, w.rollout().analysis.is_none()),
        (2, true)
    );
    assert_eq!(w.kinds()[0], Kind::Retried);
    assert!(w.state.rejected.is_none());
    // the command for the next attempt has another value, so that it acts
    w.slot = true;
    w.scenario = Scenario::Bad("ErrorsWorse");
    w.run(10);
    assert!(
        w.message().ends_with("retry=checkout-b/3 --overwrite"),
        "{}",
        w.message()
    );
}

#[test]
fn row_28_a_rejected_revision_desired_again_after_another_gets_a_rollout() {
    let mut w = World::rolled_back(policy());
    w.set_desired("a");
    w.after(1);
    assert_eq!(
        (w.state.state, w.kinds()),
        (State::Idle, vec![Kind::Withdrawn])
    );
    w.set_desired("b");
    w.after(1);
    assert_eq!(w.kinds()[1], Kind::Started);
    let mut w = World::rolled_back(policy());
    w.set_desired("c");
    w.after(1);
    assert_eq!(w.kinds()[0], Kind::Started);
    assert!(w.state.rejected.is_none());
}

/// FC-5, FC-6: a successor continues with a greater epoch.
#[test]
fn row_33_a_new_leader_continues_and_needs_an_evaluation_before_the_next_step() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Good;
    w.run(28);
    let token = w.state.token;
    w.restart(7);
    assert_eq!((w.weight(), w.state.token.epoch), (500, 2));
    assert!(w.state.token > token);
    assert_eq!(w.kinds(), [Kind::NewLeader]);
    // the time since the last write does not count, so the step can only take longer
    w.run(40);
    assert_eq!(w.weight(), 5000);
}

/// FC-10: a lost status starts no rollout by itself.
#[test]
fn row_37_lost_state_is_restored_without_starting_a_rollout() {
    let mut w = World::stepping(policy());
    let acked = w.state.token;
    w.state = RolloutState::default();
    w.promoted = Some(revision("a"));
    w.highest = Some(acked);
    w.scenario = Scenario::Good;
    w.after(1);
    assert!(w.state.token > acked);
    assert_eq!((stable(&w), w.weight()), ("checkout-a", 0));
    assert_eq!(w.kinds()[0], Kind::StateLost);
    w.run(3600);
    assert_eq!((w.state.state, w.weight()), (State::Queued, 0));
    assert_eq!(
        w.condition(ConditionType::Progressing),
        (true, "StateLost".into())
    );
    w.annotate(Action::Resume, "checkout-b");
    w.run(10);
    assert_eq!(w.weight(), 500);
}

/// `kubectl delete` and `kubectl apply`, or `kubectl replace --force`: nodes remember the tokens of the deleted function.
#[test]
fn row_37_a_function_that_is_created_again_has_lost_nothing() {
    let mut w = World::stepping(policy());
    let former = w.state.token;
    w.state = RolloutState::default();
    w.highest = Some(former);
    w.after(1);
    assert!(w.state.token > former, "nodes follow it");
    assert_eq!(w.persisted.token, w.state.token);
    w.run(5);
    assert_eq!((w.state.state, stable(&w)), (State::Idle, "checkout-b"));
    assert!(!w.kinds().contains(&Kind::StateLost), "{:?}", w.kinds());
}

/// FC-10: a status from a backup is detected by the tokens that nodes have acknowledged since.
#[test]
fn row_37_a_status_older_than_the_nodes_is_lost_but_not_after_a_hint_without_write() {
    let mut w = World::stepping(policy());
    let token = w.state.token;
    w.highest = Some(FencingToken {
        serial: token.serial + 1,
        ..token
    });
    w.after(1);
    assert_eq!(w.kinds(), []);
    w.highest = Some(FencingToken {
        epoch: token.epoch + 1,
        serial: 1,
    });
    w.promoted = Some(revision("a"));
    w.after(1);
    assert_eq!(w.kinds()[0], Kind::StateLost);
    assert!(
        w.state.token
            > FencingToken {
                epoch: token.epoch + 1,
                serial: 1
            }
    );
    // the report of one node of four is not enough
    let mut w = World::stepping(policy());
    w.highest = Some(FencingToken {
        serial: w.state.token.serial + 100,
        ..w.state.token
    });
    w.loyal = 3;
    w.after(1);
    assert_eq!((w.kinds(), w.weight()), (vec![], 500));
    // at rest it gets the state again, with a greater token
    let mut w = World::resting(policy());
    let ahead = FencingToken {
        serial: w.state.token.serial + 100,
        ..w.state.token
    };
    (w.highest, w.loyal) = (Some(ahead), 3);
    w.restart(1);
    assert_eq!(w.kinds(), []);
    assert!(w.state.token > ahead && w.persisted.token == w.state.token);
    // the desired revision is stable: there is nothing to resume
    let mut w = World::resting(policy());
    w.state = RolloutState::default();
    w.promoted = Some(revision("a"));
    w.after(1);
    assert_eq!((w.state.state, stable(&w)), (State::Idle, "checkout-a"));
}

#[test]
fn row_38_the_previous_stable_revision_is_unloaded_after_its_window() {
    let mut w = promoted_b();
    w.after(3500);
    assert_eq!(
        traffic_split(&w.state).previous.as_deref(),
        Some("checkout-a")
    );
    let d = w.after(101);
    assert_eq!((traffic_split(&w.state).previous, d.wake_at), (None, None));
    assert_eq!(w.kinds(), [Kind::PreviousExpired]);
}

/// A rollback that nodes received and that was never written: the next leader does not know why, and does not undo it.
#[test]
fn row_37_a_lowered_weight_without_a_written_reason_does_not_rise_by_itself() {
    for mut w in [World::stepping(policy()), World::baking(policy())] {
        let written = w.state.clone();
        w.scenario = Scenario::Bad("ErrorsWorse");
        let hint = w.after(5).hint.expect("a rollback");
        // it could not be written, and the process ended
        w.state = written;
        w.highest = Some(hint.token);
        w.scenario = Scenario::Good;
        w.events.clear();
        w.epoch += 1;
        w.run(600);
        assert_eq!((w.state.state, w.weight()), (State::Queued, 0));
        assert!(w.kinds().contains(&Kind::StateLost), "{:?}", w.kinds());
        assert!(
            w.message().contains("selvage.dev/resume="),
            "{}",
            w.message()
        );
        w.annotate(Action::Resume, "checkout-b");
        w.run(6);
        assert_eq!((w.state.state, w.weight()), (State::Stepping, 500));
    }
}

/// A decision that follows again from the same facts is made again.
#[test]
fn an_abort_that_was_not_written_is_made_again_by_the_next_leader() {
    let mut w = World::stepping(policy());
    let written = w.state.clone();
    w.annotate(Action::Abort, "checkout-b");
    let hint = w.after(1).hint.expect("a lower weight");
    w.state = written;
    w.highest = Some(hint.token);
    w.epoch += 1;
    w.after(1);
    assert_eq!(w.state.state, State::RolledBack);
}
