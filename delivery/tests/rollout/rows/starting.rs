//! Rows 1 to 10: from the desired revision to the first weight.

use super::*;
use delivery::rollout::TransitionKind as Kind;

#[test]
fn row_01_the_first_revision_is_served_by_each_node_that_has_loaded_it() {
    let mut w = World::new(policy());
    w.able = 1;
    w.tick();
    assert_eq!(w.kinds(), [Kind::FirstStarted]);
    assert_eq!(w.state.state, State::Loading);
    let split = traffic_split(&w.state);
    assert_eq!(
        (split.stable, split.candidate.as_deref()),
        (None, Some("checkout-a"))
    );
    assert_eq!(split.weight, Weight::FULL);
    assert_eq!(w.phase(None), Phase::Pending);
    assert_eq!(
        w.condition(ConditionType::Progressing),
        (true, "Loading".into())
    );
}

#[test]
fn row_01_a_start_gate_applies_before_the_first_weight() {
    let mut w = World::new(gated(GateAt::Start));
    w.tick();
    assert_eq!(traffic_split(&w.state).weight, Weight::ZERO);
    assert_eq!(w.kinds(), [Kind::FirstStarted, Kind::ApprovalNeeded]);
    w.annotate(Action::Approve, "checkout-a");
    w.after(1);
    assert_eq!(stable(&w), "checkout-a");
}

#[test]
fn row_02_the_first_revision_is_stable_once_enough_nodes_have_loaded_it() {
    let mut w = World::new(policy());
    w.able = 3;
    w.tick();
    assert_eq!(w.state.state, State::Loading);
    w.able = 4;
    w.after(1);
    assert_eq!(w.state.state, State::Idle);
    assert_eq!(stable(&w), "checkout-a");
    assert_eq!(outcome(&w), (Outcome::Promoted, "FirstRevision".into()));
    assert_eq!(w.kinds(), [Kind::FirstStarted, Kind::FirstPromoted]);
    w.after(1);
    assert_eq!(w.condition(ConditionType::Ready), (true, "Promoted".into()));
    let text =
        "no requests to checkout-a have been measured: they are measured during rollouts only";
    let unknown = (ConditionStatus::Unknown, "NotMeasured".into(), text.into());
    assert_eq!(
        w.healthy(),
        unknown,
        "it is loaded, and that is all that is known"
    );
}

#[test]
fn row_03_a_first_revision_that_cannot_load_fails_until_the_spec_changes() {
    let mut w = World::new(policy());
    (w.able, w.failing) = (0, 1);
    w.tick();
    assert_eq!(w.state.state, State::Failed);
    assert_eq!(w.kinds(), [Kind::FirstStarted, Kind::FirstFailed]);
    assert_eq!(
        w.condition(ConditionType::Stalled),
        (true, "LoadFailed".into())
    );
    assert!(
        w.message()
            .contains("first node-17 (Unauthorized: registry said 401)"),
        "{}",
        w.message()
    );
    assert!(!w.after(60).persist);
    (w.able, w.failing) = (4, 0);
    w.set_desired("b");
    w.after(1);
    assert_eq!(stable(&w), "checkout-b");
}

#[test]
fn row_04_another_desired_revision_starts_at_weight_zero_with_a_frozen_plan() {
    let mut w = World::resting(policy());
    w.able = 0;
    w.set_desired("b");
    w.tick();
    assert_eq!(w.kinds(), [Kind::Started]);
    assert_eq!((w.state.state, w.weight()), (State::Loading, 0));
    assert_eq!(
        (w.rollout().attempt, w.rollout().plan.kind),
        (1, PlanKind::Rollout)
    );
    // an edit of the policy does not affect the running rollout, and the message says so
    w.function.policy.as_mut().unwrap().steps.clear();
    w.after(1);
    assert_eq!(w.rollout().plan.steps.len(), 2);
    assert!(
        w.message().contains("applies to the next rollout"),
        "{}",
        w.message()
    );
}

#[test]
fn row_05_a_revert_to_the_previous_stable_revision_has_no_steps() {
    let mut w = promoted_b();
    w.slot = false;
    w.set_desired("a");
    w.after(60);
    assert_eq!(
        w.kinds(),
        [Kind::RevertStarted, Kind::Loaded, Kind::AllTraffic]
    );
    assert_eq!((w.state.state, w.weight()), (State::Baking, 9000));
    w.run(120);
    assert_eq!(stable(&w), "checkout-a");
    assert_eq!(outcome(&w), (Outcome::Promoted, "Reverted".into()));
}

#[test]
fn row_05_after_the_window_or_with_zero_revisions_it_is_a_full_rollout() {
    let mut w = promoted_b();
    w.set_desired("a");
    w.after(3601);
    assert!(w.kinds().contains(&Kind::Started), "{:?}", w.kinds());
    let mut w = promoted_b();
    w.function.policy.as_mut().unwrap().revert.revisions = 0;
    w.set_desired("a");
    w.after(1);
    assert_eq!(w.rollout().plan.kind, PlanKind::Rollout);
}

#[test]
fn row_05_a_previous_revision_that_was_rejected_since_gets_a_full_rollout() {
    let mut w = promoted_b();
    w.set_desired("a");
    w.after(1);
    w.annotate(Action::Abort, "checkout-a");
    w.after(1);
    assert_eq!(w.state.state, State::RolledBack);
    w.set_desired("b");
    w.after(1);
    w.set_desired("a");
    w.after(1);
    assert_eq!(w.rollout().plan.kind, PlanKind::Rollout);
}

#[test]
fn row_06_the_candidate_is_queued_once_enough_nodes_have_loaded_it() {
    let mut w = World::resting(policy());
    (w.slot, w.able) = (false, 3);
    w.set_desired("b");
    w.tick();
    assert_eq!(w.state.state, State::Loading);
    assert_eq!(
        w.message(),
        "loading: 1 of 4 nodes have not loaded checkout-b, first node-17 (Unauthorized: registry said 401)."
    );
    w.able = 4;
    w.after(1);
    assert_eq!(w.state.state, State::Queued);
    assert_eq!(waiting(&w), [WaitingFor::Slot]);
    assert_eq!(
        w.condition(ConditionType::Progressing),
        (true, "Queued".into())
    );
}

#[test]
fn row_07_a_candidate_that_cannot_load_is_rejected_before_any_request() {
    let mut w = World::resting(policy());
    (w.able, w.failing) = (3, 1);
    w.set_desired("b");
    w.tick();
    assert_eq!(w.state.state, State::RolledBack);
    assert_eq!(w.kinds(), [Kind::Started, Kind::LoadFailed]);
    assert_eq!(outcome(&w), (Outcome::RolledBack, "LoadFailed".into()));
    let message = &w.state.rejected.as_ref().unwrap().message;
    let first = "first node-17 (Unauthorized: registry said 401)";
    assert!(message.contains(first), "{message}");
    assert_eq!(stable(&w), "checkout-a");
    assert_eq!(
        w.condition(ConditionType::Progressing),
        (false, "LoadFailed".into())
    );
}

#[test]
fn row_07_failures_within_min_loaded_do_not_reject() {
    let mut w = World::resting(policy());
    (w.desired, w.live, w.able, w.failing) = (20, 20, 18, 1);
    w.set_desired("b");
    w.tick();
    assert_eq!(w.state.state, State::Loading);
    w.failing = 2;
    w.after(1);
    assert_eq!(w.state.state, State::RolledBack);
}

#[test]
fn row_08_the_load_deadline_holds_until_nodes_have_loaded_it() {
    let mut w = World::resting(policy());
    w.able = 1;
    w.set_desired("b");
    w.run(599);
    assert_eq!(hold(&w), None);
    w.run(2);
    assert_eq!(hold(&w), Some(HoldReason::LoadDeadlineExceeded));
    assert_eq!(
        w.condition(ConditionType::Stalled),
        (true, "LoadDeadlineExceeded".into())
    );
    w.able = 4;
    w.after(1);
    assert_eq!(w.state.state, State::Stepping);
    assert_eq!(
        w.kinds(),
        [
            Kind::Started,
            Kind::LoadDeadline,
            Kind::Resumed,
            Kind::Loaded,
            Kind::FirstTraffic
        ]
    );
}

#[test]
fn row_08_on_load_deadline_rollback_rejects() {
    let mut p = policy();
    p.nodes.on_load_deadline = Fallback::Rollback;
    let mut w = World::resting(p);
    w.able = 1;
    w.set_desired("b");
    w.run(605);
    assert_eq!(w.state.state, State::RolledBack);
    assert_eq!(outcome(&w).1, "LoadDeadlineExceeded");
}

#[test]
fn row_09_a_slot_lets_it_start() {
    let mut w = World::queued(policy());
    assert_eq!(w.weight(), 0);
    w.slot = true;
    w.after(1);
    assert_eq!((w.state.state, w.weight()), (State::Stepping, 500));
    assert_eq!(w.kinds().last(), Some(&Kind::FirstTraffic));
    assert!(holds_slot(&w.state));
}

#[test]
fn row_09_all_at_once_starts_with_the_bake() {
    let p = Policy {
        strategy: Strategy::AllAtOnce,
        ..policy()
    };
    let mut w = World::resting(p);
    w.set_desired("b");
    w.tick();
    assert_eq!((w.state.state, w.weight()), (State::Baking, 9000));
    assert_eq!(w.kinds(), [Kind::Started, Kind::Loaded, Kind::AllTraffic]);
    w.run(70);
    assert_eq!(stable(&w), "checkout-b");
}

#[test]
fn row_09_auto_weights_wait_for_the_traffic_measurement() {
    let mut p = policy();
    p.steps[0].weight = StepWeight::Auto;
    p.bake.holdback = Holdback::Auto;
    let mut w = World::resting(p);
    w.rps = Some(40.0);
    w.set_desired("b");
    w.tick();
    // the rollout began in this decision, so the traffic was not requested yet
    assert_eq!(w.state.state, State::Queued);
    w.run(1);
    assert_eq!((w.state.state, w.weight()), (State::Stepping, 417));
    assert_eq!(w.rollout().plan.final_weight(), Weight::new(9583));
}
