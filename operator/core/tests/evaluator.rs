//! The [`Evaluator`] between the state machine and the samples: memory, restarts, dropped evaluations and steps.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use operator_core::evaluator::{Evaluator, Sampled};
use operator_core::function::{Function, Revision};
use operator_core::rollout::{
    Evaluation, Evidence, Measured, NodesView, Policy, RevisionOnNodes, RevisionRef, RolloutState,
    State, Traffic, UnmeasuredKind, Verdict, decide, due, traffic_split,
};
use operator_core::samples::{Code, Counters, Outcome, Snapshot};

const STABLE: &str = "shop-old";
const CANDIDATE: &str = "shop-new";
const NODE: &str = "node-1";

struct World {
    function: Function,
    state: RolloutState,
    counters: [Counters; 2],
    now: Timestamp,
    memory: Option<Evaluator>,
    before: Vec<Snapshot>,
    forgotten: Vec<Snapshot>,
}

impl World {
    /// A rollout in its first step of 1 %, at 100 requests a second, with a history of stable.
    fn stepping() -> Self {
        let revision = |name: &str| Revision {
            name: name.to_owned(),
            digest: format!("sha256:{name}"),
        };
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let mut world = Self {
            function: Function {
                namespace: "shop".into(),
                name: "shop".into(),
                generation: 2,
                desired: Some(revision(CANDIDATE)),
                policy: Policy::default(),
                suspend: false,
                abandoned: None,
                refused: None,
                actions: Vec::new(),
            },
            state: RolloutState {
                stable: Some(RevisionRef {
                    revision: revision(STABLE),
                    since: start,
                }),
                ..RolloutState::default()
            },
            counters: [Counters::default(); 2],
            now: start,
            memory: None,
            before: Vec::new(),
            forgotten: Vec::new(),
        };
        for _ in 0..60 {
            world.count([0, 0, 500, 5]);
            world.before.push(world.snapshot());
        }
        world.settle(Measured::NotDue);
        assert_eq!(world.state.state, State::Stepping);
        world
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            process: NODE.into(),
            boot: Some(1),
            at: self.now,
            revisions: [
                (CANDIDATE.to_owned(), self.counters[0]),
                (STABLE.to_owned(), self.counters[1]),
            ]
            .into(),
        }
    }

    /// Advances the time by five seconds and adds requests and errors of both revisions.
    fn count(&mut self, [nc, xc, ns, xs]: [u64; 4]) {
        self.now += Duration::from_secs(5);
        for (arm, (requests, errors)) in self.counters.iter_mut().zip([(nc, xc), (ns, xs)]) {
            arm.add(Outcome::Ok, Code::Other, requests - errors);
            arm.add(Outcome::Trap, Code::ServerError, errors);
            // one in fifty is slow, but none of a few
            arm.latency.0[18] += requests - requests / 50;
            arm.latency.0[22] += requests / 50;
        }
    }

    fn measure(&mut self) -> Measured {
        let exposed = BTreeSet::from([NODE.to_owned()]);
        let snapshots = [self.snapshot()];
        let sampled = Sampled {
            now: self.now,
            exposed: &exposed,
            snapshots: &snapshots,
            before: &self.before,
            forgotten: &self.forgotten,
            source: "InBand",
            scrape_interval: Duration::from_secs(5),
        };
        Evaluator::measure(&mut self.memory, &self.state, &sampled)
    }

    fn evaluate(&mut self, counts: [u64; 4]) -> Evaluation {
        self.count(counts);
        match self.measure() {
            Measured::Evaluation(look) => *look,
            other => panic!("{other:?} in {}", self.state.state.as_str()),
        }
    }

    /// 500 requests without errors, split by the weight.
    fn healthy(&self) -> [u64; 4] {
        let parts = self.state.rollout.as_ref().unwrap().weight.parts();
        let candidate = u64::from(parts) * 500 / 10_000;
        [candidate, 0, 500 - candidate, 0]
    }

    fn settle(&mut self, mut measured: Measured) {
        for _ in 0..10 {
            let revisions = [STABLE, CANDIDATE].map(|name| RevisionOnNodes {
                revision: name.into(),
                loaded: 1,
                failed: 0,
                problem: None,
            });
            let evidence = Evidence {
                epoch: 1,
                nodes: NodesView {
                    desired: 1,
                    live: 1,
                    revisions: revisions.to_vec(),
                    token: traffic_split(&self.state).token,
                    applied: 1,
                    highest_token: Some(self.state.token),
                    returned: 0,
                },
                measured: std::mem::take(&mut measured),
                slot: true,
                traffic: due(self.now, &self.function, &self.state)
                    .traffic
                    .then_some(Traffic {
                        requests_per_second: Some(100.0),
                    }),
                promoted: None,
                unsupervised_ttl: Duration::from_secs(600),
            };
            self.state = decide(self.now, &self.function, &self.state, &evidence).state;
        }
    }

    fn take(&mut self, look: Evaluation) {
        self.settle(Measured::Evaluation(Box::new(look)));
    }
}

#[test]
fn counting_starts_where_the_history_ends() {
    let mut world = World::stepping();
    let look = world.evaluate([8, 8, 492, 5]);
    assert_eq!(look.figures.candidate.requests, 8);
    world.take(look);
    let look = world.evaluate([8, 8, 492, 5]);
    assert_eq!(
        look.verdict,
        Verdict::Bad {
            reason: "ErrorsWorse".into()
        }
    );
    let decisive = look.figures.decisive.clone().unwrap();
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
    assert_eq!(recomputed.figures, expected.figures);
    assert_ne!(lost.analysis, expected.analysis);
    assert_eq!(lost.figures.candidate, expected.figures.candidate);
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
    assert_eq!(b.figures.candidate, a.figures.candidate);
    assert_eq!(
        (a.figures.looks, b.figures.looks),
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

#[test]
fn figures_have_readable_names() {
    let mut world = World::stepping();
    let look = world.evaluate([8, 0, 492, 5]);
    let names: Vec<&str> = look
        .figures
        .metrics
        .iter()
        .map(|m| m.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["errors", "clientErrors", "latency/150ms", "latency/500ms"]
    );
    let shares: f64 = look.figures.metrics.iter().map(|m| m.share).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    assert_eq!(look.figures.power.len(), 3);
    assert!(look.figures.pass.limiting.is_some());
}

/// If the weight cannot be lowered further, the backstop is reported once and not at every evaluation.
#[test]
fn the_backstop_starts_again_after_it_was_reported() {
    let mut world = World::stepping();
    let mut heard = Vec::new();
    for _ in 0..4 {
        let look = world.evaluate([8, 2, 492, 120]);
        heard.push(look.backstop);
        let state = world.state.clone();
        world.take(look.clone());
        // the state machine would hold or lower the weight; here it stays
        let analysis = world
            .state
            .rollout
            .as_ref()
            .and_then(|r| r.analysis.clone());
        world.state = state;
        world.state.rollout.as_mut().unwrap().analysis = analysis;
    }
    assert_eq!(heard, [false, true, false, true]);
}
