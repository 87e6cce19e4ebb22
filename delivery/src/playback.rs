//! Plays a rollout without a cluster: evidence and decisions are those of the operator, and every node loads each revision
//! and applies each weight at once.
//!
//! The caller counts requests. It calls [`Playback::advance`] with its counters at [`Playback::wake_at`], and whenever the
//! desired revision changes, and then serves [`Playback::traffic_split`].
//!
//! There is no object on which a person could approve, so gates are left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::evaluator::{Evaluator, Sampled};
use crate::function::{Function, Revision};
use crate::rollout::{
    self, DecisionInput, Measured, NodesView, Policy, RevisionOnNodes, RolloutState, Traffic,
    TrafficSplit, Transition, decide, required_measurements, traffic_split,
};
use crate::samples::Snapshot;

/// Age of the oldest snapshots that are kept: stable's history before a rollout.
const HISTORY: SignedDuration = SignedDuration::from_mins(10);
/// Maximum number of decisions at one time; above the length of any chain of them.
const MAX_DECISIONS: usize = 8;
/// Time without contact to an operator that would return nodes to stable. There is always contact here.
const UNSUPERVISED_TTL: Duration = Duration::from_secs(600);

/// One function, its rollouts and their evidence.
#[derive(Debug)]
pub struct Playback {
    function: Function,
    state: RolloutState,
    evaluator: Option<Evaluator>,
    /// Recent snapshots, oldest first.
    history: VecDeque<Snapshot>,
    /// Time between two readings of the counters.
    interval: Duration,
    wake_at: Option<Timestamp>,
    /// Stable's requests when it became stable.
    counted_before: u64,
}

impl Playback {
    /// Starts with a revision that serves all requests. `interval` is the time between two readings of the counters.
    #[must_use]
    pub fn new(
        (namespace, name): (&str, &str),
        stable: Revision,
        policy: Policy,
        interval: Duration,
        now: Timestamp,
    ) -> Self {
        let mut playback = Self {
            function: Function {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                generation: 1,
                desired: Some(stable),
                abandoned: None,
                refused: None,
                policy: Some(without_gates(policy)),
                suspend: false,
                actions: Vec::new(),
            },
            state: RolloutState::default(),
            evaluator: None,
            history: VecDeque::new(),
            interval,
            wake_at: None,
            counted_before: 0,
        };
        playback.advance(now, &[]);
        playback
    }

    /// Changes the desired revision and the policy of the next rollout. Call [`Self::advance`] next.
    pub fn desire(&mut self, revision: Revision, policy: Policy) {
        self.function.generation += 1;
        self.function.desired = Some(revision);
        self.function.policy = Some(without_gates(policy));
    }

    /// Evaluates what was counted, if an evaluation is due, and makes every decision that it allows. `snapshots` has the
    /// present counters of each process. Returns the transitions in order.
    pub fn advance(&mut self, now: Timestamp, snapshots: &[Snapshot]) -> Vec<Transition> {
        self.keep(now, snapshots);
        let stable = self.stable().map(ToOwned::to_owned);
        let mut measured = self.measure(now, snapshots);
        let mut transitions = Vec::new();
        for _ in 0..MAX_DECISIONS {
            let input = self.input(now, std::mem::take(&mut measured));
            let decision = decide(now, &self.function, &self.state, &input);
            self.wake_at = decision.wake_at;
            transitions.extend(decision.transitions);
            let settled = decision.state == self.state;
            self.state = decision.state;
            if settled {
                break;
            }
        }
        if self.stable() != stable.as_deref() {
            self.counted_before = self.stable_requests();
        }
        transitions
    }

    /// Returns the time of the next decision; `None` at rest.
    #[must_use]
    pub const fn wake_at(&self) -> Option<Timestamp> {
        self.wake_at
    }

    /// Returns the state that the operator would persist.
    #[must_use]
    pub const fn state(&self) -> &RolloutState {
        &self.state
    }

    /// Returns what the nodes serve.
    #[must_use]
    pub fn traffic_split(&self) -> TrafficSplit {
        traffic_split(&self.state)
    }

    /// Returns the message of the status.
    #[must_use]
    pub fn message(&self, now: Timestamp) -> String {
        rollout::message(now, &self.function, &self.state)
    }

    /// Returns the names of the revisions that must stay loaded, or must be recognized when they are desired again.
    #[must_use]
    pub fn revisions(&self) -> BTreeSet<&str> {
        let split = [
            self.state.stable.as_ref().map(|stable| &stable.revision),
            self.state.rollout.as_ref().map(|r| &r.candidate.revision),
            self.state.previous.as_ref().map(|p| &p.revision),
            self.state.rejected.as_ref().map(|r| &r.revision),
            self.function.desired.as_ref(),
        ];
        let named = split.into_iter().flatten();
        named.map(|revision| revision.name.as_str()).collect()
    }

    fn stable(&self) -> Option<&str> {
        let stable = self.state.stable.as_ref()?;
        Some(stable.revision.name.as_str())
    }

    fn keep(&mut self, now: Timestamp, snapshots: &[Snapshot]) {
        let oldest = now.saturating_sub(HISTORY).unwrap_or(Timestamp::MIN);
        while self.history.front().is_some_and(|kept| kept.at < oldest) {
            self.history.pop_front();
        }
        self.history.extend(snapshots.iter().cloned());
    }

    fn measure(&mut self, now: Timestamp, snapshots: &[Snapshot]) -> Measured {
        if !required_measurements(now, &self.function, &self.state).evaluation {
            return Measured::NotDue;
        }
        let exposed: BTreeSet<String> = snapshots
            .iter()
            .map(|snapshot| snapshot.process.clone())
            .collect();
        let sampled = Sampled {
            now,
            exposed: &exposed,
            snapshots,
            before: self.history.make_contiguous(),
            forgotten: &[],
            source: "InBand",
            problem: None,
            scrape_interval: self.interval,
        };
        Evaluator::measure(&mut self.evaluator, &self.state, &sampled)
    }

    fn input(&self, now: Timestamp, measured: Measured) -> DecisionInput {
        let token = self.state.token;
        let named = self.revisions().into_iter();
        DecisionInput {
            epoch: 1,
            nodes: NodesView {
                desired: 1,
                live: 1,
                revisions: named
                    .map(|name| RevisionOnNodes {
                        revision: name.to_owned(),
                        loaded: 1,
                        ..RevisionOnNodes::default()
                    })
                    .collect(),
                token,
                applied: 1,
                highest_token: Some(token),
                ahead: 0,
                returned: 0,
            },
            measured,
            slot: true,
            traffic: required_measurements(now, &self.function, &self.state)
                .traffic
                .then(|| self.traffic(now)),
            promoted: None,
            unsupervised_ttl: UNSUPERVISED_TTL,
        }
    }

    /// Stable's requests per second since it became stable.
    fn traffic(&self, now: Timestamp) -> Traffic {
        let since = self
            .state
            .stable
            .as_ref()
            .map_or(now, |stable| stable.since);
        let seconds = now.duration_since(since).as_secs_f64().max(1.0);
        let requests = self.stable_requests().saturating_sub(self.counted_before);
        Traffic {
            requests_per_second: Some(requests as f64 / seconds),
        }
    }

    /// Stable's requests in the newest snapshot of each process.
    fn stable_requests(&self) -> u64 {
        let Some(stable) = self.stable() else {
            return 0;
        };
        let newest: BTreeMap<&str, &Snapshot> = self
            .history
            .iter()
            .map(|snapshot| (snapshot.process.as_str(), snapshot))
            .collect();
        let counters = newest
            .values()
            .filter_map(|snapshot| snapshot.revisions.get(stable));
        counters.map(|counters| counters.tally().requests).sum()
    }
}

fn without_gates(mut policy: Policy) -> Policy {
    policy.gates.clear();
    for step in &mut policy.steps {
        step.gates.clear();
    }
    policy
}
