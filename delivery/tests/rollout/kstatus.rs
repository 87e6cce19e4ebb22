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
    let mut suspended = World::resting(policy());
    suspended.function.suspend = true;
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
        (suspended, Ready, "Suspended"),
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
