//! Rows 11 to 13: steps, the bake and the promotion.

use std::time::Duration;

use super::*;
use delivery::rollout::TransitionKind as Kind;

#[test]
fn row_11_a_good_evaluation_after_the_minimum_time_starts_the_next_step() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Good;
    w.run(24);
    assert_eq!(w.weight(), 500, "29 s are not 30 s");
    w.run(10);
    assert_eq!((w.weight(), w.kinds()), (5000, vec![Kind::NextStep]));
    assert_eq!(w.state.steps[0].passed_by, Some(PassedBy::Evidence));
    assert_eq!(
        (
            w.rollout().step_evaluations <= 1,
            w.rollout().active < Duration::from_secs(10)
        ),
        (true, true)
    );
}

#[test]
fn row_11_two_evaluations_after_the_acknowledgement_are_needed() {
    let mut p = policy();
    p.steps[0].min_duration = Duration::ZERO;
    let mut w = World::resting(p);
    (w.scenario, w.acking) = (Scenario::Good, false);
    w.set_desired("b");
    w.run(25);
    assert_eq!(
        (w.weight(), w.rollout().step_evaluations),
        (500, 0),
        "evaluations before the acknowledgement do not count"
    );
    w.acking = true;
    w.after(5);
    assert_eq!(
        w.rollout().step_evaluations,
        0,
        "an evaluation at the same time does not count either"
    );
    w.after(5);
    assert_eq!((w.weight(), w.rollout().step_evaluations), (500, 1));
    w.after(5);
    assert_eq!(w.weight(), 5000);
    w.acking = false;
    for _ in 0..4 {
        w.after(5);
    }
    assert_eq!(
        w.rollout().step_evaluations,
        0,
        "the old share's acknowledgement is none of the new one"
    );
}

#[test]
fn row_11_a_step_waits_for_min_requests_and_coverage() {
    let mut p = policy();
    p.steps[0].min_requests = 1000;
    let mut w = World::stepping(p);
    (w.scenario, w.covered) = (Scenario::Good, false);
    w.run(35);
    assert_eq!(waiting(&w), [WaitingFor::Requests, WaitingFor::Coverage]);
    w.run(20);
    assert_eq!(waiting(&w), [WaitingFor::Coverage]);
    w.covered = true;
    w.run(6);
    assert_eq!(w.weight(), 5000);
}

#[test]
fn row_11_an_earlier_good_evaluation_does_not_end_a_step() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Good;
    w.after(5);
    w.scenario = Scenario::NotEnough;
    w.run(120);
    assert_eq!(w.weight(), 500);
}

#[test]
fn row_11_advance_time_ends_a_step_but_not_without_metrics() {
    let mut p = policy();
    p.steps[0].advance = Advance::Time;
    let mut w = World::stepping(p.clone());
    w.run(40);
    assert_eq!(w.weight(), 5000);
    assert_eq!(w.state.steps[0].passed_by, Some(PassedBy::Time));
    let mut w = World::stepping(p);
    w.scenario = Scenario::Outage;
    w.run(300);
    assert_eq!(
        (w.weight(), hold(&w)),
        (500, Some(HoldReason::PrometheusUnavailable))
    );
}

#[test]
fn row_12_the_bake_follows_the_last_step() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Good;
    w.run(75);
    assert_eq!((w.state.state, w.weight()), (State::Baking, 9000));
    assert_eq!(w.kinds(), [Kind::NextStep, Kind::BakeStarted]);
    assert_eq!(
        w.condition(ConditionType::Progressing),
        (true, "Baking".into())
    );
}

#[test]
fn row_13_after_the_bake_the_candidate_is_stable_and_the_old_one_stays_loaded() {
    let mut w = World::baking(policy());
    w.run(50);
    assert_eq!(w.state.state, State::Baking);
    w.run(15);
    assert_eq!((w.state.state, stable(&w)), (State::Idle, "checkout-b"));
    let split = traffic_split(&w.state);
    assert_eq!(
        (split.candidate, split.previous.as_deref()),
        (None, Some("checkout-a"))
    );
    assert_eq!(w.kinds(), [Kind::Promoted]);
    assert_eq!(
        w.last.as_ref().and_then(|d| d.wake_at),
        w.state.previous.as_ref().map(|p| p.until)
    );
    w.after(1);
    assert_eq!(w.condition(ConditionType::Ready), (true, "Promoted".into()));
}

/// A version that repairs a failing stable must not stay `Healthy=False` because of its predecessor.
#[test]
fn row_13_failures_of_the_old_stable_revision_are_not_those_of_the_new_one() {
    let mut w = World::baking(policy());
    let summary = w.state.evidence_summary.get_or_insert_default();
    summary.candidate.requests = 40;
    w.state.unhealthy = Some("30 of 40 requests to stable failed in one evaluation".into());
    assert_eq!(w.healthy().0, ConditionStatus::False);
    w.annotate(Action::Promote, "checkout-b");
    w.after(1);
    assert_eq!(stable(&w), "checkout-b");
    let text =
        "fewer than half of the requests to checkout-b failed when a rollout last measured them";
    let healthy = (ConditionStatus::True, "StableServes".into(), text.into());
    assert_eq!(w.healthy(), healthy);
}

#[test]
fn row_13_a_revision_that_was_promoted_without_a_request_is_not_healthy_by_that() {
    let mut w = World::baking(policy());
    w.state.stable_measured = true;
    w.state.evidence_summary = None;
    w.annotate(Action::Promote, "checkout-b");
    w.after(1);
    assert_eq!(stable(&w), "checkout-b");
    assert_eq!(w.healthy().0, ConditionStatus::Unknown);
}

#[test]
fn row_13_a_revision_that_failed_as_the_candidate_and_was_promoted_by_hand_is_not_healthy() {
    let mut w = World::baking(policy());
    let summary = w.state.evidence_summary.get_or_insert_default();
    (summary.candidate.requests, summary.candidate.errors) = (40, 30);
    w.annotate(Action::Promote, "checkout-b");
    w.after(1);
    let text = "30 of 40 requests to checkout-b failed in its rollout";
    let failing = (ConditionStatus::False, "StableFailing".into(), text.into());
    assert_eq!(w.healthy(), failing);
}

/// It needs no write of its own: that would be one more in each first rollout.
#[test]
fn row_11_health_is_known_from_the_first_measured_request() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::NoTraffic;
    w.state.stable_measured = false;
    w.run(10);
    let unknown = (ConditionStatus::Unknown, "NotMeasured".to_owned());
    let (status, reason, _) = w.healthy();
    assert_eq!((status, reason), unknown);
    w.scenario = Scenario::NotEnough;
    assert!(!w.after(5).persist);
    assert_eq!(w.healthy().0, ConditionStatus::True);
    w.scenario = Scenario::NoTraffic;
    w.after(5);
    let kept = "an evaluation without requests shows nothing";
    assert_eq!(w.healthy().0, ConditionStatus::True, "{kept}");
}

#[test]
fn row_13_a_hold_extends_the_bake() {
    let mut w = World::baking(policy());
    w.scenario = Scenario::Outage;
    w.run(200);
    assert_eq!(
        (w.state.state, hold(&w)),
        (State::Baking, Some(HoldReason::PrometheusUnavailable))
    );
    w.scenario = Scenario::NotEnough;
    w.run(12);
    assert_eq!(stable(&w), "checkout-b");
}

#[test]
fn row_13_nodes_that_are_behind_stop_the_promotion_even_before_a_hold() {
    let mut w = World::baking(policy());
    w.run(45);
    w.able = 3;
    w.run(20);
    assert_eq!((w.state.state, hold(&w)), (State::Baking, None));
    w.able = 4;
    w.run(6);
    assert_eq!(stable(&w), "checkout-b");
}

#[test]
fn step_records_count_while_the_step_runs_and_add_up_to_the_totals() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::NotEnough;
    w.run(60);
    let figures = |w: &World| w.state.evidence_summary.clone().unwrap();
    let all = figures(&w);
    assert!(all.candidate.requests > 0 && all.stable.errors > 0);
    assert_eq!(
        (w.state.steps[0].candidate, w.state.steps[0].stable),
        (all.candidate, all.stable)
    );
    w.scenario = Scenario::Good;
    w.run(10);
    w.scenario = Scenario::NotEnough;
    w.run(60);
    let [first, second] = w.state.steps.as_slice() else {
        panic!("two steps: {:?}", w.state.steps)
    };
    assert!(first.ended_at.is_some() && second.ended_at.is_none());
    assert!(first.candidate.requests >= all.candidate.requests && second.candidate.requests > 0);
    assert_eq!(
        first.stable.errors + second.stable.errors,
        figures(&w).stable.errors
    );
    assert_eq!(
        first.candidate.requests + second.candidate.requests,
        figures(&w).candidate.requests
    );
}
