//! A message is made of parts, and every combination of them must read as sentences.

use std::time::Duration;

use delivery::rollout::*;

use crate::world::*;

/// The first word that follows a full stop without a capital letter.
pub fn word_in_lower_case(text: &str) -> Option<&str> {
    let mut after_stops = text.split(". ").skip(1);
    after_stops.find(|rest| rest.starts_with(|first: char| first.is_lowercase()))
}

/// The first word that follows a colon with a capital letter and is neither a name nor code.
pub fn word_with_a_capital(text: &str) -> Option<&str> {
    let without_code = text.split('`').step_by(2);
    let mut after_colons = without_code.flat_map(|text| text.split(": ").skip(1));
    after_colons
        .find(|rest| rest.starts_with(char::is_uppercase) && !rest.starts_with("Prometheus"))
}

/// Checks that each sentence begins as it should.
fn check_sentences(world: &World) {
    let text = world.message();
    assert_eq!(word_in_lower_case(&text), None, "{text}");
    assert_eq!(word_with_a_capital(&text), None, "{text}");
}

/// All situations that add a part to the message of a running rollout.
fn situations(mut world: World, check: impl Fn(&World)) {
    let holds = HoldReason::ALL.map(Some).into_iter().chain([None]);
    let waits = [
        WaitingFor::Spec,
        WaitingFor::Nodes,
        WaitingFor::Slot,
        WaitingFor::Approval,
        WaitingFor::Time,
        WaitingFor::Requests,
        WaitingFor::Traffic,
        WaitingFor::Evidence,
        WaitingFor::Coverage,
    ];
    for reason in holds {
        for wait in waits {
            for paused in [None, Some("alice"), Some("StateLost")] {
                let now = world.now;
                world.state.superseded = 2;
                let flags = &mut world.state.rollout.as_mut().unwrap().flags;
                flags.waiting_for = vec![wait];
                flags.hold = reason.map(|reason| Hold {
                    reason,
                    since: now,
                    message: "why it is held".into(),
                });
                flags.paused = paused.map(|by| Paused {
                    since: now,
                    by: by.into(),
                    reason: by.into(),
                });
                check(&world);
            }
        }
    }
}

#[test]
fn every_part_of_a_message_is_a_sentence() {
    let loading = || {
        let mut world = World::stepping(policy());
        world.state.state = State::Loading;
        world
    };
    let queued = || {
        let mut world = World::stepping(policy());
        world.state.state = State::Queued;
        world
    };
    let measured = |mut world: World| {
        world.run(5);
        assert!(world.state.evidence_summary.is_some());
        world
    };
    let worlds = [
        loading(),
        queued(),
        World::stepping(policy()),
        measured(World::stepping(policy())),
        World::baking(policy()),
        measured(World::baking(policy())),
    ];
    for world in worlds {
        situations(world, check_sentences);
    }
    for seconds in [1, 600] {
        let mut world = World::rolled_back(policy());
        world.now += Duration::from_secs(seconds);
        check_sentences(&world);
    }
    for suspend in [false, true] {
        for mut world in [World::new(policy()), World::resting(policy())] {
            world.function.suspend = suspend;
            check_sentences(&world);
        }
    }
}
