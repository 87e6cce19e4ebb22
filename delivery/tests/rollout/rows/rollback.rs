//! Rows 14 to 16: rollback and the error backstop.

use super::*;
use delivery::rollout::TransitionKind as Kind;

/// FE-7: also in the bake, with the hint in parallel with the write.
#[test]
fn row_14_a_bad_evaluation_rolls_back_at_once() {
    for mut w in [World::stepping(policy()), World::baking(policy())] {
        let from = w.weight();
        w.scenario = Scenario::Bad("ErrorsWorse");
        let d = w.after(5);
        assert_eq!((w.state.state, w.weight()), (State::RolledBack, 0));
        assert_eq!(w.kinds(), [Kind::CheckBad]);
        let hint = d.hint.expect("a hint for the nodes");
        assert_eq!(
            (hint.weight, hint.candidate.as_deref()),
            (Weight::ZERO, Some("checkout-b"))
        );
        let entry = &w.state.history[0];
        assert_eq!(
            (entry.final_weight.parts(), entry.reason.as_str()),
            (from, "ErrorsWorse")
        );
        assert!(entry.decisive.is_some());
        assert_eq!(
            w.condition(ConditionType::Ready),
            (false, "RolledBack".into())
        );
        assert_eq!(
            w.condition(ConditionType::Stalled),
            (true, "RolledBack".into())
        );
        assert_eq!(w.last.as_ref().and_then(|d| d.wake_at), None);
    }
}

#[test]
fn row_14_pause_hold_and_missing_acknowledgement_do_not_delay_a_rollback() {
    let mut w = World::stepping(policy());
    w.annotate(Action::Pause, "checkout-b");
    w.after(1);
    w.acking = false;
    w.slot = false;
    w.scenario = Scenario::Outage;
    w.run(90);
    w.scenario = Scenario::Bad("ErrorsWorse");
    w.run(6);
    assert_eq!(w.state.state, State::RolledBack);
}

#[test]
fn row_16_the_backstop_lowers_one_step_and_holds_for_five_minutes() {
    let mut w = World::baking(policy());
    w.scenario = Scenario::Backstop;
    w.after(5);
    assert_eq!(
        (w.state.state, w.weight(), w.rollout().step),
        (State::Stepping, 5000, 1)
    );
    assert_eq!(
        (hold(&w), w.kinds()),
        (Some(HoldReason::TotalErrors), vec![Kind::BackstopReached])
    );
    w.scenario = Scenario::Good;
    w.run(290);
    assert_eq!(w.weight(), 5000);
    w.run(20);
    assert_eq!((w.state.state, w.weight()), (State::Baking, 9000));
    assert_eq!(
        w.kinds(),
        [Kind::BackstopReached, Kind::Resumed, Kind::BakeStarted]
    );
}

#[test]
fn row_16_the_backstop_holds_at_the_first_step_and_needs_resume_after_the_third_time() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Backstop;
    w.after(5);
    w.after(5);
    w.after(5);
    assert_eq!((w.weight(), w.rollout().backstops), (500, 3));
    assert_eq!(w.kinds(), [Kind::BackstopReached; 3]);
    w.scenario = Scenario::Good;
    w.run(2000);
    assert_eq!(w.weight(), 500);
    assert!(
        w.message().contains("selvage.dev/resume=checkout-b"),
        "{}",
        w.message()
    );
    w.annotate(Action::Resume, "checkout-b");
    w.run(6);
    assert_eq!(w.weight(), 5000);
}

#[test]
fn row_16_the_backstop_rolls_back_without_a_control() {
    let mut p = Policy {
        strategy: Strategy::AllAtOnce,
        ..policy()
    };
    p.bake.holdback = Holdback::Fixed(Weight::ZERO);
    let mut w = World::resting(p);
    w.set_desired("b");
    w.tick();
    w.tick();
    assert_eq!(w.weight(), 10_000);
    w.scenario = Scenario::Backstop;
    w.after(5);
    assert_eq!(
        (w.state.state, outcome(&w).1.as_str()),
        (State::RolledBack, "TotalErrors")
    );
}
