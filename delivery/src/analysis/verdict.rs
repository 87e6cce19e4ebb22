//! Metrics and verdicts.

use serde::{Deserialize, Serialize};

/// Metric of a test.
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

/// Reason why there is no verdict yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A step needs two evaluations at its own weight.
    Evaluations,
    /// The latency bounds need more of stable's requests.
    Bounds,
    /// A test of the pass side has not reached its limit.
    Evidence,
    /// Both revisions miss the objective. No step passes while that lasts.
    SharedFailure,
}

/// Combined verdict of the sequential tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The step may end.
    Good,
    /// The candidate is worse than tolerated, most clearly by this metric. This verdict is final.
    Bad(Metric),
    /// Neither is shown.
    NotEnough(Missing),
}

/// An absolute objective that both revisions miss. Rates are shares of requests (0 to 1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MissedSlo {
    /// Rate of the candidate.
    pub candidate: f64,
    /// Rate of stable.
    pub stable: f64,
    /// Rate that the objective allows.
    pub limit: f64,
    /// Whether stable meets the objective again, in the mean over the last minutes.
    pub stable_meets_it: bool,
}
