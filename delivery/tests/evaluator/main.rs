//! The [`Evaluator`] between the state machine and the samples: memory, restarts, dropped evaluations and steps.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test may fail"
)]

mod backstop;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use delivery::evaluator::{Evaluator, Sampled};
use delivery::rollout::{Measured, State, UnmeasuredKind, Verdict};

use delivery::samples::Snapshot;

use world::{NODE, World};

#[test]
fn counting_starts_where_the_history_ends() {
    let mut world = World::stepping();
    let look = world.evaluate([8, 8, 492, 5]);
    assert_eq!(look.evidence_summary.candidate.requests, 8);
    world.take(look);
    let look = world.evaluate([8, 8, 492, 5]);
    assert_eq!(
        look.verdict,
        Verdict::Bad {
            reason: "ErrorsWorse".into()
        }
    );
    let decisive = look.evidence_summary.decisive.clone().unwrap();
    assert_eq!(decisive.candidate, (16, 16));
    world.take(look);
    assert_eq!(world.state.state, State::RolledBack);
}

#[test]
fn without_memory_it_continues_from_the_state() {
    let (mut kept, mut lost) = (World::stepping(), World::stepping());
    for _ in 0..40 {
        let (a, b) = (kept.evaluate(kept.healthy()), lost.evaluate(lost.healthy()));
        assert_eq!(a.analysis, b.analysis);
        kept.take(a);
        lost.take(b);
        lost.memory = None;
    }
    assert!(kept.state.rollout.as_ref().unwrap().step > 0, "it rose");
}

/// The process crashes six evaluations after the last write, and the next one begins with the written state.
#[test]
fn lost_evaluations_are_repeated_from_the_history_of_the_samples() {
    let mut undisturbed = World::stepping();
    let (mut history, mut written) = (Vec::new(), None);
    for index in 0..10 {
        let look = undisturbed.evaluate([8, u64::from(index % 4 == 0), 492, 5]);
        history.push(undisturbed.snapshot());
        undisturbed.take(look);
        if index == 3 {
            written = Some(undisturbed.state.clone());
        }
    }
    let written = written.unwrap();
    assert_eq!(
        written.rollout.as_ref().map(|r| r.step),
        undisturbed.state.rollout.as_ref().map(|r| r.step),
        "nothing but evidence changed"
    );
    let (now, counters) = (undisturbed.now, undisturbed.counters);
    let again = |forgotten: Vec<Snapshot>| {
        let mut world = World::stepping();
        (world.now, world.counters) = (now, counters);
        (world.state, world.memory, world.forgotten) = (written.clone(), None, forgotten);
        let asked = Evaluator::forgotten(None, &world.state, now + Duration::from_secs(5));
        assert_eq!(asked, Some(Duration::from_secs(35)));
        let look = world.evaluate([8, 1, 492, 5]);
        world.take(look.clone());
        assert_eq!(
            Evaluator::forgotten(world.memory.as_ref(), &world.state, world.now),
            None
        );
        look
    };
    let recomputed = again(history);
    let lost = again(Vec::new());
    let expected = undisturbed.evaluate([8, 1, 492, 5]);
    assert_eq!(recomputed.analysis, expected.analysis);
    assert_eq!(recomputed.evidence_summary, expected.evidence_summary);
    assert_ne!(lost.analysis, expected.analysis);
    assert_eq!(
        lost.evidence_summary.candidate,
        expected.evidence_summary.candidate
    );
}

#[test]
fn an_evaluation_that_was_not_persisted_is_repeated_and_counts_once() {
    let (mut undisturbed, mut dropped) = (World::stepping(), World::stepping());
    for index in 0..20 {
        let a = undisturbed.evaluate([8, 0, 492, 5]);
        undisturbed.take(a);
        let b = dropped.evaluate([8, 0, 492, 5]);
        if index % 3 != 0 {
            dropped.take(b);
        }
    }
    let (a, b) = (
        undisturbed.evaluate([8, 0, 492, 5]),
        dropped.evaluate([8, 0, 492, 5]),
    );
    assert_eq!(b.evidence_summary.candidate, a.evidence_summary.candidate);
    assert_eq!(
        (
            a.evidence_summary.evaluations,
            b.evidence_summary.evaluations
        ),
        (21, 14),
        "seven were dropped"
    );
}

#[test]
fn missing_samples_are_normal_between_two_scrapes_and_a_fault_later() {
    let mut world = World::stepping();
    let look = world.evaluate([8, 0, 492, 5]);
    world.take(look);
    let mut answers = Vec::new();
    let last = world.snapshot();
    for _ in 0..4 {
        world.now += Duration::from_secs(5);
        let exposed = BTreeSet::from([NODE.to_owned()]);
        let snapshots = [last.clone()];
        let sampled = Sampled {
            now: world.now,
            exposed: &exposed,
            snapshots: &snapshots,
            before: &[],
            forgotten: &[],
            source: "Prometheus",
            problem: None,
            scrape_interval: Duration::from_secs(5),
        };
        answers.push(Evaluator::measure(
            &mut world.memory,
            &world.state,
            &sampled,
        ));
    }
    assert_eq!(answers[..2], [Measured::NotDue, Measured::NotDue]);
    assert!(matches!(
        answers[2],
        Measured::Unavailable {
            kind: UnmeasuredKind::NothingUsable,
            ..
        }
    ));
}

/// FE-3: the weight waits for a node whose target does not count, so the node and the reason are what its user has to know.
#[test]
fn a_node_without_counts_is_named_with_the_reason() {
    let mut world = World::stepping();
    for (problem, text) in [
        (None, "Waiting for fresh samples from other."),
        (
            Some("the target 10.0.0.7:9180 claims to be node-1"),
            "Waiting for fresh samples from other (the target 10.0.0.7:9180 claims to be node-1).",
        ),
    ] {
        world.count([8, 0, 492, 5]);
        let exposed = BTreeSet::from([NODE.to_owned(), "other".to_owned()]);
        let snapshots = [world.snapshot()];
        let sampled = Sampled {
            now: world.now,
            exposed: &exposed,
            snapshots: &snapshots,
            before: &world.before,
            forgotten: &[],
            source: "Prometheus",
            problem,
            scrape_interval: Duration::from_secs(5),
        };
        let measured = Evaluator::measure(&mut world.memory, &world.state, &sampled);
        let Measured::Evaluation(look) = measured else {
            panic!("{measured:?}")
        };
        world.take(*look);
        let message = delivery::rollout::message(world.now, &world.function, &world.state);
        assert!(message.contains(text), "{message}");
    }
    let look = world.evaluate([8, 0, 492, 5]);
    assert_eq!(look.evidence_summary.stale, None);
}

#[test]
fn figures_have_readable_names() {
    let mut world = World::stepping();
    let look = world.evaluate([8, 0, 492, 5]);
    let names: Vec<&str> = look
        .evidence_summary
        .metrics
        .iter()
        .map(|m| m.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["errors", "clientErrors", "latency/150ms", "latency/500ms"]
    );
    let shares: f64 = look.evidence_summary.metrics.iter().map(|m| m.share).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    assert_eq!(look.evidence_summary.power.len(), 3);
    assert!(look.evidence_summary.pass.limiting.is_some());
}

/// While writes fail, the next decision starts from the persisted state with the evidence since then, so a verdict from the
/// nodes' counters comes at the same evaluation as without the fault.
#[test]
fn evidence_survives_writes_that_fail() {
    let (mut undisturbed, mut failing) = (World::stepping(), World::stepping());
    let counts = [8, 3, 492, 5];
    let mut evaluations = 0;
    while undisturbed.state.state == State::Stepping {
        let evaluation = undisturbed.evaluate(counts);
        undisturbed.take(evaluation);
        evaluations += 1;
        let before = failing.state.clone();
        let evaluation = failing.evaluate(counts);
        failing.take(evaluation);
        if undisturbed.state.state == State::Stepping {
            let failed = std::mem::replace(&mut failing.state, before);
            failing.state = failing.state.with_evidence_of(&failed);
        }
        assert!(evaluations < 50, "never decided");
    }
    assert!(evaluations > 2, "{evaluations} evaluations");
    assert_eq!(failing.state.state, State::RolledBack);
    assert_eq!(
        failing.state.evidence_summary,
        undisturbed.state.evidence_summary
    );
}

/// A rise that could not be written is not taken, and the evidence for it stays.
#[test]
fn a_rise_that_was_not_written_is_decided_again() {
    let mut world = World::stepping();
    let weight = |world: &World| world.state.rollout.as_ref().unwrap().weight;
    let (first, mut rises) = (weight(&world), 0);
    for _ in 0..100 {
        let before = world.state.clone();
        let evaluation = world.evaluate(world.healthy());
        world.take(evaluation);
        if weight(&world) > first {
            rises += 1;
            let failed = std::mem::replace(&mut world.state, before);
            world.state = world.state.with_evidence_of(&failed);
        }
        assert_eq!(weight(&world), first);
    }
    assert!(rises > 10, "{rises}");
}
