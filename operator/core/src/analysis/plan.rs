//! What is asked of the samples; frozen when a rollout starts.

use std::time::Duration;

/// Which latency is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Measure {
    /// Time to the head of the response.
    #[default]
    Head,
    /// Time to its last byte.
    Full,
}

/// What the candidate may do worse than stable. All are shares of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// δ: tolerated increase.
    pub max_increase: f64,
    /// R ≥ 1: tolerated factor.
    pub max_ratio: f64,
    /// δ of the pass side at full weight.
    pub pass_increase: f64,
}

/// Latency as tail shares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyLimits {
    /// Tolerance of the share that is slower than stable's own quantiles.
    pub limits: Limits,
    /// Which latency.
    pub measure: Measure,
}

/// A promise about latency: at most `slower` of the requests take longer than `within`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencySlo {
    /// The promised time.
    pub within: Duration,
    /// Share of requests that may be slower.
    pub slower: f64,
}

/// Absolute promises, off unless written.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Slo {
    /// Share of requests that may fail.
    pub errors: Option<f64>,
    /// Latency.
    pub latency: Option<LatencySlo>,
}

/// Everything the analysis of one rollout is told; it never changes while the rollout runs, because tolerances
/// chosen after seeing the data would void what is promised about false rollbacks.
#[derive(Debug, Clone, PartialEq)]
pub struct AnalysisPlan {
    /// How often the samples are looked at, at least.
    pub look_period: Duration,
    /// How often Prometheus scrapes.
    pub scrape_interval: Duration,
    /// α: share of harmless candidates that may be rolled back, per rollout.
    pub false_rollbacks: f64,
    /// β: share of harmful candidates that may pass a step.
    pub false_promotions: f64,
    /// B: share of all requests that the next step may cost.
    pub harm_budget: f64,
    /// Errors; `None` = not judged.
    pub errors: Option<Limits>,
    /// Latency; `None` = not judged.
    pub latency: Option<LatencyLimits>,
    /// Tolerated increase of 4xx; `None` = not judged.
    pub client_errors: Option<f64>,
    /// Absolute promises.
    pub slo: Slo,
    /// φ as written; `None` = measured.
    pub dispersion: Option<f64>,
}

impl Default for AnalysisPlan {
    fn default() -> Self {
        Self {
            look_period: Duration::from_secs(5),
            scrape_interval: Duration::from_secs(15),
            false_rollbacks: 0.01,
            false_promotions: 0.05,
            harm_budget: 0.005,
            errors: Some(Limits {
                max_increase: 0.005,
                max_ratio: 1.0,
                pass_increase: 0.01,
            }),
            latency: Some(LatencyLimits {
                limits: Limits {
                    max_increase: 0.002,
                    max_ratio: 1.5,
                    pass_increase: 0.01,
                },
                measure: Measure::Head,
            }),
            client_errors: Some(0.05),
            slo: Slo::default(),
            dispersion: None,
        }
    }
}
