//! Takes the samples that a decision is due: what every process counted since it started.
//!
//! Two ways lead to the same numbers. Prometheus is asked for raw samples (a range selector in an instant
//! query): never for rates or sums, which guess at the edges of a window and hide restarts. In-band
//! counters come from [`crate::node_api::Fleet::counters`]. Either gives [`Snapshot`]s keyed by node and
//! start of its process; `operator_core::samples::merge` takes one of them and never adds.

mod answer;
mod collect;
mod meter;
mod prometheus;
mod selector;
mod transport;

use std::collections::BTreeMap;

use operator_core::samples::Snapshot;

use crate::node_api::{FunctionKey, Latency};
pub use meter::Meter;
pub use prometheus::Prometheus;

/// What one function's decision needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The function.
    pub function: FunctionKey,
    /// Candidate and stable.
    pub revisions: Vec<String>,
    /// Which latency the plan judges.
    pub latency: Latency,
    /// Whose requests: `live` unless the strategy says otherwise.
    pub population: String,
}

/// What came back. A function without anything usable is missing from `snapshots`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampled {
    /// In order of their time.
    pub snapshots: BTreeMap<FunctionKey, Vec<Snapshot>>,
    /// How many snapshots were left out, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
}

/// Why there is nothing. None of these says anything about a revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// No connection, or it broke.
    #[error("no answer ({0})")]
    NoAnswer(String),
    /// Not within five seconds.
    #[error("no answer within 5 s")]
    Timeout,
    /// It answered that it cannot.
    #[error("status {status}{detail}")]
    BadStatus {
        /// HTTP status.
        status: u16,
        /// What the body says, shortened, with a leading separator; empty if nothing.
        detail: String,
    },
    /// More than 16 MiB.
    #[error("the answer is larger than 16 MiB")]
    TooLarge,
    /// Not what the API promises.
    #[error("malformed answer ({0})")]
    Malformed(String),
}

impl MeasureError {
    /// The value of the `reason` label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoAnswer(_) => "no_answer",
            Self::Timeout => "timeout",
            Self::BadStatus { .. } => "bad_status",
            Self::TooLarge => "too_large",
            Self::Malformed(_) => "malformed",
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
#[cfg(test)]
mod transports_tests;
