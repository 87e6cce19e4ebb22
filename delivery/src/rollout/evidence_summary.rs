//! The evidence for display: counts, rates and evidence of the tests so far.
//!
//! [`crate::analysis`] fills these types, the state persists them, messages read them, and the operator converts them once to
//! `status.rollout.evidence`. No decision depends on them.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::stats::ln_sum_exp;

/// Counts and evidence of one rollout so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvidenceSummary {
    /// Number of evaluations so far.
    #[serde(rename = "looks")]
    pub evaluations: u64,
    /// Time of the last evaluation.
    pub evaluated_at: Option<Timestamp>,
    /// Source of the counts: `Prometheus`, `InBand` or `Both`.
    pub source: String,
    /// Share (0 to 1) of stable's requests that is on nodes with fresh counts.
    pub coverage: Option<f64>,
    /// Counts of the candidate since the rollout began.
    pub candidate: RequestCounts,
    /// Counts of stable since the rollout began.
    pub stable: RequestCounts,
    /// Evidence against the candidate, by metric.
    pub metrics: Vec<MetricEvidence>,
    /// Progress of the step; all zero when no step follows.
    pub pass: PassProgress,
    /// Number of candidate requests needed to detect an increase of 1, 5 and 100 percentage points.
    pub power: Vec<Power>,
    /// Counts that decided the rollout; set once a verdict is Bad.
    pub decisive: Option<Decisive>,
    /// Node that has more than half of the candidate's requests in this step, if there are few nodes.
    #[serde(default)]
    pub dominant: Option<String>,
    /// Node whose counts are missed most and, if known, why they are missing; set while the weight waits for them.
    #[serde(default)]
    pub stale: Option<String>,
}

impl EvidenceSummary {
    /// Returns ln of the combined evidence against the candidate: the average of the tests, weighted by their shares.
    #[must_use]
    pub fn ln_evidence(&self) -> f64 {
        let owned: f64 = self.metrics.iter().map(|metric| metric.share).sum();
        let of_tests = self
            .metrics
            .iter()
            .map(|metric| metric.share.ln() + metric.ln_e);
        let unowned = 1.0 - owned;
        // what no test owns yet is not bet
        let rest = (unowned > 1e-9).then(|| unowned.ln());
        let terms: Vec<f64> = of_tests.chain(rest).collect();
        ln_sum_exp(&terms)
    }
}

/// Counts of one revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// Number of requests that count.
    pub requests: u64,
    /// Number of those requests that failed (5xx, trap, deadline, out of memory).
    pub errors: u64,
    /// Number of those requests that were answered 4xx.
    pub client_errors: u64,
}

impl RequestCounts {
    /// Subtracts `other`; no count falls below 0.
    pub(super) const fn without(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            errors: self.errors.saturating_sub(other.errors),
            client_errors: self.client_errors.saturating_sub(other.client_errors),
        }
    }
}

/// Evidence of one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricEvidence {
    /// Name with its latency bound: `errors`, `latency/300ms`, `clientErrors`, `slo`.
    pub name: String,
    /// ln E: the evidence that the candidate is worse than tolerated.
    pub ln_e: f64,
    /// Anytime-valid p-value, min(1, 1 / largest E so far).
    pub p: f64,
    /// δ: tolerated increase, as a share of requests (0 to 1).
    pub tolerance: f64,
    /// Observed shares of events, candidate and stable; `None` until both had requests.
    pub observed: Option<(f64, f64)>,
    /// Latency bound above which a request is an event.
    pub bound: Option<Duration>,
    /// φ: ratio of the observed variation between nodes to the variation by chance.
    pub dispersion: f64,
    /// ω: weight of the metric (0 to 1) in the combined evidence.
    pub share: f64,
}

/// Progress of the step towards the next one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PassProgress {
    /// Progress of the metric that is furthest behind, 0 to 1.
    pub progress: f64,
    /// Name of the metric that is furthest behind.
    pub limiting: Option<String>,
    /// Estimated number of candidate requests that are still needed.
    pub need_requests: Option<u64>,
    /// Estimated time that those requests take at the rate of the step so far.
    pub eta: Option<Duration>,
}

/// Number of candidate requests needed to detect an increase of the error rate, at the current base rate and weight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Power {
    /// Increase of the error rate, as a share of requests (0 to 1).
    pub increase: f64,
    /// Candidate requests in the median case.
    pub requests_50: u64,
    /// Candidate requests in 95 of 100 rollouts.
    pub requests_95: u64,
}

/// The evaluation that decided, with the counts of the last two evaluations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decisive {
    /// Name of the metric, as in [`MetricEvidence::name`].
    pub metric: String,
    /// Number of the evaluation in the rollout, from 1.
    #[serde(rename = "look")]
    pub evaluation: u64,
    /// Time of the evaluation.
    pub at: Timestamp,
    /// ln of the combined evidence.
    pub ln_e: f64,
    /// ln of the evidence at which the test decides.
    pub ln_limit: f64,
    /// Requests and events of the candidate.
    pub candidate: (u64, u64),
    /// Requests and events of stable.
    pub stable: (u64, u64),
}
