//! The conditions `Ready`, `Reconciling` and `Stalled`, which other tools read, for every reason.

use delivery::rollout::*;

use crate::world::*;

/// The one of the three conditions that is `True`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Summary {
    Ready,
    /// The rollout continues by itself or by an expected action.
    Reconciling,
    /// The spec is not live and will not be by itself.
    Stalled,
}
use Summary::{Ready, Reconciling, Stalled};

fn summary(world: &World, blocked: Option<&Blocked>) -> (Summary, String) {
    let all = conditions(&world.function, &world.state, blocked, "a sentence");
    let of = |kind| all.iter().find(|c| c.kind == kind).unwrap();
    let three = [
        (ConditionType::Ready, Ready),
        (ConditionType::Reconciling, Reconciling),
        (ConditionType::Stalled, Stalled),
    ];
    let mut on = three
        .iter()
        .filter(|(kind, _)| of(*kind).status == ConditionStatus::True);
    let scenario = on.next().expect("one of the three is True").1;
    assert!(on.next().is_none(), "only one of the three is True");
    (scenario, of(ConditionType::Ready).reason.clone())
}

fn held(reason: HoldReason) -> World {
    let mut world = World::stepping(policy());
    if reason == HoldReason::LoadDeadlineExceeded {
        world.state.state = State::Loading;
    }
    let rollout = world.state.rollout.as_mut().unwrap();
    rollout.flags.hold = Some(Hold {
        reason,
        since: world.now,
        message: "why".into(),
    });
    world
}

fn rejected(reason: &str) -> World {
    let mut world = World::rolled_back(policy());
    world.state.rejected.as_mut().unwrap().reason = reason.into();
    world
}

#[test]
fn only_holds_that_do_not_end_by_themselves_are_stalled() {
    for reason in HoldReason::ALL {
        let expected = match reason {
            // rows 8 and 18: only an action or another desired revision ends these
            HoldReason::LoadDeadlineExceeded | HoldReason::DeadlineExceeded => Stalled,
            HoldReason::Suspended
            | HoldReason::NoNodes
            | HoldReason::TotalErrors
            | HoldReason::PrometheusUnavailable
            | HoldReason::SamplesMissing
            | HoldReason::SharedFailure
            | HoldReason::NodesNotReady
            | HoldReason::ShareMismatch => Reconciling,
        };
        let word = TransitionKind::of_hold(reason)
            .effects()
            .progressing
            .unwrap()
            .1;
        assert_eq!(
            summary(&held(reason), None),
            (expected, word.into()),
            "{reason:?}"
        );
    }
}

#[test]
fn every_rejection_is_stalled() {
    let reasons = [
        ("ErrorsWorse", "RolledBack"),
        ("SlowerThanStable", "RolledBack"),
        ("ClientErrorsWorse", "RolledBack"),
        ("SloViolated", "RolledBack"),
        ("TotalErrors", "RolledBack"),
        ("DeadlineExceeded", "RolledBack"),
        ("PrometheusUnavailable", "RolledBack"),
        ("LoadFailed", "LoadFailed"),
        ("LoadDeadlineExceeded", "LoadFailed"),
        ("Aborted", "Aborted"),
    ];
    for (reason, word) in reasons {
        assert_eq!(
            summary(&rejected(reason), None),
            (Stalled, word.into()),
            "{reason}"
        );
    }
    let mut first = World::new(policy());
    (first.able, first.failing) = (0, 4);
    first.tick();
    first.tick();
    assert_eq!(first.state.state, State::Failed);
    assert_eq!(summary(&first, None), (Stalled, "LoadFailed".into()));
}

#[test]
fn every_state_with_a_rollout_is_reconciling_and_only_idle_is_ready() {
    let mut suspended_first = World::new(policy());
    suspended_first.function.suspend = true;
    suspended_first.tick();
    let mut asked = World::stepping(policy());
    let flags = &mut asked.state.rollout.as_mut().unwrap().flags;
    flags.waiting_for = vec![WaitingFor::Approval];
    let mut short = World::stepping(policy());
    let flags = &mut short.state.rollout.as_mut().unwrap().flags;
    flags.waiting_for = vec![WaitingFor::Evidence];
    let mut paused = World::stepping(policy());
    paused.annotate(delivery::function::Action::Pause, "checkout-b");
    paused.tick();
    let mut loading = World::resting(policy());
    loading.able = 0;
    loading.set_desired("b");
    loading.tick();
    let mut alone = World::resting(policy());
    alone.live = 0;
    alone.tick();
    let mut behind = World::resting(policy());
    behind.state.nodes.loaded = 1;
    let table = [
        (World::new(policy()), Reconciling, "Pending"),
        (suspended_first, Reconciling, "Suspended"),
        (loading, Reconciling, "Loading"),
        (World::queued(policy()), Reconciling, "Queued"),
        (asked, Reconciling, "AwaitingApproval"),
        (short, Reconciling, "AwaitingEvidence"),
        (paused, Reconciling, "Paused"),
        (World::baking(policy()), Reconciling, "Baking"),
        (World::resting(policy()), Ready, "Idle"),
        (alone, Reconciling, "NoNodes"),
        (behind, Reconciling, "NodesNotReady"),
    ];
    for (world, scenario, reason) in table {
        assert_eq!(summary(&world, None), (scenario, reason.into()));
    }
}

#[test]
fn a_blocked_spec_determines_ready_in_every_state() {
    let worlds = [
        World::new(policy()),
        World::resting(policy()),
        World::stepping(policy()),
        World::rolled_back(policy()),
    ];
    for world in worlds {
        for (permanent, scenario) in [(true, Stalled), (false, Reconciling)] {
            let blocked = Blocked {
                reason: "HostConflict".into(),
                message: "taken".into(),
                permanent,
            };
            assert_eq!(
                summary(&world, Some(&blocked)),
                (scenario, "HostConflict".into())
            );
        }
    }
}

/// A function without a rollout is never in the phase `Ready` while the condition `Ready` is false.
#[test]
fn the_phase_agrees_with_the_conditions() {
    let blocked = |permanent| Blocked {
        reason: "HostConflict".into(),
        message: "taken".into(),
        permanent,
    };
    let (refused, waits) = (blocked(true), blocked(false));
    let (new, resting) = (World::new(policy()), World::resting(policy()));
    let (stepping, rejected) = (World::stepping(policy()), World::rolled_back(policy()));
    let mut alone = World::resting(policy());
    alone.live = 0;
    alone.tick();
    let mut suspended = World::resting(policy());
    suspended.function.suspend = true;
    let table = [
        (&new, None, Phase::Pending),
        (&new, Some(&refused), Phase::Failed),
        (&new, Some(&waits), Phase::Pending),
        (&resting, None, Phase::Ready),
        (&resting, Some(&refused), Phase::Failed),
        (&resting, Some(&waits), Phase::Pending),
        (&alone, None, Phase::Pending),
        (&stepping, Some(&refused), Phase::Progressing),
        (&rejected, Some(&refused), Phase::RolledBack),
        (&suspended, Some(&refused), Phase::Suspended),
    ];
    for (world, blocked, expected) in table {
        assert_eq!(world.phase(blocked), expected, "{blocked:?}");
    }
}

#[test]
fn a_suspended_function_is_ready_when_no_node_serves_it_any_longer() {
    let mut w = World::resting(policy());
    let token = w.state.token;
    (w.acking, w.function.suspend) = (false, true);
    w.tick();
    assert!(w.state.token > token, "nodes acknowledge tokens only");
    assert_eq!(summary(&w, None), (Reconciling, "NodesNotReady".into()));
    assert_eq!(
        w.message(),
        "checkout-a is stable. The suspension is on its way to 4 nodes."
    );
    (w.acking, w.able) = (true, 3);
    w.after(1);
    assert_eq!(summary(&w, None), (Reconciling, "NodesNotReady".into()));
    assert!(
        w.message()
            .contains("1 of 4 nodes have not acknowledged the suspension, first node-17"),
        "{}",
        w.message()
    );
    w.able = 4;
    let writes = w.writes;
    w.after(1);
    assert_eq!(summary(&w, None), (Ready, "Suspended".into()));
    assert_eq!(
        w.writes,
        writes + 1,
        "the acknowledgement is written at once"
    );
    // neither a node that leaves nor another leader changes what nodes have
    w.live = 0;
    w.restart(60);
    assert_eq!(summary(&w, None), (Ready, "Suspended".into()));
    w.live = 4;
    (w.acking, w.function.suspend) = (false, false);
    w.after(60);
    assert_eq!(summary(&w, None), (Reconciling, "NodesNotReady".into()));
    assert_eq!(
        w.message(),
        "checkout-a is stable. The end of the suspension is on its way to 4 nodes."
    );
    w.acking = true;
    w.after(1);
    assert_eq!(summary(&w, None), (Ready, "Idle".into()));
}

#[test]
fn a_suspension_waits_for_nodes_that_exist_and_for_no_others() {
    let suspended = |desired| {
        let mut w = World::resting(policy());
        (w.desired, w.live, w.function.suspend) = (desired, 0, true);
        w.tick();
        w
    };
    let unreached = suspended(4);
    assert_eq!(summary(&unreached, None), (Reconciling, "NoNodes".into()));
    assert_eq!(
        unreached.message(),
        "checkout-a is stable. The suspension waits: none of 4 nodes can be reached."
    );
    assert_eq!(summary(&suspended(0), None), (Ready, "Suspended".into()));
}

#[test]
fn a_suspension_during_a_rollout_changes_no_token() {
    let mut w = World::stepping(policy());
    let token = w.state.token;
    w.function.suspend = true;
    w.tick();
    assert_eq!(summary(&w, None), (Reconciling, "Suspended".into()));
    w.set_desired("a");
    w.after(60);
    assert!(w.state.rollout.is_none() && w.state.token > token);
    assert_eq!(summary(&w, None), (Reconciling, "NodesNotReady".into()));
    w.after(1);
    assert_eq!(summary(&w, None), (Ready, "Suspended".into()));
    let mut w = World::stepping(policy());
    let token = w.state.token;
    for suspend in [true, false] {
        w.function.suspend = suspend;
        w.tick();
    }
    assert_eq!(
        (w.state.token, w.state.suspension),
        (token, Suspension::Off)
    );
}
