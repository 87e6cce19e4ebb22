//! Collects the samples for an evaluation: the counters of every process since its start.
//!
//! Two sources provide the same numbers. Prometheus returns raw samples (a range selector in an instant query); rates
//! and sums are never queried, because they extrapolate at the edges of a window and hide restarts. In-band counters
//! come from [`crate::node_api::Fleet::counters`]. Both sources produce [`Snapshot`]s keyed by node and start of its
//! process; `operator_core::samples::merge` selects one source and never adds them.

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

/// Samples that the decision about one function needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The function to evaluate.
    pub function: FunctionKey,
    /// Candidate and stable revisions.
    pub revisions: Vec<String>,
    /// Latency that the plan compares.
    pub latency: Latency,
    /// Population of requests: `live` unless the strategy selects another.
    pub population: String,
}

/// Result of a read. A function without usable data is missing from `snapshots`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampled {
    /// Snapshots per function, in order of time.
    pub snapshots: BTreeMap<FunctionKey, Vec<Snapshot>>,
    /// Number of snapshots left out, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
}

/// Why there are no samples. No variant implies anything about a revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// The connection failed or broke.
    #[error("no answer ({0})")]
    NoAnswer(String),
    /// No answer arrived within five seconds.
    #[error("no answer within 5 s")]
    Timeout,
    /// The server answered with an error.
    #[error("status {status}{detail}")]
    BadStatus {
        /// HTTP status code.
        status: u16,
        /// Message of the body, shortened, with a leading separator; empty if there is none.
        detail: String,
    },
    /// The answer is larger than 16 MiB.
    #[error("the answer is larger than 16 MiB")]
    TooLarge,
    /// The answer violates the API's format.
    #[error("malformed answer ({0})")]
    Malformed(String),
}

impl MeasureError {
    /// Value of the `reason` label.
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
