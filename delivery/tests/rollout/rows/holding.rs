//! Rows 17 to 23, 34 and 35: waits and holds.

use std::time::Duration;

use super::*;
use delivery::rollout::TransitionKind as Kind;

/// FE-4: the rollout reports `AwaitingEvidence` and what is missing, and the weight stays.
#[test]
fn row_17_a_step_waits_for_evidence_and_reports_missing_traffic() {
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
    w.scenario = Scenario::NoTraffic;
    w.run(60);
    assert_eq!(waiting(&w), [WaitingFor::Traffic, WaitingFor::Evidence]);
    assert!(w.message().contains("gets no requests"), "{}", w.message());
    assert_eq!(w.kinds(), []);
}

#[test]
fn row_18_the_deadline_holds_but_does_not_stop_a_good_evaluation() {
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
    w.scenario = Scenario::Good;
    w.run(6);
    assert_eq!((w.weight(), hold(&w)), (5000, None));
}

#[test]
fn row_18_on_deadline_rollback_rolls_back_unless_the_evaluation_is_good() {
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
    w.scenario = Scenario::Good;
    w.after(57);
    w.after(5);
    assert_eq!(w.weight(), 5000);
}

/// FE-1: the rollout is held at its weight until the outage ends.
#[test]
fn row_19_an_outage_of_a_minute_holds_and_ends() {
    for (scenario, reason, kind) in [
        (
            Scenario::Outage,
            HoldReason::PrometheusUnavailable,
            Kind::NoAnswer,
        ),
        (
            Scenario::Empty,
            HoldReason::SamplesMissing,
            Kind::NothingUsable,
        ),
    ] {
        let mut w = World::stepping(policy());
        w.scenario = scenario;
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
        w.scenario = Scenario::NotEnough;
        w.run(6);
        assert_eq!((hold(&w), w.kinds()), (None, vec![kind, Kind::Resumed]));
    }
}

/// FE-1: with Prometheus hanging the message said `The step lasts at least 5 s.` for 45 s.
#[test]
fn row_19_what_is_missing_is_named_by_the_first_evaluation_that_lacks_it() {
    for (scenario, says) in [
        (
            Scenario::Outage,
            "Prometheus has not answered since 2027-01-15T08:01:",
        ),
        (
            Scenario::Empty,
            "there have been no usable samples since 2027-01-15T08:01:",
        ),
    ] {
        for mut w in [World::stepping(policy()), World::baking(policy())] {
            w.scenario = scenario.clone();
            let missed = w.after(5);
            assert!(missed.persist, "{}", w.message());
            assert!(w.message().contains(says), "{}", w.message());
            assert!(!w.message().contains("lasts at least"), "{}", w.message());
            let writes = w.writes;
            w.after(5);
            assert_eq!(w.writes, writes, "the outage goes on");
            w.scenario = Scenario::NotEnough;
            assert!(w.after(5).persist);
            assert!(!w.message().contains(" since "), "{}", w.message());
        }
    }
}

/// FE-1: `onUnknown: Rollback` rolls back after `maxUnknown`; the weight never rises.
#[test]
fn row_19_an_outage_rolls_back_only_with_on_unknown_rollback() {
    let mut p = policy();
    p.analysis.on_unknown = Fallback::Rollback;
    for mut w in [World::stepping(p.clone()), World::baking(p)] {
        w.scenario = Scenario::Outage;
        w.run(590);
        assert_ne!(w.state.state, State::RolledBack);
        let text = w.message();
        assert!(
            text.contains("without usable samples it is rolled back"),
            "{text}"
        );
        w.run(20);
        assert_eq!(
            (w.state.state, outcome(&w).1.as_str()),
            (State::RolledBack, "MetricsUnavailable")
        );
    }
}

/// FE-5: the rollout is held, and the message says that the cause is shared.
#[test]
fn row_20_a_failure_of_both_revisions_holds() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Shared;
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
    w.scenario = Scenario::Good;
    w.run(310);
    assert_eq!(
        w.kinds(),
        [Kind::SharedFailure, Kind::Resumed, Kind::NextStep]
    );
}

#[test]
fn row_21_nodes_that_do_not_apply_the_weight_hold_after_the_grace_period() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Good;
    w.able = 3;
    w.run(28);
    assert_eq!(hold(&w), None);
    w.run(60);
    assert_eq!(
        (hold(&w), w.weight()),
        (Some(HoldReason::NodesNotReady), 500)
    );
    // disconnected nodes are not counted
    w.live = 3;
    w.run(6);
    assert_eq!(
        w.kinds(),
        [Kind::NodesNotReady, Kind::Resumed, Kind::NextStep]
    );
    // it stops a rise of the weight even before it becomes a hold
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Good;
    w.run(15);
    w.able = 3;
    w.run(25);
    assert_eq!((hold(&w), w.weight()), (None, 500));
    assert_eq!(waiting(&w), [WaitingFor::Nodes]);
}

#[test]
fn row_22_a_hold_ends_once_and_another_replaces_it_without_a_gap() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Outage;
    w.run(70);
    w.function.suspend = true;
    w.after(1);
    w.function.suspend = false;
    w.after(1);
    w.scenario = Scenario::NotEnough;
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
fn row_23_an_approval_is_requested_once_and_passes_the_gate() {
    let mut w = World::stepping(gated(GateAt::Step));
    w.scenario = Scenario::Good;
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
    let asked = w.rollout().flags.approval_requested_at;
    assert!(
        w.message().contains(
            "Waiting for approval (manager/step-0) since 2027-01-15T08:01:30Z. To approve: kubectl"
        ),
        "{}",
        w.message()
    );
    w.scenario = Scenario::NotEnough;
    w.run(3 * 3600);
    assert_eq!(w.rollout().flags.stopped_since(), asked);
    assert_eq!(
        w.kinds(),
        [Kind::ApprovalNeeded],
        "no deadline runs meanwhile"
    );
    w.slot = false;
    w.scenario = Scenario::Good;
    w.annotate(Action::Approve, "checkout-b/step-0");
    w.run(6);
    assert_eq!(w.rollout().flags.stopped_since(), None);
    assert_eq!(
        w.events.last().map(|t| t.message.as_str()),
        Some("approved (field manager kubectl-annotate): manager/step-0")
    );
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
fn row_23_an_approval_is_for_one_step() {
    let mut w = World::stepping(gated(GateAt::Step));
    w.scenario = Scenario::Good;
    w.run(40);
    w.annotate(Action::Approve, "checkout-b");
    w.run(60);
    assert_eq!(w.weight(), 5000);
    assert_eq!(
        w.kinds(),
        [
            Kind::ApprovalNeeded,
            Kind::Approved,
            Kind::NextStep,
            Kind::ApprovalNeeded
        ]
    );
    // the same value does not approve the next gate
    w.run(60);
    assert_eq!(w.weight(), 5000);
}

#[test]
fn row_23_promotion_and_bake_gates_apply_before_the_bake_and_before_its_end() {
    let mut w = World::stepping(gated(GateAt::Promotion));
    w.scenario = Scenario::Good;
    w.run(80);
    assert_eq!(
        (w.weight(), w.kinds()),
        (5000, vec![Kind::NextStep, Kind::ApprovalNeeded])
    );
    let mut w = World::baking(gated(GateAt::Bake));
    w.run(80);
    assert_eq!(
        (w.state.state, w.kinds()),
        (State::Baking, vec![Kind::ApprovalNeeded])
    );
    w.annotate(Action::Approve, "checkout-b");
    w.run(1);
    assert_eq!(stable(&w), "checkout-b");
}

#[test]
fn row_34_nodes_that_returned_to_stable_get_the_weight_again_and_the_step_restarts() {
    let mut w = World::stepping(policy());
    w.run(25);
    let evaluations = w.rollout().analysis.clone();
    w.live = 0;
    w.run(700);
    assert_eq!(hold(&w), Some(HoldReason::NoNodes));
    w.live = 4;
    let token = w.state.token;
    w.after(1);
    assert!(w.state.token > token);
    assert_eq!(
        w.kinds(),
        [Kind::NoNodes, Kind::Resumed, Kind::Resupervised]
    );
    assert_eq!(
        (w.rollout().active, w.rollout().step_evaluations),
        (Duration::ZERO, 0)
    );
    let n = |a: &Option<AnalysisState>| a.as_ref().map_or(0, |a| a.evaluations);
    assert!(
        n(&w.rollout().analysis) >= n(&evaluations),
        "evidence is kept"
    );
    // the operator was away
    let mut w = World::stepping(policy());
    w.restart(700);
    assert_eq!(w.kinds(), [Kind::Resupervised]);
    // or only the nodes lost contact
    let mut w = World::stepping(policy());
    w.returned = 4;
    w.after(1);
    w.returned = 4;
    w.acking = false;
    w.after(1);
    assert_eq!(w.kinds(), [Kind::Resupervised]);
}

#[test]
fn row_35_suspend_and_no_nodes_hold_and_keep_the_progress() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Good;
    w.function.suspend = true;
    w.after(1);
    let active = w.rollout().active;
    w.run(600);
    assert_eq!((w.weight(), hold(&w)), (500, Some(HoldReason::Suspended)));
    assert_eq!(w.phase(None), Phase::Suspended);
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
    w.run(20);
    assert_eq!(
        hold(&w),
        None,
        "a leader that has just started has not heard of any node"
    );
    w.run(15);
    assert_eq!(hold(&w), Some(HoldReason::NoNodes));
    assert_eq!(w.message(), "held: no node matches the placement.");
}

/// `kubectl scale --replicas=0` and back: the status does not show for half a minute that nodes serve what they do not serve.
#[test]
fn row_35_the_status_shows_at_once_that_no_node_serves_the_function() {
    let mut w = World::stepping(policy());
    let before = w.writes;
    w.desired = 3;
    w.live = 3;
    w.after(1);
    assert_eq!(w.writes, before, "nodes come and go");
    (w.desired, w.live) = (0, 0);
    w.after(1);
    assert_eq!((w.writes, w.persisted.nodes.desired), (before + 1, 0));
    (w.desired, w.live) = (4, 4);
    w.after(1);
    assert_eq!((w.writes, w.persisted.nodes.desired), (before + 2, 4));
}

/// A node that lacks the value of a Secret of stable answers 503 for it, which is counted for no revision.
#[test]
fn row_20_the_share_says_nothing_while_a_node_cannot_answer_with_both_revisions() {
    let mut w = World::stepping(policy());
    w.scenario = Scenario::Mismatch;
    for lacking in ["checkout-a", "checkout-b"] {
        let mut w = w.clone();
        w.now += Duration::from_secs(5);
        let mut input = w.input();
        for revision in &mut input.nodes.revisions {
            revision.loaded -= u32::from(revision.revision == lacking);
        }
        w.state = decide(w.now, &w.function, &w.state, &input).state;
        assert_eq!(hold(&w), None, "{lacking}");
    }
    w.after(5);
    assert_eq!(hold(&w), Some(HoldReason::ShareMismatch));
}
