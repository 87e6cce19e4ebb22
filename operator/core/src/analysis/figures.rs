//! What a person can read about the evidence: plain figures, no state.

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use crate::stats::Increment;

/// What is counted in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Metric {
    /// Failed through the revision's fault.
    Errors,
    /// Slower than one of stable's quantiles.
    Latency,
    /// Answered 4xx.
    ClientErrors,
    /// Failed, against the promise.
    SloErrors,
    /// Slower than promised.
    SloLatency,
}

impl Metric {
    /// The name in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::ClientErrors => "clientErrors",
            Self::SloErrors => "sloErrors",
            Self::SloLatency => "sloLatency",
        }
    }

    /// Why a rollout is rolled back when this metric decides.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Errors => Reason::ErrorsWorse,
            Self::Latency => Reason::SlowerThanStable,
            Self::ClientErrors => Reason::ClientErrorsWorse,
            Self::SloErrors | Self::SloLatency => Reason::SloViolated,
        }
    }
}

/// Why the analysis says Bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The candidate fails more often than tolerated.
    ErrorsWorse,
    /// Its tail is heavier than tolerated.
    SlowerThanStable,
    /// It answers 4xx more often than tolerated.
    ClientErrorsWorse,
    /// It breaks a promise, and stable does not break it alike.
    SloViolated,
}

impl Reason {
    /// As written in conditions and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ErrorsWorse => "ErrorsWorse",
            Self::SlowerThanStable => "SlowerThanStable",
            Self::ClientErrorsWorse => "ClientErrorsWorse",
            Self::SloViolated => "SloViolated",
        }
    }
}

/// The look that decided, exactly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decisive {
    /// The metric the decision is laid to first.
    pub metric: Metric,
    /// Its latency bound in seconds.
    pub bound: Option<f64>,
    /// Number of the look in the rollout, from 1.
    pub look: u32,
    /// When.
    #[serde(with = "millisecond::required")]
    pub at: Timestamp,
    /// ln of the combined evidence.
    pub ln_evidence: f64,
    /// Counts of the deciding metric in the last two looks together.
    pub counts: Increment,
}

/// Why there is no verdict yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A step needs two looks at its own share.
    Looks,
    /// Latency bounds wait for stable's first requests.
    Bounds,
    /// The pass side has not reached its limit.
    Evidence,
    /// Both arms break the promise: nothing passes while that lasts.
    SharedFailure,
}

/// What the sequential test says now.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The step may be left.
    Good,
    /// The candidate is worse than tolerated. Stays so once said.
    Bad(Decisive),
    /// Neither is shown.
    NotEnough(Missing),
}

impl Verdict {
    /// The reason of a Bad.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Bad(decisive) => Some(decisive.metric.reason()),
            Self::Good | Self::NotEnough(_) => None,
        }
    }
}

/// How far the step is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PassProgress {
    /// 0..1 of the way, of the process that is furthest behind.
    pub progress: f64,
    /// Which that is.
    pub limiting: Option<(Metric, Option<f64>)>,
    /// About how many more candidate requests it needs.
    pub need_requests: Option<u64>,
    /// About how many seconds that takes at the step's own pace.
    pub eta_seconds: Option<u64>,
}

/// How many candidate requests find an increase of the error rate, at the present base rate and weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Power {
    /// Increase of the error rate, a share of requests.
    pub increase: f64,
    /// Candidate requests until it is found, in the middle.
    pub requests_expected: f64,
    /// Until it is found in 95 of 100 rollouts.
    pub requests_95: f64,
}

/// Sums of one arm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmSums {
    /// Requests that count.
    pub requests: u64,
    /// Failed ones.
    pub errors: u64,
    /// Answered 4xx.
    pub client_errors: u64,
}

/// One metric of the rollback side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricFigures {
    /// Which.
    pub metric: Metric,
    /// Latency bound in seconds.
    pub bound: Option<f64>,
    /// ln E.
    pub ln_evidence: f64,
    /// p-value that holds at any time.
    pub p: f64,
    /// Tolerated factor, 0 for an absolute promise.
    pub ratio: f64,
    /// Tolerated increase.
    pub delta: f64,
    /// Candidate's rate since the rollout began, if it had requests.
    pub candidate: Option<f64>,
    /// Stable's.
    pub stable: Option<f64>,
    /// φ.
    pub dispersion: f64,
    /// ω, the part of α it owns.
    pub part: f64,
}

/// Everything there is to show.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Looks so far.
    pub looks: u32,
    /// The last one.
    pub looked_at: Option<Timestamp>,
    /// ln of the combined evidence.
    pub ln_evidence: f64,
    /// Share (0..1) of stable's requests on nodes whose counters are fresh.
    pub coverage: f64,
    /// Sums of the rollout.
    pub candidate: ArmSums,
    /// Sums of the rollout.
    pub stable: ArmSums,
    /// Sums of the step.
    pub step_candidate: ArmSums,
    /// Sums of the step.
    pub step_stable: ArmSums,
    /// Rollback side, by metric.
    pub metrics: Vec<MetricFigures>,
    /// Pass side; `None` when no step follows.
    pub pass: Option<PassProgress>,
    /// For increases of 1, 5 and 100 percentage points.
    pub power: Vec<Power>,
    /// The look that decided.
    pub decisive: Option<Decisive>,
}

/// A promise that both arms break.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BrokenPromise {
    /// The candidate's rate.
    pub candidate: f64,
    /// Stable's rate.
    pub stable: f64,
    /// The promised one.
    pub limit: f64,
    /// Whether stable is within it again, in the mean over the last minutes.
    pub stable_keeps_it: bool,
}
