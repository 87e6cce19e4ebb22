//! Rows 29 to 32 and 39: actions.

use super::*;
use delivery::rollout::TransitionKind as Kind;

#[test]
fn row_29_abort_rejects_in_every_state_with_a_rollout() {
    let mut loading = World::resting(policy());
    loading.able = 0;
    loading.set_desired("b");
    loading.tick();
    for mut w in [
        loading,
        World::queued(policy()),
        World::stepping(policy()),
        World::baking(policy()),
    ] {
        w.events.clear();
        w.annotate(Action::Abort, "checkout-b");
        w.after(1);
        assert_eq!((w.state.state, w.weight()), (State::RolledBack, 0));
        assert_eq!(
            (w.kinds(), outcome(&w)),
            (vec![Kind::Aborted], (Outcome::Aborted, "Aborted".into()))
        );
        assert_eq!(w.state.history[0].by.as_deref(), Some("kubectl-annotate"));
        assert_eq!(
            w.condition(ConditionType::Progressing),
            (false, "Aborted".into())
        );
    }
}

#[test]
fn row_30_pause_stops_the_weight_and_the_clock_until_resume() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Good;
    w.annotate(Action::Pause, "checkout-b");
    w.after(1);
    let active = w.rollout().active;
    w.run(3600);
    assert_eq!((w.weight(), w.rollout().active), (500, active));
    assert!(
        w.rollout()
            .analysis
            .as_ref()
            .is_some_and(|a| a.evaluations > 700),
        "the evaluation continues"
    );
    assert_eq!(w.phase(None), Phase::Paused);
    assert_eq!(
        w.condition(ConditionType::Progressing),
        (true, "Paused".into())
    );
    assert!(!holds_slot(&w.state));
    w.annotate(Action::Resume, "checkout-b");
    w.run(40);
    assert_eq!(
        (w.weight(), w.kinds()),
        (5000, vec![Kind::Paused, Kind::Unpaused, Kind::NextStep])
    );
    // the annotation is still there and does not act again
    assert!(w.rollout().flags.paused.is_none());
}

#[test]
fn row_30_pause_wins_over_a_simultaneous_resume() {
    let mut w = World::stepping(policy());
    w.annotate(Action::Resume, "checkout-b");
    w.annotate(Action::Pause, "checkout-b");
    w.after(1);
    assert!(w.rollout().flags.paused.is_some());
    w.run(60);
    assert!(w.rollout().flags.paused.is_some());
}

#[test]
fn row_31_promote_ends_exactly_one_step_however_often_it_is_seen() {
    let mut w = World::stepping(policy());
    w.annotate(Action::Promote, "checkout-b/step-0");
    w.after(1);
    assert_eq!(
        (w.weight(), w.kinds()),
        (5000, vec![Kind::PromotedByAction])
    );
    assert_eq!(w.state.steps[0].passed_by, Some(PassedBy::Action));
    // a second person wrote the same value
    w.run(60);
    assert_eq!(w.weight(), 5000);
    // and a third with another token for the same step
    w.annotate(Action::Promote, "checkout-b");
    w.after(1);
    assert_eq!(w.state.state, State::Baking);
    w.annotate(Action::Promote, "checkout-b/step-0");
    w.after(1);
    assert_eq!(
        (w.state.state, w.kinds().last()),
        (State::Baking, Some(&Kind::ActionIgnored))
    );
}

#[test]
fn row_31_a_value_without_token_acts_once_per_attempt() {
    let mut w = World::stepping(policy());
    for value in ["checkout-b", "checkout-x", "checkout-b"] {
        w.annotate(Action::Promote, value);
        w.after(1);
    }
    assert_eq!(w.weight(), 5000, "{:?}", w.kinds());
}

#[test]
fn row_31_promote_overrides_gates_holds_and_slots_but_not_a_bad_verdict_or_a_pause() {
    let mut w = World::stepping(gated(GateAt::Step));
    w.scenario = Scenario::Outage;
    w.run(90);
    w.annotate(Action::Promote, "checkout-b");
    w.after(1);
    assert_eq!(w.weight(), 5000);
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Bad("ErrorsWorse");
    w.annotate(Action::Promote, "checkout-b");
    w.after(5);
    assert_eq!(w.state.state, State::RolledBack);
    let mut w = World::stepping(policy());
    w.annotate(Action::Pause, "checkout-b");
    w.annotate(Action::Promote, "checkout-b");
    w.after(5);
    assert_eq!(
        (w.weight(), w.kinds()),
        (500, vec![Kind::Paused, Kind::ActionIgnored])
    );
    let mut w = World::resting(policy());
    w.function.policy = Some(gated(GateAt::Start));
    w.slot = false;
    w.set_desired("b");
    w.tick();
    assert_eq!(waiting(&w), [WaitingFor::Approval]);
    w.annotate(Action::Promote, "checkout-b");
    w.after(1);
    assert_eq!(w.weight(), 500);
    let mut w = World::baking(policy());
    w.annotate(Action::Promote, "checkout-b/now");
    w.after(1);
    assert_eq!(
        (stable(&w), outcome(&w).0),
        ("checkout-b", Outcome::Promoted)
    );
    assert_eq!(w.state.history[0].by.as_deref(), Some("kubectl-annotate"));
}

#[test]
fn row_32_promote_full_skips_steps_but_not_the_bake() {
    let mut loaded = World::queued(policy());
    loaded.events.clear();
    for mut w in [loaded, World::stepping(policy())] {
        w.annotate(Action::PromoteFull, "checkout-b");
        w.after(1);
        assert_eq!((w.state.state, w.weight()), (State::Baking, 9000));
        assert_eq!(w.kinds(), [Kind::PromotedFullByAction]);
    }
    let mut w = World::resting(policy());
    w.able = 0;
    w.set_desired("b");
    w.annotate(Action::PromoteFull, "checkout-b");
    w.tick();
    assert_eq!(
        (w.state.state, w.kinds().last()),
        (State::Loading, Some(&Kind::ActionIgnored))
    );
}

#[test]
fn row_39_actions_that_do_not_apply_are_recorded_with_the_reason() {
    let cases: [(Action, &str, &str); 7] = [
        (Action::Promote, "checkout-x", "the candidate is checkout-b"),
        (
            Action::Promote,
            "checkout-b/step-1",
            "step 1 is not the current one",
        ),
        (Action::Approve, "checkout-b", "no approval is needed"),
        (Action::Resume, "checkout-b", "it is not paused"),
        (Action::Retry, "checkout-b", "nothing was rolled back"),
        (Action::Abort, "checkout-x", "the candidate is checkout-b"),
        (Action::PromoteFull, "", ""),
    ];
    for (action, value, why) in cases {
        let mut w = World::stepping(policy());
        w.annotate(action, value);
        w.after(1);
        w.run(10);
        let record = w.state.actions.iter().find(|r| r.action == action);
        if why.is_empty() {
            assert_eq!(record, None, "an empty value is no request");
            continue;
        }
        assert_eq!(w.kinds(), [Kind::ActionIgnored], "{action:?}");
        assert_eq!(
            record.map(|r| &r.result),
            Some(&ActionResult::Ignored(why.into()))
        );
        assert_eq!(w.weight(), 500);
    }
    let mut w = World::resting(policy());
    w.annotate(Action::Abort, "checkout-a");
    assert!(w.tick().persist);
    assert!(!w.after(1).persist);
    assert_eq!(
        (w.state.state, w.kinds()),
        (State::Idle, vec![Kind::ActionIgnored])
    );
}

#[test]
fn row_39_a_very_long_value_is_cut() {
    let mut w = World::stepping(policy());
    w.annotate(Action::Abort, &"x".repeat(250_000));
    w.after(1);
    assert!(w.state.actions[0].value.len() <= 128);
    w.run(10);
    assert_eq!(w.kinds().len(), 1);
}

#[test]
fn a_used_value_is_reported_with_one_that_acts() {
    let mut w = World::stepping(policy());
    w.annotate(Action::Abort, "checkout-b");
    w.after(1);
    w.annotate(Action::Retry, "checkout-b");
    w.run(30);
    assert_eq!(
        (w.state.state, w.rollout().attempt),
        (State::Stepping, 2),
        "the abort of the first attempt is still there and has no effect"
    );
    let used = "Already handled: abort=checkout-b; another value acts, such as abort=checkout-b/3.";
    assert!(w.message().contains(used), "{}", w.message());
    w.annotate(Action::Abort, "checkout-b/3");
    w.after(1);
    assert_eq!(w.state.state, State::RolledBack);
    assert!(!w.message().contains("Already handled"), "{}", w.message());
}

#[test]
fn a_used_value_is_reported_only_if_the_action_would_apply() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Good;
    w.annotate(Action::Pause, "checkout-b");
    w.after(1);
    assert!(!w.message().contains("Already handled"), "{}", w.message());
    w.annotate(Action::Resume, "checkout-b");
    w.annotate(Action::Promote, "checkout-b");
    w.run(20);
    assert_eq!(w.weight(), 5000);
    let used = "Already handled: pause=checkout-b, promote=checkout-b; another value acts, such as pause=checkout-b/2.";
    assert!(w.message().contains(used), "{}", w.message());
    // users who write tokens choose the next token themselves
    let mut w = World::stepping(policy());
    w.annotate(Action::Pause, "checkout-b/7");
    w.after(1);
    w.annotate(Action::Resume, "checkout-b");
    w.after(1);
    assert!(!w.message().contains("Already handled"), "{}", w.message());
}
