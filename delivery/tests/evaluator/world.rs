//! A rollout of one node whose counters a test sets, from the samples through the [`Evaluator`] to `decide`.

use std::collections::BTreeSet;
use std::time::Duration;

use delivery::evaluator::{Evaluator, Sampled};
use delivery::function::{Function, Revision};
use delivery::rollout::{
    DecisionInput, Evaluation, Measured, NodesView, Policy, RevisionOnNodes, RevisionRef,
    RolloutState, State, Traffic, decide, required_measurements, traffic_split,
};
use delivery::samples::{Counters, Outcome, Snapshot, StatusClass};
use jiff::Timestamp;

pub const STABLE: &str = "shop-old";
pub const CANDIDATE: &str = "shop-new";
pub const NODE: &str = "node-1";

pub struct World {
    pub function: Function,
    pub state: RolloutState,
    pub per_second: f64,
    pub counters: [Counters; 2],
    pub now: Timestamp,
    pub memory: Option<Evaluator>,
    pub before: Vec<Snapshot>,
    pub forgotten: Vec<Snapshot>,
}

impl World {
    /// A rollout in its first step of 1 %, at 100 requests a second, with a history of stable.
    pub fn stepping() -> Self {
        let mut world = Self::resting(Policy::default());
        for _ in 0..60 {
            world.count([0, 0, 500, 5]);
            world.before.push(world.snapshot());
        }
        world.settle(Measured::NotDue);
        assert_eq!(world.state.state, State::Stepping);
        world
    }

    /// A function with a stable revision, and another one that is desired.
    pub fn resting(policy: Policy) -> Self {
        let revision = |name: &str| Revision {
            name: name.to_owned(),
            digest: format!("sha256:{name}"),
        };
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        Self {
            function: Function {
                namespace: "shop".into(),
                name: "shop".into(),
                generation: 2,
                desired: Some(revision(CANDIDATE)),
                policy: Some(policy),
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
            per_second: 100.0,
            counters: [Counters::default(); 2],
            now: start,
            memory: None,
            before: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    pub fn snapshot(&self) -> Snapshot {
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
    pub fn count(&mut self, [nc, xc, ns, xs]: [u64; 4]) {
        self.now += Duration::from_secs(5);
        for (arm, (requests, errors)) in self.counters.iter_mut().zip([(nc, xc), (ns, xs)]) {
            arm.add(Outcome::Ok, StatusClass::Other, requests - errors);
            arm.add(Outcome::Trap, StatusClass::ServerError, errors);
            // one in fifty is slow, but none of a few
            arm.latency.0[18] += requests - requests / 50;
            arm.latency.0[22] += requests / 50;
        }
    }

    pub fn measure(&mut self) -> Measured {
        let exposed = BTreeSet::from([NODE.to_owned()]);
        let snapshots = [self.snapshot()];
        let sampled = Sampled {
            now: self.now,
            exposed: &exposed,
            snapshots: &snapshots,
            before: &self.before,
            forgotten: &self.forgotten,
            source: "InBand",
            problem: None,
            scrape_interval: Duration::from_secs(5),
        };
        Evaluator::measure(&mut self.memory, &self.state, &sampled)
    }

    pub fn evaluate(&mut self, counts: [u64; 4]) -> Evaluation {
        self.count(counts);
        match self.measure() {
            Measured::Evaluation(look) => *look,
            other => panic!("{other:?} in {}", self.state.state.as_str()),
        }
    }

    /// 500 requests without errors, split by the weight.
    pub fn healthy(&self) -> [u64; 4] {
        let parts = self.state.rollout.as_ref().unwrap().weight.parts();
        let candidate = u64::from(parts) * 500 / 10_000;
        [candidate, 0, 500 - candidate, 0]
    }

    pub fn settle(&mut self, mut measured: Measured) {
        for _ in 0..10 {
            let revisions = [STABLE, CANDIDATE].map(|name| RevisionOnNodes {
                revision: name.into(),
                loaded: 1,
                failed: 0,
                problem: None,
            });
            let input = DecisionInput {
                epoch: 1,
                nodes: NodesView {
                    desired: 1,
                    live: 1,
                    revisions: revisions.to_vec(),
                    token: traffic_split(&self.state).token,
                    applied: 1,
                    highest_token: Some(self.state.token),
                    ahead: 0,
                    returned: 0,
                },
                measured: std::mem::take(&mut measured),
                slot: true,
                traffic: required_measurements(self.now, &self.function, &self.state)
                    .traffic
                    .then_some(Traffic {
                        requests_per_second: Some(self.per_second),
                    }),
                promoted: None,
                unsupervised_ttl: Duration::from_secs(600),
            };
            self.state = decide(self.now, &self.function, &self.state, &input).state;
        }
    }

    pub fn take(&mut self, look: Evaluation) {
        self.settle(Measured::Evaluation(Box::new(look)));
    }
}
