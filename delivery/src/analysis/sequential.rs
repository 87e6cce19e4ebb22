//! The tests of one rollout, the part of α that each owns, and their combined evidence.

use serde::{Deserialize, Serialize};

use crate::rollout::Tolerance as Limits;
use crate::samples::{Histogram, LATENCY_BOUNDS, Tally};
use crate::stats::{self, EProcess, Increment, Settings, Side, Tolerance};

use super::WHOLE;
use super::bounds::TailBounds;
use super::history::{History, smoothed};
use super::plan::AnalysisPlan;
use super::verdict::Metric;

/// Margin of the comparison with stable that a missed objective additionally needs for a rollback.
const SLO_MARGIN: f64 = 0.001;

/// Definition of the requests that are events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Event {
    pub(super) metric: Metric,
    /// Bucket of the latency metrics: slower requests than its upper bound are events.
    pub(super) bucket: Option<usize>,
}

impl Event {
    pub(super) const fn new(metric: Metric, bucket: Option<usize>) -> Self {
        Self { metric, bucket }
    }

    /// Returns the number of requests that could be events, and of those that are.
    pub(super) fn count(self, tally: &Tally) -> (u64, u64) {
        match (self.metric, self.bucket) {
            (Metric::Errors | Metric::SloErrors, _) => (tally.requests, tally.errors),
            (Metric::ClientErrors, _) => (tally.requests, tally.client_errors),
            (Metric::Latency | Metric::SloLatency, Some(bucket)) => {
                (tally.latency.count(), tally.latency.slower_than(bucket))
            }
            (Metric::Latency | Metric::SloLatency, None) => (0, 0),
        }
    }

    /// Name of the event in status and metrics.
    pub(super) fn name(self) -> String {
        self.metric.name(self.bound())
    }

    /// Latency bound in seconds; `None` for other metrics.
    pub(super) fn bound(self) -> Option<f64> {
        LATENCY_BOUNDS.get(self.bucket?).copied()
    }
}

/// Test of one metric on the rollback side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Test {
    pub(super) event: Event,
    /// ω: weight of the test (0 to 1) in the combined evidence.
    pub(super) part: f64,
    pub(super) process: EProcess,
    /// Additional tests of an absolute objective; `None` for other metrics.
    pub(super) slo: Option<SloComparison>,
    /// Counts since the rollout began.
    pub(super) total: Increment,
    /// Counts of the last evaluation and the one before.
    pub(super) recent: [Increment; 2],
}

/// Additional tests of an absolute objective, because missing it alone never causes a rollback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SloComparison {
    /// Comparison of the same event with stable.
    pub(super) relative: EProcess,
    /// Test of the same objective for stable.
    pub(super) stable: EProcess,
}

impl Test {
    /// Creates a test. `rate` is the first estimate of stable's rate, `dispersion` its φ.
    pub(super) fn new(
        plan: &AnalysisPlan,
        event: Event,
        part: f64,
        rate: f64,
        dispersion: f64,
    ) -> Self {
        let alpha = plan.false_rollbacks;
        let settings =
            |tolerance| Settings::new(Side::Rollback, tolerance, dispersion, alpha, part);
        let process = |tolerance| EProcess::new(settings(tolerance), &[rate]);
        let tolerance = rollback_tolerance(plan, event.metric);
        let is_slo = matches!(event.metric, Metric::SloErrors | Metric::SloLatency);
        Self {
            event,
            part,
            process: process(tolerance),
            slo: is_slo.then(|| SloComparison {
                relative: process(Tolerance {
                    ratio: 1.0,
                    delta: SLO_MARGIN,
                }),
                stable: process(tolerance),
            }),
            total: Increment::default(),
            recent: [Increment::default(); 2],
        }
    }

    /// Returns ln E; for an objective the smaller one of its own test and the comparison with stable.
    pub(super) fn ln_evidence(&self) -> f64 {
        let own = self.process.ln_evidence();
        self.slo
            .as_ref()
            .map_or(own, |slo| own.min(slo.relative.ln_evidence()))
    }

    /// Evaluates a look. Returns `false` if a number was not finite and a process was left unchanged.
    pub(super) fn look(&mut self, increment: Increment) -> bool {
        self.total.add(&increment);
        self.recent = [increment, self.recent[0]];
        let mut finite = self.process.look(&[increment]) != stats::Look::Dropped;
        if let Some(slo) = &mut self.slo {
            finite &= slo.relative.look(&[increment]) != stats::Look::Dropped;
            finite &= slo.stable.look(&[increment.stable_alone()]) != stats::Look::Dropped;
        }
        finite
    }

    /// Whether both revisions miss the objective while the comparison between them shows no difference.
    pub(super) fn is_shared_failure(&self, alpha: f64) -> bool {
        self.slo.as_ref().is_some_and(|slo| {
            self.process.reached(alpha) && slo.stable.reached(alpha) && !slo.relative.reached(alpha)
        })
    }
}

fn rollback_tolerance(plan: &AnalysisPlan, metric: Metric) -> Tolerance {
    let (ratio, delta) = match metric {
        Metric::Errors => plan
            .errors
            .map_or((1.0, 1.0), |l| (l.max_ratio, l.max_increase)),
        Metric::Latency => plan
            .latency
            .map_or((1.0, 1.0), |l| (l.max_ratio, l.max_increase)),
        Metric::ClientErrors => (1.0, plan.client_errors.unwrap_or(1.0)),
        Metric::SloErrors => (0.0, plan.slo.errors.unwrap_or(1.0)),
        Metric::SloLatency => (0.0, plan.slo.latency.map_or(1.0, |l| l.slower)),
    };
    Tolerance { ratio, delta }
}

/// Parts of α before they are normalised.
const ERRORS_PART: f64 = 2.0;
const OTHER_PART: f64 = 1.0;

/// Returns the part of α that a metric owns in a rollout with this plan. The tests of latency and of objectives share theirs.
pub(super) fn part_of(plan: &AnalysisPlan, metric: Metric) -> f64 {
    let has_slo = plan.slo.errors.is_some() || plan.slo.latency.is_some();
    let weights = [
        (plan.errors.is_some(), ERRORS_PART),
        (plan.latency.is_some(), OTHER_PART),
        (plan.client_errors.is_some(), OTHER_PART),
        (has_slo, OTHER_PART),
    ];
    let sum: f64 = weights.iter().filter(|w| w.0).map(|w| w.1).sum();
    let own = if metric == Metric::Errors {
        ERRORS_PART
    } else {
        OTHER_PART
    };
    own / sum.max(own)
}

/// Creates all tests except those of latency, which need bounds first.
pub(super) fn first_tests(plan: &AnalysisPlan, history: &History) -> Vec<Test> {
    let mut events = Vec::new();
    if plan.errors.is_some() {
        events.push(Event::new(Metric::Errors, None));
    }
    if plan.client_errors.is_some() {
        events.push(Event::new(Metric::ClientErrors, None));
    }
    let mut objectives = Vec::new();
    if plan.slo.errors.is_some() {
        objectives.push(Event::new(Metric::SloErrors, None));
    }
    if let Some(bucket) = slo_bucket(plan, Side::Rollback) {
        objectives.push(Event::new(Metric::SloLatency, Some(bucket)));
    }
    let split = objectives.len().max(1) as f64;
    let make = |event: Event, split: f64| {
        let (rate, measured) = history.rate_and_dispersion(|tally| event.count(tally));
        let part = part_of(plan, event.metric) / split;
        Test::new(plan, event, part, rate, plan.dispersion.unwrap_or(measured))
    };
    events
        .into_iter()
        .map(|event| make(event, 1.0))
        .chain(objectives.into_iter().map(|event| make(event, split)))
        .collect()
}

/// Creates one test per compared bound. `seen` is stable's latency at the time the bounds were chosen.
pub(super) fn latency_tests(
    plan: &AnalysisPlan,
    bounds: &TailBounds,
    seen: &Histogram,
    history: &History,
) -> Vec<Test> {
    let part = part_of(plan, Metric::Latency) / bounds.compared.len().max(1) as f64;
    bounds
        .compared
        .iter()
        .map(|bucket| {
            let event = Event::new(Metric::Latency, Some(*bucket));
            let (_, measured) = history.rate_and_dispersion(|tally| event.count(tally));
            let rate = smoothed(seen.count(), seen.slower_than(*bucket));
            Test::new(plan, event, part, rate, plan.dispersion.unwrap_or(measured))
        })
        .collect()
}

/// Returns the bucket of the latency objective: that of the next larger bound for the rollback side, of the next smaller one
/// for the pass side.
fn slo_bucket(plan: &AnalysisPlan, side: Side) -> Option<usize> {
    let within = plan.slo.latency?.within.as_secs_f64();
    match side {
        Side::Rollback => LATENCY_BOUNDS.iter().position(|b| *b >= within - 1e-9),
        Side::Pass => LATENCY_BOUNDS.iter().rposition(|b| *b <= within + 1e-9),
    }
}

/// Test of the pass side that must reach its limit before a step ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pass {
    pub(super) event: Event,
    pub(super) process: EProcess,
}

impl Pass {
    /// Whether nothing is left to prove: even a candidate that fails every request is within the limit.
    fn is_certain(&self) -> bool {
        self.process.settings().tolerance.delta >= 1.0
    }

    /// Whether the test allows the end of the step at the error rate `beta`.
    pub(super) fn is_passed(&self, beta: f64) -> bool {
        self.is_certain() || self.process.reached(beta)
    }

    /// Returns the logarithm of the missing evidence; not positive once the test has passed.
    pub(super) fn missing(&self, beta: f64) -> f64 {
        if self.is_certain() {
            f64::NEG_INFINITY
        } else {
            -beta.ln() - self.process.ln_evidence()
        }
    }
}

/// Returns the settings of a pass test before the weight `next`, in basis points.
pub(super) fn pass_settings(
    plan: &AnalysisPlan,
    metric: Metric,
    next: u16,
    dispersion: f64,
) -> Settings {
    let share = f64::from(next.max(1)) / f64::from(WHOLE);
    let harm = plan.harm_budget / share;
    // a difference that the rollback side tolerates must not keep the candidate from passing
    let wider = |limits: Option<Limits>| {
        limits.map_or((1.0, 1.0), |l| {
            (l.max_ratio, l.pass_increase.max(l.max_increase).max(harm))
        })
    };
    let relative = |(ratio, delta)| Tolerance { ratio, delta };
    let tolerance = match metric {
        Metric::Errors | Metric::ClientErrors => relative(wider(plan.errors)),
        Metric::Latency => relative(wider(plan.latency)),
        Metric::SloErrors | Metric::SloLatency => rollback_tolerance(plan, metric),
    };
    Settings::new(
        Side::Pass,
        tolerance,
        dispersion,
        plan.false_promotions,
        1.0,
    )
}

/// Returns all events that must pass in a step of this plan, given the bounds known so far.
pub(super) fn pass_events(plan: &AnalysisPlan, bounds: Option<&TailBounds>) -> Vec<Event> {
    let mut events = Vec::new();
    if plan.errors.is_some() {
        events.push(Event::new(Metric::Errors, None));
    }
    if plan.latency.is_some() {
        let passing = bounds.map(|b| b.passing.clone()).unwrap_or_default();
        events.extend(
            passing
                .into_iter()
                .map(|bucket| Event::new(Metric::Latency, Some(bucket))),
        );
    }
    if plan.slo.errors.is_some() {
        events.push(Event::new(Metric::SloErrors, None));
    }
    if let Some(bucket) = slo_bucket(plan, Side::Pass) {
        events.push(Event::new(Metric::SloLatency, Some(bucket)));
    }
    events
}

/// Returns ln of the combined evidence Σ ω E. The part of the wealth that no test owns yet stays unchanged.
pub(super) fn combined(tests: &[Test]) -> f64 {
    let owned: f64 = tests.iter().map(|t| t.part).sum();
    let mut terms: Vec<f64> = tests
        .iter()
        .map(|t| t.part.ln() + t.ln_evidence())
        .collect();
    let unowned = 1.0 - owned;
    if unowned > 1e-9 {
        terms.push(unowned.ln());
    }
    stats::ln_sum_exp(&terms)
}

/// Returns the indices of the tests named as the cause of a rollback, strongest first. With `M` tests, these are the k
/// strongest for the largest k such that each of them has E ≥ M / (k α), so the expected share of wrongly named ones is at
/// most α. If there is no such k, the test that contributes most is named.
pub(super) fn named(tests: &[Test], alpha: f64) -> Vec<usize> {
    let mut order: Vec<(usize, &Test)> = tests.iter().enumerate().collect();
    order.sort_by(|a, b| b.1.ln_evidence().total_cmp(&a.1.ln_evidence()));
    let limit = (tests.len() as f64 / alpha).ln();
    let strong = (1..=order.len())
        .rev()
        .find(|k| {
            order
                .get(k - 1)
                .is_some_and(|(_, test)| (*k as f64).ln() + test.ln_evidence() >= limit)
        })
        .unwrap_or(0);
    if strong > 0 {
        return order.into_iter().take(strong).map(|(i, _)| i).collect();
    }
    order
        .into_iter()
        .max_by(|a, b| {
            let weight = |t: &Test| t.part.ln() + t.ln_evidence();
            weight(a.1).total_cmp(&weight(b.1))
        })
        .map(|(i, _)| vec![i])
        .unwrap_or_default()
}
