//! From samples to a verdict: one value per rollout, [`Analysis`], that owns every sequential test of it.
//!
//! It bounds the share of harmless candidates that are rolled back (α, spent once per rollout), and the share of
//! harmful ones that pass a step (β). Evaluations may come at any time: one without new samples changes nothing, and a missing
//! one makes the next one longer. A Bad is final; otherwise the analysis ends with the rollout.
//!
//! Use: [`Analysis::start`] when the candidate is about to get its first share, [`Analysis::begin_step`] whenever the share
//! changes, [`Analysis::look`] whenever there are samples, then [`Analysis::verdict`]. [`Analysis::encode`] and
//! [`Analysis::decode`] carry it over a restart. Baselines are carried for as many nodes as fit; of the others the first snapshot
//! after a restart only sets the baseline. So a restart may lose a look, and never counts one
//! twice.

mod bounds;
mod history;
mod look;
mod plan;
mod read;
mod state;
mod suite;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use crate::rollout::{ArmSums, Decisive};
use crate::samples::{Histogram, Snapshot, Tracker};
use crate::stats::Increment;

pub use history::{History, TailBounds};
pub use look::{LookInput, LookResult};
pub use plan::{AnalysisPlan, Slo};
pub use state::{STATE_MAX, StateError};
pub use verdict::{BrokenPromise, Metric, Missing, Verdict};

use suite::{Brake, Pass, Test};

/// Number of evaluations at its own weight that a step needs.
pub const STEP_LOOKS: u32 = 2;
/// 100 %, in basis points (1/10,000).
pub const WHOLE: u16 = 10_000;

/// All tests of one rollout and their evidence. See the [module](self).
///
/// The order and types of the fields are the persisted form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    #[serde(skip)]
    plan: AnalysisPlan,
    /// Its baselines are persisted apart, as far as they fit.
    #[serde(skip)]
    tracker: Tracker,
    bounds: Option<TailBounds>,
    /// Stable's recent latency, and since when.
    seen: Histogram,
    #[serde(with = "millisecond::required")]
    seen_since: Timestamp,
    tests: Vec<Test>,
    pass: Vec<Pass>,
    brake: Option<Brake>,
    looks: u32,
    #[serde(with = "millisecond::optional")]
    looked_at: Option<Timestamp>,
    #[serde(with = "millisecond::required")]
    usable_at: Timestamp,
    #[serde(with = "millisecond::required")]
    started_at: Timestamp,
    candidate: ArmSums,
    stable: ArmSums,
    step: Step,
    /// The metric that decided, and the counts it decided by.
    decisive: Option<(Metric, Decisive)>,
    #[serde(with = "millisecond::optional")]
    shared_since: Option<Timestamp>,
    #[serde(skip)]
    memory: Memory,
}

/// The step that is running.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Step {
    weight: u16,
    next: Option<u16>,
    #[serde(with = "millisecond::required")]
    started_at: Timestamp,
    looks: u32,
    candidate: ArmSums,
    stable: ArmSums,
    /// Requests counted wholly under this share, for the comparison with the share itself.
    split: (u64, u64),
    /// The latency bounds were chosen anew in it.
    rechosen: bool,
}

/// What is not persisted.
#[derive(Debug, Clone, Default, PartialEq)]
struct Memory {
    /// Nodes of the previous evaluation: what they counted until they left still counts.
    exposed: BTreeSet<String>,
    /// Per node: stable's requests in the last look it was heard in, and the candidate's in this step.
    nodes: BTreeMap<String, (u64, u64)>,
    /// Stable's recent counts of the promise both arms break.
    shared: VecDeque<(Timestamp, Increment)>,
    coverage: f64,
    /// Candidate requests of the last look.
    last_requests: u64,
}

impl Step {
    const fn new(weight: u16, next: Option<u16>, started_at: Timestamp) -> Self {
        const NOTHING: ArmSums = ArmSums {
            requests: 0,
            errors: 0,
            client_errors: 0,
        };
        Self {
            weight,
            next,
            started_at,
            looks: 0,
            candidate: NOTHING,
            stable: NOTHING,
            split: (0, 0),
            rechosen: false,
        }
    }
}

impl Analysis {
    /// Starts without evidence. Everything counted after `now` counts; call [`Self::begin_step`] next.
    #[must_use]
    pub fn start(now: Timestamp, plan: &AnalysisPlan, history: &History) -> Self {
        let mut tests = suite::first_tests(plan, history);
        let mut bounds = None;
        if plan.latency.is_some() && history.is_known() {
            let seen = history.total().latency;
            bounds = TailBounds::from_histogram(&seen);
            if let Some(bounds) = &bounds {
                tests.extend(suite::latency_tests(plan, bounds, &seen, history));
            }
        }
        let brake = tests
            .iter()
            .find(|t| t.event.metric == Metric::Errors)
            .and_then(|errors| {
                let rate = errors.process.guesses().first()?.rate();
                suite::brake(plan, rate, errors.process.settings().dispersion)
            });
        Self {
            plan: plan.clone(),
            tracker: Tracker::new(now),
            bounds,
            seen: Histogram::default(),
            seen_since: now,
            tests,
            pass: Vec::new(),
            brake,
            looks: 0,
            looked_at: None,
            usable_at: now,
            started_at: now,
            candidate: ArmSums::default(),
            stable: ArmSums::default(),
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

    /// A share of `weight` begins and `next` would follow it (both in 1/10,000; `None` when nothing follows, as in the
    /// bake). The pass side and the brake start afresh; the rollback side goes on: α is spent once.
    pub fn begin_step(&mut self, now: Timestamp, weight: u16, next: Option<u16>) {
        self.step = Step::new(weight, next, now);
        self.memory.nodes.values_mut().for_each(|node| node.1 = 0);
        self.restart_brake();
        self.follow_bounds();
        let Some(next) = next else {
            return;
        };
        for pass in &mut self.pass {
            let metric = pass.event.metric;
            let dispersion = pass.process.settings().dispersion;
            pass.process
                .restart(suite::pass_settings(&self.plan, metric, next, dispersion));
        }
    }

    /// Starts the watch over all traffic again, after the brake fired and the weight could not be lowered.
    pub fn restart_brake(&mut self) {
        if let Some(brake) = &mut self.brake {
            brake.process.restart(*brake.process.settings());
        }
    }
}
