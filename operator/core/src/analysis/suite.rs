//! The tests of one rollout: which there are, what part of α each owns, and what they say together.

use serde::{Deserialize, Serialize};

use crate::samples::{Histogram, LATENCY_BOUNDS, Tally};
use crate::stats::{self, EProcess, Increment, Settings, Side, Tolerance};

use super::WHOLE;
use super::history::{History, TailBounds, UNKNOWN_RATE, smoothed};
use super::plan::AnalysisPlan;
use super::verdict::Metric;

/// Margin of the comparison with stable that must agree before a broken promise rolls back.
const PROMISE_MARGIN: f64 = 0.001;

/// Which requests are events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Event {
    pub(super) metric: Metric,
    /// Slower than the upper bound of this bucket; of the latency metrics only.
    pub(super) bucket: Option<usize>,
}

impl Event {
    pub(super) const fn new(metric: Metric, bucket: Option<usize>) -> Self {
        Self { metric, bucket }
    }

    /// Requests that could be an event, and those that are.
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

    /// Name in status and metrics.
    pub(super) fn name(self) -> String {
        self.metric.name(self.bound())
    }

    /// The latency bound in seconds.
    pub(super) fn bound(self) -> Option<f64> {
        LATENCY_BOUNDS.get(self.bucket?).copied()
    }
}

/// One metric on the rollback side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Test {
    pub(super) event: Event,
    /// ω.
    pub(super) part: f64,
    pub(super) process: EProcess,
    /// Only of a promise.
    pub(super) promise: Option<Promise>,
    /// Counts since the rollout began.
    pub(super) total: Increment,
    /// Counts of the last look and the one before.
    pub(super) recent: [Increment; 2],
}

/// What a promise needs beside its own test: it never rolls back alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Promise {
    /// The same event compared with stable.
    pub(super) relative: EProcess,
    /// The same promise asked of stable.
    pub(super) stable: EProcess,
}

impl Test {
    /// A fresh test; `rate` is the first guess of stable's rate, `dispersion` its φ.
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
        let is_promise = matches!(event.metric, Metric::SloErrors | Metric::SloLatency);
        Self {
            event,
            part,
            process: process(tolerance),
            promise: is_promise.then(|| Promise {
                relative: process(Tolerance {
                    ratio: 1.0,
                    delta: PROMISE_MARGIN,
                }),
                stable: process(tolerance),
            }),
            total: Increment::default(),
            recent: [Increment::default(); 2],
        }
    }

    /// ln E: of a promise the smaller of its own and the comparison with stable.
    pub(super) fn ln_evidence(&self) -> f64 {
        let own = self.process.ln_evidence();
        self.promise
            .as_ref()
            .map_or(own, |promise| own.min(promise.relative.ln_evidence()))
    }

    /// Evaluates a look. `false` if a number was not finite and something was left as it was.
    pub(super) fn look(&mut self, increment: Increment) -> bool {
        self.total.add(&increment);
        self.recent = [increment, self.recent[0]];
        let mut finite = self.process.look(&[increment]) != stats::Look::Dropped;
        if let Some(promise) = &mut self.promise {
            finite &= promise.relative.look(&[increment]) != stats::Look::Dropped;
            finite &= promise.stable.look(&[increment.stable_alone()]) != stats::Look::Dropped;
        }
        finite
    }

    /// Whether both arms break the promise and the comparison between them is silent.
    pub(super) fn is_shared_failure(&self, alpha: f64) -> bool {
        self.promise.as_ref().is_some_and(|promise| {
            self.process.reached(alpha)
                && promise.stable.reached(alpha)
                && !promise.relative.reached(alpha)
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

/// Parts of α, before they are normalised.
const ERRORS_PART: f64 = 2.0;
const OTHER_PART: f64 = 1.0;

/// The part of α that belongs to a metric, of a rollout with this plan. Latency and the promises split theirs.
pub(super) fn part_of(plan: &AnalysisPlan, metric: Metric) -> f64 {
    let has_promise = plan.slo.errors.is_some() || plan.slo.latency.is_some();
    let weights = [
        (plan.errors.is_some(), ERRORS_PART),
        (plan.latency.is_some(), OTHER_PART),
        (plan.client_errors.is_some(), OTHER_PART),
        (has_promise, OTHER_PART),
    ];
    let sum: f64 = weights.iter().filter(|w| w.0).map(|w| w.1).sum();
    let own = if metric == Metric::Errors {
        ERRORS_PART
    } else {
        OTHER_PART
    };
    own / sum.max(own)
}

/// Tests of everything but latency, which waits for its bounds.
pub(super) fn first_tests(plan: &AnalysisPlan, history: &History) -> Vec<Test> {
    let mut events = Vec::new();
    if plan.errors.is_some() {
        events.push(Event::new(Metric::Errors, None));
    }
    if plan.client_errors.is_some() {
        events.push(Event::new(Metric::ClientErrors, None));
    }
    let mut promises = Vec::new();
    if plan.slo.errors.is_some() {
        promises.push(Event::new(Metric::SloErrors, None));
    }
    if let Some(bucket) = promised_bucket(plan, Side::Rollback) {
        promises.push(Event::new(Metric::SloLatency, Some(bucket)));
    }
    let split = promises.len().max(1) as f64;
    let make = |event: Event, split: f64| {
        let (rate, measured) = history.rate_and_dispersion(|tally| event.count(tally));
        let part = part_of(plan, event.metric) / split;
        Test::new(plan, event, part, rate, plan.dispersion.unwrap_or(measured))
    };
    events
        .into_iter()
        .map(|event| make(event, 1.0))
        .chain(promises.into_iter().map(|event| make(event, split)))
        .collect()
}

/// One test per judged bound. `seen` is what stable's latency was when the bounds were chosen.
pub(super) fn latency_tests(
    plan: &AnalysisPlan,
    bounds: &TailBounds,
    seen: &Histogram,
    history: &History,
) -> Vec<Test> {
    let part = part_of(plan, Metric::Latency) / bounds.judged.len().max(1) as f64;
    bounds
        .judged
        .iter()
        .map(|bucket| {
            let event = Event::new(Metric::Latency, Some(*bucket));
            let (_, measured) = history.rate_and_dispersion(|tally| event.count(tally));
            let rate = smoothed(seen.count(), seen.slower_than(*bucket));
            Test::new(plan, event, part, rate, plan.dispersion.unwrap_or(measured))
        })
        .collect()
}

/// The bucket of a promised latency: the next larger bound to roll back, the next smaller to pass.
fn promised_bucket(plan: &AnalysisPlan, side: Side) -> Option<usize> {
    let within = plan.slo.latency?.within.as_secs_f64();
    match side {
        Side::Rollback => LATENCY_BOUNDS.iter().position(|b| *b >= within - 1e-9),
        Side::Pass => LATENCY_BOUNDS.iter().rposition(|b| *b <= within + 1e-9),
    }
}

/// One process that a step must convince before it is left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pass {
    pub(super) event: Event,
    pub(super) process: EProcess,
}

/// The line the pass side tests against before the share `next`, in 1/10,000.
pub(super) fn pass_settings(
    plan: &AnalysisPlan,
    metric: Metric,
    next: u16,
    dispersion: f64,
) -> Settings {
    let share = f64::from(next.max(1)) / f64::from(WHOLE);
    let affordable = |increase: f64| increase.max(plan.harm_budget / share);
    let tolerance = match metric {
        Metric::Errors | Metric::ClientErrors => Tolerance {
            ratio: 1.0,
            delta: affordable(plan.errors.map_or(1.0, |l| l.pass_increase)),
        },
        Metric::Latency => Tolerance {
            ratio: plan.latency.map_or(1.0, |l| l.max_ratio),
            delta: affordable(plan.latency.map_or(1.0, |l| l.pass_increase)),
        },
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

/// Every event a step of this plan must pass, given the bounds known so far.
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
    if let Some(bucket) = promised_bucket(plan, Side::Pass) {
        events.push(Event::new(Metric::SloLatency, Some(bucket)));
    }
    events
}

/// The watch over all traffic, both arms together: do more requests fail than it allows?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Brake {
    /// Share of all requests that may fail.
    pub(super) limit: f64,
    pub(super) process: EProcess,
}

/// A brake at twice what is usual for stable, given its rate and dispersion. `None` when errors are not judged.
pub(super) fn brake(plan: &AnalysisPlan, rate: f64, dispersion: f64) -> Option<Brake> {
    let limits = plan.errors?;
    let usual = 2.0 * rate + 2.0 * limits.max_increase;
    let limit = plan.slo.errors.unwrap_or(0.0).max(usual);
    let settings = brake_settings(plan, limit, dispersion);
    let process = EProcess::new(settings, &[UNKNOWN_RATE]);
    Some(Brake { limit, process })
}

/// A one-sample test of all traffic against the share `delta`.
pub(super) fn brake_settings(plan: &AnalysisPlan, delta: f64, dispersion: f64) -> Settings {
    let tolerance = Tolerance { ratio: 0.0, delta };
    Settings::new(
        Side::Rollback,
        tolerance,
        dispersion,
        plan.false_rollbacks,
        1.0,
    )
}

/// ln of the evidence of all tests together: Σ ω E. The part of the wealth that no test owns yet stays as it is.
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

/// Indices of the tests a crossing is laid to, strongest first. With `M` tests, the largest k such that the k strongest
/// each have E ≥ M / (k α) are named: at most α of the named ones are innocent, in the mean. If there is none,
/// the one that contributes most.
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
