//! One test or more per row of the table of transitions, named by the row.

use std::time::Duration;

use operator_core::function::Verb;
use operator_core::rollout::TransitionKind as Kind;
use operator_core::rollout::*;

use crate::world::*;

fn gated(at: GateAt, kind: GateKind) -> Policy {
    let mut p = policy();
    p.gates = vec![Gate {
        name: "manager".into(),
        at,
        kind,
    }];
    for step in &mut p.steps {
        step.gates = vec!["manager".into()];
    }
    p
}

fn stable(w: &World) -> &str {
    w.state
        .stable
        .as_ref()
        .map_or("", |s| s.revision.name.as_str())
}

fn outcome(w: &World) -> (Outcome, String) {
    let entry = w.state.history.first().expect("history");
    (entry.outcome, entry.reason.clone())
}

fn hold(w: &World) -> Option<HoldReason> {
    w.rollout().flags.hold.as_ref().map(|h| h.reason)
}

fn waiting(w: &World) -> &[WaitingFor] {
    &w.rollout().flags.waiting_for
}

#[test]
fn row_01_the_first_wish_loads_and_is_served_by_each_node_that_has_it() {
    let mut w = World::new(policy());
    w.able = 1;
    w.tick();
    assert_eq!(w.kinds(), [Kind::FirstStarted]);
    assert_eq!(w.state.state, State::Loading);
    let share = shares(&w.state);
    assert_eq!(
        (share.stable, share.candidate.as_deref()),
        (None, Some("checkout-a"))
    );
    assert_eq!(share.weight, Weight::FULL);
    assert_eq!(phase(&w.function, &w.state), Phase::Pending);
    assert_eq!(
        w.condition(ConditionType::Progressing),
        (true, "Loading".into())
    );
}

#[test]
fn row_01_a_start_gate_comes_before_the_first_share() {
    let mut w = World::new(gated(GateAt::Start, GateKind::Approval));
    w.tick();
    assert_eq!(shares(&w.state).weight, Weight::ZERO);
    assert_eq!(w.kinds(), [Kind::FirstStarted, Kind::ApprovalNeeded]);
    w.verb(Verb::Approve, "checkout-a");
    w.after(1);
    assert_eq!(stable(&w), "checkout-a");
}

#[test]
fn row_02_the_first_revision_is_stable_once_enough_nodes_have_it() {
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
}

#[test]
fn row_03_a_first_revision_that_never_loads_fails_until_another_wish() {
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
        w.message().contains("first node-17 (Unauthorized)"),
        "{}",
        w.message()
    );
    assert!(!w.after(60).persist);
    (w.able, w.failing) = (4, 0);
    w.wish("b");
    w.after(1);
    assert_eq!(stable(&w), "checkout-b");
}

#[test]
fn row_04_another_wish_starts_at_weight_zero_with_a_frozen_plan() {
    let mut w = World::resting(policy());
    w.able = 0;
    w.wish("b");
    w.tick();
    assert_eq!(w.kinds(), [Kind::Started]);
    assert_eq!((w.state.state, w.weight()), (State::Loading, 0));
    assert_eq!(
        (w.rollout().attempt, w.rollout().plan.kind),
        (1, PlanKind::Full)
    );
    // an edit of the policy does not touch the running rollout, and the message says so
    w.function.policy.steps.clear();
    w.after(1);
    assert_eq!(w.rollout().plan.steps.len(), 2);
    assert!(
        w.message().contains("applies to the next rollout"),
        "{}",
        w.message()
    );
}

fn promoted_b() -> World {
    let mut w = World::baking(policy());
    w.verb(Verb::Promote, "checkout-b");
    w.after(1);
    assert_eq!(stable(&w), "checkout-b");
    w.told.clear();
    w
}

#[test]
fn row_05_back_to_the_last_stable_goes_by_the_short_plan() {
    let mut w = promoted_b();
    w.slot = false;
    w.wish("a");
    w.after(60);
    assert_eq!(
        w.kinds(),
        [Kind::RevertStarted, Kind::Loaded, Kind::OnlyShare]
    );
    assert_eq!((w.state.state, w.weight()), (State::Baking, 9000));
    w.run(120);
    assert_eq!(stable(&w), "checkout-a");
    assert_eq!(outcome(&w), (Outcome::Promoted, "Reverted".into()));
}

#[test]
fn row_05_after_the_window_or_with_no_revisions_it_is_a_rollout_like_any_other() {
    let mut w = promoted_b();
    w.wish("a");
    w.after(3601);
    assert!(w.kinds().contains(&Kind::Started), "{:?}", w.kinds());
    let mut w = promoted_b();
    w.function.policy.revert.revisions = 0;
    w.wish("a");
    w.after(1);
    assert_eq!(w.rollout().plan.kind, PlanKind::Full);
}

#[test]
fn row_05_a_previous_that_was_rejected_since_proves_itself_again() {
    let mut w = promoted_b();
    w.wish("a");
    w.after(1);
    w.verb(Verb::Abort, "checkout-a");
    w.after(1);
    assert_eq!(w.state.state, State::RolledBack);
    w.wish("b");
    w.after(1);
    w.wish("a");
    w.after(1);
    assert_eq!(w.rollout().plan.kind, PlanKind::Full);
}

#[test]
fn row_06_enough_loaded_nodes_queue_it() {
    let mut w = World::resting(policy());
    (w.slot, w.able) = (false, 3);
    w.wish("b");
    w.tick();
    assert_eq!(w.state.state, State::Loading);
    assert_eq!(
        w.message(),
        "loading: 1 of 4 nodes have not loaded checkout-b, first node-17 (Unauthorized)."
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
fn row_07_a_candidate_that_never_loads_is_rejected_unserved() {
    let mut w = World::resting(policy());
    (w.able, w.failing) = (3, 1);
    w.wish("b");
    w.tick();
    assert_eq!(w.state.state, State::RolledBack);
    assert_eq!(w.kinds(), [Kind::Started, Kind::LoadFailed]);
    assert_eq!(outcome(&w), (Outcome::RolledBack, "LoadFailed".into()));
    assert_eq!(stable(&w), "checkout-a");
    assert_eq!(
        w.condition(ConditionType::Progressing),
        (false, "LoadFailed".into())
    );
}

#[test]
fn row_07_as_many_failures_as_min_loaded_allows_are_no_reason() {
    let mut w = World::resting(policy());
    (w.desired, w.live, w.able, w.failing) = (20, 20, 18, 1);
    w.wish("b");
    w.tick();
    assert_eq!(w.state.state, State::Loading);
    w.failing = 2;
    w.after(1);
    assert_eq!(w.state.state, State::RolledBack);
}

#[test]
fn row_08_the_load_deadline_holds_and_is_over_when_nodes_have_it() {
    let mut w = World::resting(policy());
    w.able = 1;
    w.wish("b");
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
            Kind::FirstShare
        ]
    );
}

#[test]
fn row_08_the_load_deadline_rejects_if_the_user_wants_that() {
    let mut p = policy();
    p.nodes.on_load_deadline = Fallback::Rollback;
    let mut w = World::resting(p);
    w.able = 1;
    w.wish("b");
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
    assert_eq!(w.kinds().last(), Some(&Kind::FirstShare));
    assert!(holds_slot(&w.state));
}

#[test]
fn row_09_all_at_once_goes_straight_to_the_bake() {
    let p = Policy {
        strategy: Strategy::AllAtOnce,
        ..policy()
    };
    let mut w = World::resting(p);
    w.wish("b");
    w.tick();
    assert_eq!((w.state.state, w.weight()), (State::Baking, 9000));
    assert_eq!(w.kinds(), [Kind::Started, Kind::Loaded, Kind::OnlyShare]);
    w.run(70);
    assert_eq!(stable(&w), "checkout-b");
}

#[test]
fn row_09_auto_weights_wait_for_what_is_known_of_the_traffic() {
    let mut p = policy();
    p.steps[0].weight = StepWeight::Auto;
    p.bake.holdback = Holdback::Auto;
    let mut w = World::resting(p);
    w.rps = Some(40.0);
    w.wish("b");
    w.tick();
    // the rollout began in this decision, so nothing had asked for the traffic yet
    assert_eq!(w.state.state, State::Queued);
    w.tick();
    assert_eq!((w.state.state, w.weight()), (State::Stepping, 417));
    assert_eq!(w.rollout().plan.final_weight(), Weight::new(9583));
}

#[test]
fn row_10_a_start_gate_that_says_no_rejects() {
    let mut w = World::resting(policy());
    w.function.policy = gated(GateAt::Start, GateKind::External);
    w.wish("b");
    w.tick();
    assert_eq!(waiting(&w), [WaitingFor::Gate]);
    w.gates = vec![GateAnswer {
        gate: "manager".into(),
        verdict: GateVerdict::Bad("smoke test failed".into()),
    }];
    w.after(1);
    assert_eq!(w.kinds().last(), Some(&Kind::StartGateBad));
    assert_eq!(outcome(&w), (Outcome::RolledBack, "GateFailed".into()));
    assert!(w.message().contains("smoke test failed"), "{}", w.message());
}

#[test]
fn row_11_a_good_look_after_the_least_time_takes_the_next_step() {
    let mut w = World::stepping(policy());
    w.say = Say::Good;
    w.run(24);
    assert_eq!(w.weight(), 500, "29 s are not 30 s");
    w.run(10);
    assert_eq!((w.weight(), w.kinds()), (5000, vec![Kind::NextStep]));
    assert_eq!(w.state.steps[0].passed_by, Some(PassedBy::Evidence));
    assert_eq!(
        (
            w.rollout().step_looks <= 1,
            w.rollout().active < Duration::from_secs(10)
        ),
        (true, true)
    );
}

#[test]
fn row_11_two_looks_after_the_acknowledgement_are_needed() {
    let mut p = policy();
    p.steps[0].min_duration = Duration::ZERO;
    let mut w = World::resting(p);
    (w.say, w.acking) = (Say::Good, false);
    w.wish("b");
    w.run(25);
    assert_eq!(
        (w.weight(), w.rollout().step_looks),
        (500, 0),
        "looks before the acknowledgement do not count"
    );
    w.acking = true;
    w.after(5);
    assert_eq!(
        w.rollout().step_looks,
        0,
        "the look that came with it does not either"
    );
    w.after(5);
    assert_eq!((w.weight(), w.rollout().step_looks), (500, 1));
    w.after(5);
    assert_eq!(w.weight(), 5000);
}

#[test]
fn row_11_min_requests_and_coverage_are_waited_for() {
    let mut p = policy();
    p.steps[0].min_requests = 1000;
    let mut w = World::stepping(p);
    (w.say, w.covered) = (Say::Good, false);
    w.run(35);
    assert_eq!(waiting(&w), [WaitingFor::Requests, WaitingFor::Coverage]);
    w.run(20);
    assert_eq!(waiting(&w), [WaitingFor::Coverage]);
    w.covered = true;
    w.run(6);
    assert_eq!(w.weight(), 5000);
}

#[test]
fn row_11_a_look_that_was_good_once_passes_nothing_later() {
    let mut w = World::stepping(policy());
    w.say = Say::Good;
    w.after(5);
    w.say = Say::NotEnough;
    w.run(120);
    assert_eq!(w.weight(), 500);
}

#[test]
fn row_11_time_alone_is_enough_if_the_user_says_so_but_not_without_metrics() {
    let mut p = policy();
    p.steps[0].advance = Advance::Time;
    let mut w = World::stepping(p.clone());
    w.run(40);
    assert_eq!(w.weight(), 5000);
    assert_eq!(w.state.steps[0].passed_by, Some(PassedBy::Time));
    let mut w = World::stepping(p);
    w.say = Say::Outage;
    w.run(300);
    assert_eq!(
        (w.weight(), hold(&w)),
        (500, Some(HoldReason::PrometheusUnavailable))
    );
}

#[test]
fn row_12_the_last_step_leads_into_the_bake() {
    let mut w = World::stepping(policy());
    w.say = Say::Good;
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
    let share = shares(&w.state);
    assert_eq!(
        (share.candidate, share.previous.as_deref()),
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

#[test]
fn row_13_a_hold_stretches_the_bake() {
    let mut w = World::baking(policy());
    w.say = Say::Outage;
    w.run(200);
    assert_eq!(
        (w.state.state, hold(&w)),
        (State::Baking, Some(HoldReason::PrometheusUnavailable))
    );
    w.say = Say::NotEnough;
    w.run(12);
    assert_eq!(stable(&w), "checkout-b");
}

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
    w.verb(Verb::Pause, "checkout-b");
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
fn row_14_a_gate_in_mid_rollout_that_says_no_sends_everybody_back() {
    let mut w = World::stepping(gated(GateAt::Step, GateKind::External));
    w.gates = vec![GateAnswer {
        gate: "manager".into(),
        verdict: GateVerdict::Bad("no".into()),
    }];
    w.after(1);
    assert_eq!((w.kinds(), w.weight()), (vec![Kind::GateBad], 0));
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
        (Some(HoldReason::Brake), vec![Kind::Braked])
    );
    w.say = Say::Good;
    w.run(290);
    assert_eq!(w.weight(), 5000);
    w.run(20);
    assert_eq!((w.state.state, w.weight()), (State::Baking, 9000));
    assert_eq!(w.kinds(), [Kind::Braked, Kind::Resumed, Kind::BakeStarted]);
}

#[test]
fn row_16_at_the_first_step_it_only_holds_and_after_the_third_time_a_person_is_needed() {
    let mut w = World::stepping(policy());
    w.say = Say::Brake;
    w.after(5);
    w.after(5);
    w.after(5);
    assert_eq!((w.weight(), w.rollout().brakes), (500, 3));
    assert_eq!(w.kinds(), [Kind::Braked; 3]);
    w.say = Say::Good;
    w.run(2000);
    assert_eq!(w.weight(), 500);
    assert!(
        w.message().contains("selvage.dev/resume=checkout-b"),
        "{}",
        w.message()
    );
    w.verb(Verb::Resume, "checkout-b");
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
        (State::RolledBack, "Brake")
    );
}

#[test]
fn row_17_missing_evidence_is_waited_for_and_traffic_is_asked_for() {
    let mut w = World::stepping(policy());
    w.run(40);
    assert_eq!(waiting(&w), [WaitingFor::Evidence]);
    assert_eq!(
        w.condition(ConditionType::Progressing),
        (true, "AwaitingEvidence".into())
    );
    assert!(
        w.message()
            .ends_with("About 150 more requests to the next step, 62 % of the way."),
        "{}",
        w.message()
    );
    w.say = Say::NoTraffic;
    w.run(60);
    assert_eq!(waiting(&w), [WaitingFor::Traffic, WaitingFor::Evidence]);
    assert!(w.message().contains("gets no requests"), "{}", w.message());
    assert_eq!(w.kinds(), []);
}

#[test]
fn row_18_the_deadline_holds_but_does_not_stop_a_good_look() {
    let mut p = policy();
    p.steps[0].deadline = Duration::from_secs(60);
    let mut w = World::stepping(p);
    w.run(70);
    assert_eq!(
        (hold(&w), w.kinds()),
        (Some(HoldReason::DeadlineExceeded), vec![Kind::Deadline])
    );
    assert_eq!(
        w.condition(ConditionType::Stalled),
        (true, "DeadlineExceeded".into())
    );
    w.say = Say::Good;
    w.run(6);
    assert_eq!((w.weight(), hold(&w)), (5000, None));
}

#[test]
fn row_18_the_deadline_sends_back_if_the_user_wants_that_unless_the_look_is_good() {
    let mut p = policy();
    p.steps[0].deadline = Duration::from_secs(60);
    p.steps[0].on_deadline = Fallback::Rollback;
    let mut w = World::stepping(p.clone());
    w.run(70);
    assert_eq!(
        (w.kinds(), outcome(&w).1.as_str()),
        (vec![Kind::DeadlineRollback], "DeadlineExceeded")
    );
    p.steps[0].min_duration = Duration::from_secs(60);
    let mut w = World::stepping(p);
    w.say = Say::Good;
    w.after(57);
    w.after(5);
    assert_eq!(w.weight(), 5000);
}

#[test]
fn row_19_an_outage_of_a_minute_holds_and_ends() {
    for (say, reason, kind) in [
        (
            Say::Outage,
            HoldReason::PrometheusUnavailable,
            Kind::NoAnswer,
        ),
        (Say::Empty, HoldReason::SamplesMissing, Kind::NothingUsable),
    ] {
        let mut w = World::stepping(policy());
        w.say = say;
        w.run(55);
        assert_eq!(hold(&w), None);
        w.run(15);
        assert_eq!((hold(&w), w.kinds()), (Some(reason), vec![kind]));
        w.run(3600);
        assert_eq!(
            (w.weight(), w.state.state),
            (500, State::Stepping),
            "nothing is rolled back for it"
        );
        w.say = Say::NotEnough;
        w.run(6);
        assert_eq!((hold(&w), w.kinds()), (None, vec![kind, Kind::Resumed]));
    }
}

#[test]
fn row_19_an_outage_sends_back_only_if_the_user_wants_that() {
    let mut p = policy();
    p.analysis.on_unknown = Fallback::Rollback;
    for mut w in [World::stepping(p.clone()), World::baking(p)] {
        w.say = Say::Outage;
        w.run(590);
        assert_ne!(w.state.state, State::RolledBack);
        w.run(20);
        assert_eq!(
            (w.state.state, outcome(&w).1.as_str()),
            (State::RolledBack, "MetricsUnavailable")
        );
    }
}

#[test]
fn row_20_a_failure_of_both_arms_holds() {
    let mut w = World::stepping(policy());
    w.say = Say::Shared;
    w.run(300);
    assert_eq!(
        (hold(&w), w.weight()),
        (Some(HoldReason::SharedFailure), 500)
    );
    assert!(
        w.message().contains("so the cause is shared"),
        "{}",
        w.message()
    );
    w.say = Say::Good;
    w.run(310);
    assert_eq!(
        w.kinds(),
        [Kind::SharedFailure, Kind::Resumed, Kind::NextStep]
    );
}

#[test]
fn row_21_nodes_that_do_not_follow_hold_after_a_while() {
    let mut w = World::stepping(policy());
    w.say = Say::Good;
    w.able = 3;
    w.run(28);
    assert_eq!(hold(&w), None);
    w.run(60);
    assert_eq!(
        (hold(&w), w.weight()),
        (Some(HoldReason::NodesNotReady), 500)
    );
    // silent nodes are not counted
    w.live = 3;
    w.run(6);
    assert_eq!(
        w.kinds(),
        [Kind::NodesNotReady, Kind::Resumed, Kind::NextStep]
    );
}

#[test]
fn row_22_one_hold_ends_once_and_another_takes_over_without_a_gap() {
    let mut w = World::stepping(policy());
    w.say = Say::Outage;
    w.run(70);
    w.function.suspend = true;
    w.after(1);
    w.function.suspend = false;
    w.after(1);
    w.say = Say::NotEnough;
    w.run(10);
    assert_eq!(
        w.kinds(),
        [
            Kind::NoAnswer,
            Kind::Suspended,
            Kind::NoAnswer,
            Kind::Resumed
        ]
    );
}

#[test]
fn row_23_an_approval_is_asked_for_once_and_opens_the_gate() {
    let mut w = World::stepping(gated(GateAt::Step, GateKind::Approval));
    w.say = Say::Good;
    w.run(40);
    assert_eq!((w.weight(), w.kinds()), (500, vec![Kind::ApprovalNeeded]));
    assert_eq!(waiting(&w), [WaitingFor::Approval]);
    assert_eq!(
        w.condition(ConditionType::Progressing),
        (true, "AwaitingApproval".into())
    );
    assert!(!holds_slot(&w.state), "its place is given back");
    assert!(
        w.message()
            .contains("selvage.dev/approve=checkout-b/step-0 --overwrite"),
        "{}",
        w.message()
    );
    w.say = Say::NotEnough;
    w.run(300);
    assert_eq!(w.kinds(), [Kind::ApprovalNeeded], "asked once");
    w.slot = false;
    w.say = Say::Good;
    w.verb(Verb::Approve, "checkout-b/step-0");
    w.run(6);
    assert_eq!(
        (w.weight(), waiting(&w)),
        (500, &[WaitingFor::Slot][..]),
        "and taken again before the raise"
    );
    w.slot = true;
    w.run(6);
    assert_eq!(w.weight(), 5000);
}

#[test]
fn row_23_promotion_and_bake_gates_stand_where_they_say() {
    let mut w = World::stepping(gated(GateAt::Promotion, GateKind::Approval));
    w.say = Say::Good;
    w.run(80);
    assert_eq!(
        (w.weight(), w.kinds()),
        (5000, vec![Kind::NextStep, Kind::ApprovalNeeded])
    );
    let mut w = World::baking(gated(GateAt::Bake, GateKind::Approval));
    w.run(80);
    assert_eq!(
        (w.state.state, w.kinds()),
        (State::Baking, vec![Kind::ApprovalNeeded])
    );
    w.verb(Verb::Approve, "checkout-b");
    w.run(1);
    assert_eq!(stable(&w), "checkout-b");
}

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

#[test]
fn row_29_abort_rejects_from_any_live_state() {
    let mut loading = World::resting(policy());
    loading.able = 0;
    loading.wish("b");
    loading.tick();
    for mut w in [
        loading,
        World::queued(policy()),
        World::stepping(policy()),
        World::baking(policy()),
    ] {
        w.told.clear();
        w.verb(Verb::Abort, "checkout-b");
        w.after(1);
        assert_eq!((w.state.state, w.weight()), (State::RolledBack, 0));
        assert_eq!(
            (w.kinds(), outcome(&w)),
            (vec![Kind::Aborted], (Outcome::Aborted, "Aborted".into()))
        );
        assert_eq!(w.state.history[0].by.as_deref(), Some("ada"));
        assert_eq!(
            w.condition(ConditionType::Progressing),
            (false, "Aborted".into())
        );
    }
}

#[test]
fn row_30_pause_stops_raises_and_clocks_and_resume_goes_on() {
    let mut w = World::stepping(policy());
    w.say = Say::Good;
    w.verb(Verb::Pause, "checkout-b");
    w.after(1);
    let active = w.rollout().active;
    w.run(3600);
    assert_eq!((w.weight(), w.rollout().active), (500, active));
    assert!(
        w.rollout().analysis.as_ref().is_some_and(|a| a.looks > 700),
        "evidence goes on"
    );
    assert_eq!(phase(&w.function, &w.state), Phase::Paused);
    assert_eq!(
        w.condition(ConditionType::Progressing),
        (true, "Paused".into())
    );
    assert!(!holds_slot(&w.state));
    w.verb(Verb::Resume, "checkout-b");
    w.run(40);
    assert_eq!(
        (w.weight(), w.kinds()),
        (5000, vec![Kind::Paused, Kind::Unpaused, Kind::NextStep])
    );
    // the annotation is still there and does not fire again
    assert!(w.rollout().flags.paused.is_none());
}

#[test]
fn row_30_both_seen_together_is_a_pause() {
    let mut w = World::stepping(policy());
    w.verb(Verb::Resume, "checkout-b");
    w.verb(Verb::Pause, "checkout-b");
    w.after(1);
    assert!(w.rollout().flags.paused.is_some());
    w.run(60);
    assert!(w.rollout().flags.paused.is_some());
}

#[test]
fn row_31_promote_takes_exactly_one_step_however_often_it_is_seen() {
    let mut w = World::stepping(policy());
    w.verb(Verb::Promote, "checkout-b/step-0");
    w.after(1);
    assert_eq!((w.weight(), w.kinds()), (5000, vec![Kind::PromotedByVerb]));
    assert_eq!(w.state.steps[0].passed_by, Some(PassedBy::Verb));
    // a second person raced with the same line
    w.run(60);
    assert_eq!(w.weight(), 5000);
    // and a third with another token for the same step
    w.verb(Verb::Promote, "checkout-b");
    w.after(1);
    assert_eq!(w.state.state, State::Baking);
    w.verb(Verb::Promote, "checkout-b/step-0");
    w.after(1);
    assert_eq!(
        (w.state.state, w.kinds().last()),
        (State::Baking, Some(&Kind::VerbIgnored))
    );
}

#[test]
fn row_31_a_bare_revision_fires_once_per_attempt() {
    let mut w = World::stepping(policy());
    for value in ["checkout-b", "checkout-x", "checkout-b"] {
        w.verb(Verb::Promote, value);
        w.after(1);
    }
    assert_eq!(w.weight(), 5000, "{:?}", w.kinds());
}

#[test]
fn row_31_it_skips_gates_holds_and_slots_but_no_bad_and_no_pause() {
    let mut w = World::stepping(gated(GateAt::Step, GateKind::Approval));
    w.say = Say::Outage;
    w.run(90);
    w.verb(Verb::Promote, "checkout-b");
    w.after(1);
    assert_eq!(w.weight(), 5000);
    let mut w = World::stepping(policy());
    w.say = Say::Bad("ErrorsWorse");
    w.verb(Verb::Promote, "checkout-b");
    w.after(5);
    assert_eq!(w.state.state, State::RolledBack);
    let mut w = World::stepping(policy());
    w.verb(Verb::Pause, "checkout-b");
    w.verb(Verb::Promote, "checkout-b");
    w.after(5);
    assert_eq!(
        (w.weight(), w.kinds()),
        (500, vec![Kind::Paused, Kind::VerbIgnored])
    );
    let mut w = World::resting(policy());
    w.function.policy = gated(GateAt::Start, GateKind::Approval);
    w.slot = false;
    w.wish("b");
    w.tick();
    assert_eq!(waiting(&w), [WaitingFor::Approval]);
    w.verb(Verb::Promote, "checkout-b");
    w.after(1);
    assert_eq!(w.weight(), 500);
    let mut w = World::baking(policy());
    w.verb(Verb::Promote, "checkout-b/now");
    w.after(1);
    assert_eq!(
        (stable(&w), outcome(&w).0),
        ("checkout-b", Outcome::Promoted)
    );
    assert_eq!(w.state.history[0].by.as_deref(), Some("ada"));
}

#[test]
fn row_32_promote_full_skips_steps_but_not_the_bake() {
    let mut loaded = World::queued(policy());
    loaded.told.clear();
    for mut w in [loaded, World::stepping(policy())] {
        w.verb(Verb::PromoteFull, "checkout-b");
        w.after(1);
        assert_eq!((w.state.state, w.weight()), (State::Baking, 9000));
        assert_eq!(w.kinds(), [Kind::PromotedFullByVerb]);
    }
    let mut w = World::resting(policy());
    w.able = 0;
    w.wish("b");
    w.verb(Verb::PromoteFull, "checkout-b");
    w.tick();
    assert_eq!(
        (w.state.state, w.kinds().last()),
        (State::Loading, Some(&Kind::VerbIgnored))
    );
}

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

#[test]
fn row_34_nodes_that_had_returned_to_stable_get_the_share_again_and_the_clock_restarts() {
    let mut w = World::stepping(policy());
    w.run(25);
    let looks = w.rollout().analysis.clone();
    w.live = 0;
    w.run(700);
    assert_eq!(hold(&w), Some(HoldReason::NoNodes));
    w.live = 4;
    let pair = w.state.pair;
    w.after(1);
    assert!(w.state.pair > pair);
    assert_eq!(
        w.kinds(),
        [Kind::NoNodes, Kind::Resumed, Kind::Resupervised]
    );
    assert_eq!(
        (w.rollout().active, w.rollout().step_looks),
        (Duration::ZERO, 0)
    );
    let n = |a: &Option<AnalysisState>| a.as_ref().map_or(0, |a| a.looks);
    assert!(n(&w.rollout().analysis) >= n(&looks), "evidence is kept");
    // the operator itself was away
    let mut w = World::stepping(policy());
    w.restart(700);
    assert_eq!(w.kinds(), [Kind::Resupervised]);
    // or only the nodes noticed
    let mut w = World::stepping(policy());
    w.returned = 4;
    w.after(1);
    w.returned = 4;
    w.acking = false;
    w.after(1);
    assert_eq!(w.kinds(), [Kind::Resupervised]);
}

#[test]
fn row_35_suspend_and_no_nodes_hold_and_lose_nothing() {
    let mut w = World::stepping(policy());
    w.say = Say::Good;
    w.function.suspend = true;
    w.after(1);
    let active = w.rollout().active;
    w.run(600);
    assert_eq!((w.weight(), hold(&w)), (500, Some(HoldReason::Suspended)));
    assert_eq!(phase(&w.function, &w.state), Phase::Suspended);
    assert!(w.rollout().active <= active, "the clock stands");
    assert_eq!(
        w.condition(ConditionType::Reconciling),
        (true, "Suspended".into())
    );
    w.function.suspend = false;
    w.run(60);
    assert_eq!(w.kinds(), [Kind::Suspended, Kind::Resumed, Kind::NextStep]);
    let mut w = World::stepping(policy());
    w.desired = 0;
    w.live = 0;
    w.after(1);
    assert_eq!(hold(&w), Some(HoldReason::NoNodes));
    assert_eq!(w.message(), "held: no node matches the placement.");
}

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

#[test]
fn row_37_a_status_older_than_the_nodes_is_lost_but_a_hint_before_a_crash_is_not() {
    let mut w = World::stepping(policy());
    let pair = w.state.pair;
    w.highest = Some(Pair {
        serial: pair.serial + 1,
        ..pair
    });
    w.after(1);
    assert_eq!(w.kinds(), []);
    w.highest = Some(Pair {
        epoch: pair.epoch + 1,
        serial: 1,
    });
    w.promoted = Some(revision("a"));
    w.after(1);
    assert_eq!(w.kinds()[0], Kind::StateLost);
    assert!(
        w.state.pair
            > Pair {
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

#[test]
fn row_39_verbs_without_meaning_are_recorded_with_the_reason() {
    let cases: [(Verb, &str, &str); 7] = [
        (Verb::Promote, "checkout-x", "the candidate is checkout-b"),
        (
            Verb::Promote,
            "checkout-b/step-1",
            "step 1 is not the present one",
        ),
        (Verb::Approve, "checkout-b", "no approval is awaited"),
        (Verb::Resume, "checkout-b", "it is not paused"),
        (Verb::Retry, "checkout-b", "nothing was rolled back"),
        (Verb::Abort, "checkout-x", "the candidate is checkout-b"),
        (Verb::PromoteFull, "", ""),
    ];
    for (verb, value, why) in cases {
        let mut w = World::stepping(policy());
        w.verb(verb, value);
        w.after(1);
        w.run(10);
        let record = w.state.verbs.iter().find(|r| r.verb == verb);
        if why.is_empty() {
            assert_eq!(record, None, "an empty value says nothing");
            continue;
        }
        assert_eq!(w.kinds(), [Kind::VerbIgnored], "{verb:?}");
        assert_eq!(
            record.map(|r| &r.result),
            Some(&VerbResult::Ignored(why.into()))
        );
        assert_eq!(w.weight(), 500);
    }
    let mut w = World::resting(policy());
    w.verb(Verb::Abort, "checkout-a");
    assert!(w.tick().persist);
    assert!(!w.after(1).persist);
    assert_eq!(
        (w.state.state, w.kinds()),
        (State::Idle, vec![Kind::VerbIgnored])
    );
}

#[test]
fn row_39_an_absurdly_long_value_is_cut() {
    let mut w = World::stepping(policy());
    w.verb(Verb::Abort, &"x".repeat(250_000));
    w.after(1);
    assert!(w.state.verbs[0].value.len() <= 128);
    w.run(10);
    assert_eq!(w.kinds().len(), 1);
}
