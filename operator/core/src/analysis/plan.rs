//! Parameters of the analysis, frozen when a rollout starts.

use std::time::Duration;

use crate::rollout::{AnalysisPolicy, LatencySlo, Tolerance};

/// Absolute objectives. None applies unless the user wrote it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Slo {
    /// Share of requests that may fail.
    pub errors: Option<f64>,
    /// Latency objective.
    pub latency: Option<LatencySlo>,
}

/// Parameters of the analysis of one rollout. They never change while the rollout runs, because tolerances chosen after
/// seeing the data would void the guarantee about false rollbacks.
#[derive(Debug, Clone, PartialEq)]
pub struct AnalysisPlan {
    /// Longest time between two evaluations.
    pub look_period: Duration,
    /// Scrape interval of Prometheus.
    pub scrape_interval: Duration,
    /// α: share of harmless candidates that may be rolled back, per rollout.
    pub false_rollbacks: f64,
    /// β: share of harmful candidates that may pass a step.
    pub false_promotions: f64,
    /// B: share of all requests that may additionally fail at the next step.
    pub harm_budget: f64,
    /// Tolerance of failed requests; `None` leaves errors out.
    pub errors: Option<Tolerance>,
    /// Tolerance of requests slower than stable's own quantiles; `None` leaves latency out.
    pub latency: Option<Tolerance>,
    /// Tolerated increase of 4xx answers; `None` leaves them out.
    pub client_errors: Option<f64>,
    /// Absolute objectives.
    pub slo: Slo,
    /// φ as the user wrote it; `None` measures it.
    pub dispersion: Option<f64>,
}

impl AnalysisPlan {
    /// The plan of a rollout with this policy, which judges every metric.
    #[must_use]
    pub fn new(policy: &AnalysisPolicy, scrape_interval: Duration) -> Self {
        Self {
            look_period: policy.look_period,
            scrape_interval,
            false_rollbacks: policy.false_rollbacks,
            false_promotions: policy.false_promotions,
            harm_budget: policy.harm_budget,
            errors: Some(policy.errors),
            latency: Some(policy.latency),
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
