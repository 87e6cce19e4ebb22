//! What is counted, and what the tests say about it.

use serde::{Deserialize, Serialize};

/// What is counted as an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Metric {
    /// Requests that failed through the revision's fault.
    Errors,
    /// Requests slower than one of stable's quantiles.
    Latency,
    /// Requests answered 4xx.
    ClientErrors,
    /// Failed requests, against an absolute objective.
    SloErrors,
    /// Slow requests, against an absolute objective.
    SloLatency,
}

impl Metric {
    /// Reason of a rollback that this metric decides, as written in conditions and Events.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Errors => "ErrorsWorse",
            Self::Latency => "SlowerThanStable",
            Self::ClientErrors => "ClientErrorsWorse",
            Self::SloErrors | Self::SloLatency => "SloViolated",
        }
    }

    /// Name in status and metrics, with the latency bound in seconds if there is one: `errors`, `latency/400ms`,
    /// `clientErrors`, `slo`, `slo/300ms`.
    #[must_use]
    pub fn name(self, bound: Option<f64>) -> String {
        let family = match self {
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::ClientErrors => "clientErrors",
            Self::SloErrors | Self::SloLatency => "slo",
        };
        match bound {
            Some(seconds) if seconds >= 1.0 => format!("{family}/{seconds}s"),
            Some(seconds) => format!("{family}/{}ms", (seconds * 1e5).round() / 100.0),
            None => family.to_owned(),
        }
    }
}

/// Why there is no verdict yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A step needs two evaluations at its own weight.
    Looks,
    /// Latency bounds wait for stable's first requests.
    Bounds,
    /// The pass side has not reached its limit.
    Evidence,
    /// Both revisions miss the objective; nothing passes while that lasts.
    SharedFailure,
}

/// What the sequential tests say now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The step may be left.
    Good,
    /// The candidate is worse than tolerated, first of all by this metric. A Bad is final.
    Bad(Metric),
    /// Neither is shown.
    NotEnough(Missing),
}

/// An absolute objective that both revisions miss. Rates are shares of requests (0 to 1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BrokenPromise {
    /// Rate of the candidate.
    pub candidate: f64,
    /// Rate of stable.
    pub stable: f64,
    /// Rate that the objective allows.
    pub limit: f64,
    /// Whether stable meets the objective again, in the mean over the last minutes.
    pub stable_keeps_it: bool,
}
