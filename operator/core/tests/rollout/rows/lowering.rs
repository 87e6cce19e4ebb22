//! Rows 14 to 16: down.

use super::*;
use operator_core::rollout::TransitionKind as Kind;

/// FE-7: in the bake too, with the hint beside the write.
#[test]
fn row_14_a_bad_look_sends_everybody_back_at_once() {
    for mut w in [World::stepping(policy()), World::baking(policy())] {
        let from = w.weight();
        w.say = Say::Bad("ErrorsWorse");
        let d = w.after(5);
        assert_eq!((w.state.state, w.weight()), (State::RolledBack, 0));
        assert_eq!(w.kinds(), [Kind::CheckBad]);
        let hint = d.hint.expect("nodes are told in parallel");
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
fn row_14_neither_pause_nor_hold_nor_missing_acknowledgement_delays_it() {
    let mut w = World::stepping(policy());
    w.verb(Action::Pause, "checkout-b");
    w.after(1);
    w.acking = false;
    w.slot = false;
    w.say = Say::Outage;
    w.run(90);
    w.say = Say::Bad("ErrorsWorse");
    w.run(6);
    assert_eq!(w.state.state, State::RolledBack);
}

#[test]
fn row_16_the_brake_goes_one_step_down_and_holds_for_five_minutes() {
    let mut w = World::baking(policy());
    w.say = Say::Brake;
    w.after(5);
    assert_eq!(
        (w.state.state, w.weight(), w.rollout().step),
        (State::Stepping, 5000, 1)
    );
    assert_eq!(
        (hold(&w), w.kinds()),
        (Some(HoldReason::TotalErrors), vec![Kind::BackstopReached])
    );
    w.say = Say::Good;
    w.run(290);
    assert_eq!(w.weight(), 5000);
    w.run(20);
    assert_eq!((w.state.state, w.weight()), (State::Baking, 9000));
    assert_eq!(w.kinds(), [Kind::BackstopReached, Kind::Resumed, Kind::BakeStarted]);
}

#[test]
fn row_16_at_the_first_step_it_only_holds_and_after_the_third_time_a_person_is_needed() {
    let mut w = World::stepping(policy());
    w.say = Say::Brake;
    w.after(5);
    w.after(5);
    w.after(5);
    assert_eq!((w.weight(), w.rollout().backstops), (500, 3));
    assert_eq!(w.kinds(), [Kind::BackstopReached; 3]);
    w.say = Say::Good;
    w.run(2000);
    assert_eq!(w.weight(), 500);
    assert!(
        w.message().contains("selvage.dev/resume=checkout-b"),
        "{}",
        w.message()
    );
    w.verb(Action::Resume, "checkout-b");
    w.run(6);
    assert_eq!(w.weight(), 5000);
}

#[test]
fn row_16_without_a_control_it_is_a_rollback() {
    let mut p = Policy {
        strategy: Strategy::AllAtOnce,
        ..policy()
    };
    p.bake.holdback = Holdback::Fixed(Weight::ZERO);
    let mut w = World::resting(p);
    w.wish("b");
    w.tick();
    w.tick();
    assert_eq!(w.weight(), 10_000);
    w.say = Say::Brake;
    w.after(5);
    assert_eq!(
        (w.state.state, outcome(&w).1.as_str()),
        (State::RolledBack, "TotalErrors")
    );
}
