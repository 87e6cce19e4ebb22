//! Read access to an [`Analysis`].

use std::time::Duration;

use jiff::Timestamp;

use crate::rollout::{EvidenceSummary, MetricEvidence, PassProgress, Power};
use crate::stats;

use super::sequential::{self, Pass, Test};
use super::verdict::{Metric, MissedSlo};
use super::{Analysis, TailBounds, WHOLE};

/// Increases of the error rate for which the status shows the number of requests needed.
const INCREASES: [f64; 3] = [0.01, 0.05, 1.0];
/// Factors from the theoretical lower bound to the requests that the test needs: in the median case, and in 95 of 100 rollouts.
const COST_EXPECTED: f64 = 1.5;
const COST_95: f64 = 3.5;

impl Analysis {
    /// Whether this analysis began at that time.
    #[must_use]
    pub fn is_of(&self, started_at: Timestamp) -> bool {
        self.started_at == started_at
    }

    /// Returns the current weight and the one that would follow, in basis points.
    #[must_use]
    pub const fn step_shares(&self) -> (u16, Option<u16>) {
        (self.step.weight, self.step.next)
    }

    /// Returns the requests of candidate and stable that are compared with the weight.
    #[must_use]
    pub const fn split(&self) -> (u64, u64) {
        self.step.split
    }

    /// Returns the number of candidate requests in the last evaluation.
    #[must_use]
    pub const fn last_candidate_requests(&self) -> u64 {
        self.memory.last_requests
    }

    /// Returns the objective that both revisions miss, with the rates since that was detected.
    #[must_use]
    pub fn missed_slo(&self) -> Option<MissedSlo> {
        self.shared_since?;
        let alpha = self.plan.false_rollbacks;
        let test = self
            .tests
            .iter()
            .find(|t| t.slo.as_ref().is_some_and(|p| p.stable.reached(alpha)))?;
        let mut seen = stats::Increment::default();
        self.memory.shared.iter().for_each(|(_, one)| seen.add(one));
        if seen.stable_requests <= 0.0 || seen.candidate_requests <= 0.0 {
            seen = test.total;
        }
        let limit = test.process.settings().tolerance.delta;
        let stable = seen.stable_events / seen.stable_requests.max(1.0);
        Some(MissedSlo {
            candidate: seen.candidate_events / seen.candidate_requests.max(1.0),
            stable,
            limit,
            stable_meets_it: stable <= limit,
        })
    }

    /// Returns the time of the last usable samples of an exposed node; before the first, the start of the analysis.
    #[must_use]
    pub const fn usable_at(&self) -> Timestamp {
        self.usable_at
    }

    /// Returns ln of the combined evidence against the candidate.
    #[must_use]
    pub fn ln_evidence(&self) -> f64 {
        sequential::combined(&self.tests)
    }

    /// Returns the latency bounds in use.
    #[must_use]
    pub const fn bounds(&self) -> Option<&TailBounds> {
        self.bounds.as_ref()
    }

    /// Returns the evidence for display. The caller adds the source of the counts and the nodes.
    #[must_use]
    pub fn evidence_summary(&self) -> EvidenceSummary {
        EvidenceSummary {
            evaluations: u64::from(self.evaluations),
            evaluated_at: self.evaluated_at,
            source: String::new(),
            coverage: Some(self.memory.coverage),
            candidate: self.candidate,
            stable: self.stable,
            metrics: self.tests.iter().map(metric_evidence).collect(),
            pass: self.pass_progress(),
            power: self.power(),
            decisive: self.decisive.as_ref().map(|(_, counts)| counts.clone()),
            dominant: None,
            stale: None,
        }
    }

    fn pass_progress(&self) -> PassProgress {
        let beta = self.plan.false_promotions;
        let furthest_behind = self
            .pass
            .iter()
            .min_by(|a, b| b.missing(beta).total_cmp(&a.missing(beta)));
        let Some(limiting) = furthest_behind.filter(|_| self.step.next.is_some()) else {
            return PassProgress::default();
        };
        let waits_for_bounds = self.plan.latency.is_some() && self.bounds.is_none();
        let progress = if waits_for_bounds {
            0.0
        } else {
            (1.0 + limiting.missing(beta) / beta.ln()).clamp(0.0, 1.0)
        };
        let need = self
            .pass
            .iter()
            .filter_map(|p| self.requests_to_pass(p, beta))
            .reduce(f64::max);
        let eta = need.and_then(|need| self.seconds_for(need));
        PassProgress {
            progress,
            limiting: Some(limiting.event.name()),
            need_requests: need.map(ceil),
            eta: eta.map(|seconds| Duration::from_secs(ceil(seconds))),
        }
    }

    /// Returns the number of requests until a candidate that is as good as stable passes: the missing evidence divided by the
    /// information per request.
    fn requests_to_pass(&self, pass: &Pass, beta: f64) -> Option<f64> {
        let missing = pass.missing(beta);
        if missing <= 0.0 {
            return Some(0.0);
        }
        let stats::Tolerance { ratio, delta } = pass.process.settings().tolerance;
        let rate = pass.process.estimates().first()?.rate();
        let per_request = stats::information(rate, rate, ratio, delta, self.share()?);
        (per_request > 0.0 && per_request.is_finite())
            .then(|| missing * pass.process.settings().dispersion / per_request)
    }

    fn seconds_for(&self, requests: f64) -> Option<f64> {
        let passed = self
            .evaluated_at?
            .duration_since(self.step.started_at)
            .as_secs_f64();
        let counted = self.step.candidate.requests as f64;
        (passed > 0.0 && counted > 0.0).then(|| requests * passed / counted)
    }

    fn share(&self) -> Option<f64> {
        let share = f64::from(self.step.weight) / f64::from(WHOLE);
        (share > 0.0).then(|| share.min(0.9999))
    }

    /// Only increases beyond the tolerance can be detected, and none while the candidate has no weight.
    fn power(&self) -> Vec<Power> {
        let errors = self.tests.iter().find(|t| t.event.metric == Metric::Errors);
        let (Some(errors), Some(share)) = (errors, self.share()) else {
            return Vec::new();
        };
        let Some(base) = errors
            .process
            .estimates()
            .first()
            .map(stats::RateEstimate::rate)
        else {
            return Vec::new();
        };
        let stats::Tolerance { ratio, delta } = errors.process.settings().tolerance;
        let goal = -self.plan.false_rollbacks.ln() * errors.process.settings().dispersion;
        INCREASES
            .into_iter()
            .map(|increase| (increase, (base + increase).min(1.0)))
            .filter(|(_, candidate)| *candidate > ratio * base + delta)
            .map(|(increase, candidate)| {
                let bound = goal / stats::information(candidate, base, ratio, delta, share);
                (increase, bound)
            })
            .filter(|(_, bound)| bound.is_finite())
            .map(|(increase, bound)| Power {
                increase,
                requests_50: ceil(COST_EXPECTED * bound),
                requests_95: ceil(COST_95 * bound),
            })
            .collect()
    }
}

fn metric_evidence(test: &Test) -> MetricEvidence {
    let rate = |events: f64, requests: f64| (requests > 0.0).then(|| events / requests);
    let settings = test.process.settings();
    let candidate = rate(test.total.candidate_events, test.total.candidate_requests);
    let stable = rate(test.total.stable_events, test.total.stable_requests);
    MetricEvidence {
        name: test.event.name(),
        ln_e: test.ln_evidence(),
        p: test.process.p(),
        tolerance: settings.tolerance.delta,
        observed: candidate.zip(stable),
        bound: test.event.bound().map(Duration::from_secs_f64),
        dispersion: settings.dispersion,
        share: test.part,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative; beyond 2^64 saturates"
)]
fn ceil(value: f64) -> u64 {
    value.ceil() as u64
}
