//! Parameters of the analysis, frozen when a rollout starts.

use std::time::Duration;

use crate::rollout::{AnalysisPolicy, LatencySlo, Tolerance};

/// Absolute objectives. None applies by default.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Slo {
    /// Share of requests (0 to 1) that may fail.
    pub errors: Option<f64>,
    /// Latency objective.
    pub latency: Option<LatencySlo>,
}

/// Parameters of the analysis of one rollout. They never change while the rollout runs, because tolerances chosen after
/// seeing the data would void the guarantee about false rollbacks.
#[derive(Debug, Clone, PartialEq)]
pub struct AnalysisPlan {
    /// Longest time between two evaluations.
    pub evaluation_interval: Duration,
    /// Scrape interval of Prometheus.
    pub scrape_interval: Duration,
    /// α: accepted probability that a rollout of a harmless candidate is rolled back.
    pub false_rollbacks: f64,
    /// β: accepted probability that a harmful candidate passes a step.
    pub false_promotions: f64,
    /// B: share of all requests that may additionally fail in the next step.
    pub harm_budget: f64,
    /// Tolerance of failed requests; `None` ignores errors.
    pub errors: Option<Tolerance>,
    /// Tolerance of requests slower than stable's own quantiles; `None` ignores latency.
    pub latency: Option<Tolerance>,
    /// Latency below which quantiles are not compared.
    pub latency_floor: Duration,
    /// Tolerated increase of 4xx responses; `None` ignores them.
    pub client_errors: Option<f64>,
    /// Absolute objectives of the policy.
    pub slo: Slo,
    /// φ from the policy; `None` measures it.
    pub dispersion: Option<f64>,
}

impl AnalysisPlan {
    /// Creates the plan of a rollout with this policy. It compares every metric.
    #[must_use]
    pub fn new(policy: &AnalysisPolicy, scrape_interval: Duration) -> Self {
        Self {
            evaluation_interval: policy.evaluation_interval,
            scrape_interval,
            false_rollbacks: policy.false_rollbacks,
            false_promotions: policy.false_promotions,
            harm_budget: policy.harm_budget,
            errors: Some(policy.errors),
            latency: Some(policy.latency),
            latency_floor: policy.latency_floor,
            client_errors: Some(policy.client_errors),
            slo: Slo {
                errors: policy.slo_errors,
                latency: policy.slo_latency,
            },
            dispersion: policy.dispersion,
        }
    }
}

impl Default for AnalysisPlan {
    fn default() -> Self {
        Self::new(&AnalysisPolicy::default(), Duration::from_secs(15))
    }
}
