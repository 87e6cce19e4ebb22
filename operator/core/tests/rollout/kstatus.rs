//! `Ready`, `Reconciling`, `Stalled` as other tools read them, for every reason there is.

use operator_core::rollout::*;

use crate::world::*;

/// Which of the three is `True`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Ready,
    /// Wait, it goes on by itself or by a person's next word.
    Reconciling,
    /// The commit did not ship.
    Stalled,
}
use Says::{Ready, Reconciling, Stalled};

fn said(world: &World, blocked: Option<&Blocked>) -> (Says, String) {
    let all = conditions(&world.function, &world.state, blocked, "a sentence");
    let of = |kind| all.iter().find(|c| c.kind == kind).unwrap();
    let three = [
        (ConditionType::Ready, Ready),
        (ConditionType::Reconciling, Reconciling),
        (ConditionType::Stalled, Stalled),
    ];
    let mut on = three.iter().filter(|(kind, _)| of(*kind).status);
    let says = on.next().expect("one of the three is True").1;
    assert!(on.next().is_none(), "only one of the three is True");
    (says, of(ConditionType::Ready).reason.clone())
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
fn every_hold_says_whether_it_ends_by_itself() {
    for reason in HoldReason::ALL {
        let expected = match reason {
            // rows 8 and 18: nothing but a person or another wish helps
            HoldReason::LoadDeadlineExceeded | HoldReason::DeadlineExceeded => Stalled,
            HoldReason::Suspended
            | HoldReason::NoNodes
            | HoldReason::Brake
            | HoldReason::PrometheusUnavailable
            | HoldReason::SamplesMissing
            | HoldReason::SharedFailure
            | HoldReason::NodesNotReady
            | HoldReason::ShareMismatch => Reconciling,
        };
        let word = TransitionKind::of_hold(reason)
            .telling()
            .progressing
            .unwrap()
            .1;
        assert_eq!(
            said(&held(reason), None),
            (expected, word.into()),
            "{reason:?}"
        );
    }
}

#[test]
fn every_way_to_be_rejected_is_stalled() {
    let reasons = [
        ("ErrorsWorse", "RolledBack"),
        ("SlowerThanStable", "RolledBack"),
        ("ClientErrorsWorse", "RolledBack"),
        ("SloViolated", "RolledBack"),
        ("Brake", "RolledBack"),
        ("DeadlineExceeded", "RolledBack"),
        ("PrometheusUnavailable", "RolledBack"),
        ("LoadFailed", "LoadFailed"),
        ("LoadDeadlineExceeded", "LoadFailed"),
        ("Aborted", "Aborted"),
    ];
    for (reason, word) in reasons {
        assert_eq!(
            said(&rejected(reason), None),
            (Stalled, word.into()),
            "{reason}"
        );
    }
    let mut first = World::new(policy());
    (first.able, first.failing) = (0, 4);
    first.tick();
    first.tick();
    assert_eq!(first.state.state, State::Failed);
    assert_eq!(said(&first, None), (Stalled, "LoadFailed".into()));
}

#[test]
fn every_stage_of_a_rollout_is_on_its_way_and_only_rest_is_ready() {
    let mut asked = World::stepping(policy());
    let flags = &mut asked.state.rollout.as_mut().unwrap().flags;
    flags.waiting_for = vec![WaitingFor::Approval];
    let mut short = World::stepping(policy());
    let flags = &mut short.state.rollout.as_mut().unwrap().flags;
    flags.waiting_for = vec![WaitingFor::Evidence];
    let mut paused = World::stepping(policy());
    paused.verb(operator_core::function::Verb::Pause, "checkout-b");
    paused.tick();
    let mut loading = World::resting(policy());
    loading.able = 0;
    loading.wish("b");
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
        (loading, Reconciling, "Loading"),
        (World::queued(policy()), Reconciling, "Queued"),
        (asked, Reconciling, "AwaitingApproval"),
        (short, Reconciling, "AwaitingEvidence"),
        (paused, Reconciling, "Paused"),
        (World::baking(policy()), Reconciling, "Baking"),
        (World::resting(policy()), Ready, "Idle"),
        (alone, Reconciling, "NoNodes"),
        (behind, Reconciling, "NodesNotReady"),
        (suspended, Reconciling, "Suspended"),
    ];
    for (world, says, reason) in table {
        assert_eq!(said(&world, None), (says, reason.into()));
    }
}

#[test]
fn what_stands_in_the_way_of_a_wish_wins_in_every_state() {
    let worlds = [
        World::new(policy()),
        World::resting(policy()),
        World::stepping(policy()),
        World::rolled_back(policy()),
    ];
    for world in worlds {
        for (permanent, says) in [(true, Stalled), (false, Reconciling)] {
            let blocked = Blocked {
                reason: "HostConflict".into(),
                message: "taken".into(),
                permanent,
            };
            assert_eq!(said(&world, Some(&blocked)), (says, "HostConflict".into()));
        }
    }
}
