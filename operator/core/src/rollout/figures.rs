//! Evidence a person can read: what the tests saw, in counts and rates.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What the tests saw in one rollout so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// How often.
    pub looks: u64,
    /// When last.
    pub looked_at: Option<Timestamp>,
    /// From where: `Prometheus` or `InBand`.
    pub source: String,
    /// Share of stable's requests that fresh nodes have.
    pub coverage: Option<f64>,
    /// Sums over the rollout.
    pub candidate: ArmSums,
    /// Sums over the rollout.
    pub stable: ArmSums,
    /// Per metric.
    pub metrics: Vec<MetricFigures>,
    /// What the step waits for.
    pub pass: PassFigures,
    /// How many requests it takes to see an increase.
    pub power: Vec<Power>,
    /// Set at a verdict.
    pub decisive: Option<Decisive>,
    /// With few nodes: the one that has more than half of the candidate's requests in this step.
    #[serde(default)]
    pub dominant: Option<String>,
}

/// What one arm did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmSums {
    /// All that count.
    pub requests: u64,
    /// Of them failed.
    pub errors: u64,
    /// Of them 4xx.
    pub client_errors: u64,
}

impl ArmSums {
    /// Without what `other` holds, never below 0.
    pub(super) const fn without(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            errors: self.errors.saturating_sub(other.errors),
            client_errors: self.client_errors.saturating_sub(other.client_errors),
        }
    }
}

/// One metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricFigures {
    /// `errors`, `latency/250ms`, `clientErrors`, `slo`.
    pub name: String,
    /// ln E of the rollback process.
    pub ln_e: f64,
    /// min(1, 1/max E).
    pub p: f64,
    /// δ as a share of one.
    pub tolerance: f64,
    /// Observed share of events, candidate and stable.
    pub observed: Option<(f64, f64)>,
    /// Latency bound.
    pub bound: Option<Duration>,
    /// φ.
    pub dispersion: f64,
    /// ω.
    pub share: f64,
}

/// How far the step is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PassFigures {
    /// 0 to 1 and above.
    pub progress: f64,
    /// The metric that is furthest from its limit.
    pub limiting: Option<String>,
    /// About how many more candidate requests.
    pub need_requests: Option<u64>,
    /// At the present rate.
    pub eta: Option<Duration>,
}

/// What traffic it takes to see an increase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Power {
    /// Share of one.
    pub increase: f64,
    /// Candidate requests, expected.
    pub requests_50: u64,
    /// Candidate requests, 95 %.
    pub requests_95: u64,
}

/// The counts that decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decisive {
    /// Which metric.
    pub metric: String,
    /// Number of the look.
    pub look: u64,
    /// When.
    pub at: Timestamp,
    /// E, in logarithms.
    pub ln_e: f64,
    /// Limit of E, in logarithms.
    pub ln_limit: f64,
    /// Candidate: requests and events of the last two looks.
    pub candidate: (u64, u64),
    /// Stable: requests and events of the last two looks.
    pub stable: (u64, u64),
}
