//! The analysis of a rollout: one value, [`Analysis`], owns all sequential tests of a rollout and derives the verdict.
//!
//! It bounds the share of harmless candidates that are rolled back (α, spent once per rollout), and the share of harmful ones
//! that pass a step (β). Evaluations may happen at any time: one without new samples changes nothing, and after a missing
//! one the next covers both periods. The verdict bad is final; otherwise the analysis ends with the rollout.
//!
//! Call [`Analysis::start`] when the candidate is about to get its first weight, [`Analysis::begin_step`] whenever the weight
//! changes, [`Analysis::evaluate`] whenever there are samples, then [`Analysis::verdict`]. [`Analysis::encode`] and
//! [`Analysis::decode`] persist it across a restart. Baselines are persisted for as many nodes as fit; the first snapshot of
//! any other node after a restart only sets its baseline. A restart may therefore lose an evaluation, but never counts one
//! twice.

mod accessors;
mod backstop;
mod bounds;
mod evaluate;
mod history;
mod plan;
mod sequential;
mod stable_traffic;
mod state;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use crate::rollout::{Decisive, RequestCounts};
use crate::samples::{Histogram, Snapshot, Tracker};
use crate::stats::Increment;

pub use backstop::TotalFailure;
pub use bounds::TailBounds;
pub use evaluate::{EvaluationInput, EvaluationResult};
pub use history::History;
pub use plan::{AnalysisPlan, Slo};
pub use stable_traffic::stable_traffic;
pub use state::{STATE_MAX, StateError};
pub use verdict::{Metric, MissedSlo, Missing, Verdict};

use backstop::Backstop;
use sequential::{Pass, Test};

/// Number of evaluations at its own weight that a step needs.
pub const STEP_EVALUATIONS: u32 = 2;
/// 100 %, in basis points (1/10,000).
pub const WHOLE: u16 = 10_000;

/// All tests of one rollout and their evidence. See the [module](self).
///
/// The order and types of the fields are the persisted form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    #[serde(skip)]
    plan: AnalysisPlan,
    /// Baselines of the processes. They are persisted separately, as far as they fit.
    #[serde(skip)]
    tracker: Tracker,
    bounds: Option<TailBounds>,
    /// Stable's recent latency, and the begin of that period.
    seen: Histogram,
    #[serde(with = "millisecond::required")]
    seen_since: Timestamp,
    tests: Vec<Test>,
    pass: Vec<Pass>,
    /// Persisted separately, in a shorter form.
    #[serde(skip)]
    backstop: Option<Backstop>,
    evaluations: u32,
    #[serde(with = "millisecond::optional")]
    evaluated_at: Option<Timestamp>,
    #[serde(with = "millisecond::required")]
    usable_at: Timestamp,
    #[serde(with = "millisecond::required")]
    started_at: Timestamp,
    candidate: RequestCounts,
    stable: RequestCounts,
    step: Step,
    /// Metric that decided, and its counts.
    decisive: Option<(Metric, Decisive)>,
    #[serde(with = "millisecond::optional")]
    shared_since: Option<Timestamp>,
    #[serde(skip)]
    memory: Memory,
}

/// State of the current step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Step {
    weight: u16,
    next: Option<u16>,
    #[serde(with = "millisecond::required")]
    started_at: Timestamp,
    evaluations: u32,
    candidate: RequestCounts,
    stable: RequestCounts,
    /// Requests of candidate and stable counted entirely under this weight, for the comparison with it.
    split: (u64, u64),
    /// Whether the latency bounds were chosen again in this step.
    rechosen: bool,
}

/// Values that are not persisted.
#[derive(Debug, Clone, Default, PartialEq)]
struct Memory {
    /// Exposed nodes of the previous evaluation. Their requests until they left still count.
    exposed: BTreeSet<String>,
    /// Requests of each node that was read.
    nodes: BTreeMap<String, NodeTraffic>,
    /// Stable's recent counts of the objective that both revisions miss.
    shared: VecDeque<(Timestamp, Increment)>,
    coverage: f64,
    /// Number of candidate requests in the last evaluation.
    last_requests: u64,
}

/// Requests of one node.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct NodeTraffic {
    /// Stable's requests per second in the last evaluation with new counts of the node.
    stable_rate: f64,
    /// The candidate's requests in this step.
    candidate: u64,
    /// Number of seconds in which the candidate's requests were counted.
    seconds: f64,
}

impl NodeTraffic {
    /// The candidate's requests per second in this step; `None` without counts.
    fn candidate_rate(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.candidate as f64 / self.seconds)
    }
}

impl Step {
    const fn new(weight: u16, next: Option<u16>, started_at: Timestamp) -> Self {
        const NOTHING: RequestCounts = RequestCounts {
            requests: 0,
            errors: 0,
            client_errors: 0,
        };
        Self {
            weight,
            next,
            started_at,
            evaluations: 0,
            candidate: NOTHING,
            stable: NOTHING,
            split: (0, 0),
            rechosen: false,
        }
    }
}

impl Analysis {
    /// Starts without evidence. Requests after `now` count. Call [`Self::begin_step`] next.
    #[must_use]
    pub fn start(now: Timestamp, plan: &AnalysisPlan, history: &History) -> Self {
        let mut tests = sequential::first_tests(plan, history);
        let mut bounds = None;
        if plan.latency.is_some() && history.is_known() {
            let seen = history.total().latency;
            bounds = TailBounds::from_histogram(&seen, plan.latency_floor);
            if let Some(bounds) = &bounds {
                tests.extend(sequential::latency_tests(plan, bounds, &seen, history));
            }
        }
        let backstop = Backstop::new(plan, &tests);
        Self {
            plan: plan.clone(),
            tracker: Tracker::new(now),
            bounds,
            seen: Histogram::default(),
            seen_since: now,
            tests,
            pass: Vec::new(),
            backstop,
            evaluations: 0,
            evaluated_at: None,
            usable_at: now,
            started_at: now,
            candidate: RequestCounts::default(),
            stable: RequestCounts::default(),
            step: Step::new(0, None, now),
            decisive: None,
            shared_since: None,
            memory: Memory::default(),
        }
    }

    /// Takes the newest of `snapshots` up to `at` of each process as the point from which counting starts. Without it
    /// the first snapshot of each process is that point, and what was counted before it is lost.
    pub fn baseline(
        &mut self,
        at: Timestamp,
        snapshots: &[Snapshot],
        candidate: &str,
        stable: &str,
    ) {
        let mut earlier: Vec<&Snapshot> = snapshots.iter().filter(|s| s.at <= at).collect();
        earlier.sort_by_key(|s| s.at);
        self.usable_at = at;
        self.seen_since = at;
        for snapshot in earlier {
            self.tracker.advance(at, [snapshot], candidate, stable);
        }
    }

    /// Begins a step with the weight `weight`, which `next` would follow (both in basis points; `None` if nothing follows, as in
    /// the bake). The pass side and the backstop start again. The rollback side continues, because α is spent once.
    pub fn begin_step(&mut self, now: Timestamp, weight: u16, next: Option<u16>) {
        self.step = Step::new(weight, next, now);
        for node in self.memory.nodes.values_mut() {
            (node.candidate, node.seconds) = (0, 0.0);
        }
        self.restart_backstop();
        self.follow_bounds();
        let Some(next) = next else {
            return;
        };
        for pass in &mut self.pass {
            let metric = pass.event.metric;
            let dispersion = pass.process.settings().dispersion;
            pass.process.restart(sequential::pass_settings(
                &self.plan, metric, next, dispersion,
            ));
        }
    }
}
