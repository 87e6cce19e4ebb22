//! Collects the samples for an evaluation: the counters of every process since its start.
//!
//! Two sources provide the same numbers. Prometheus returns raw samples (a range selector in an instant query); rates
//! and sums are never queried, because they extrapolate at the edges of a window and hide restarts. In-band counters
//! come from [`crate::node_api::Fleet::counters`]. Both sources produce [`Snapshot`]s keyed by node and start of its
//! process; `operator_core::samples::merge` selects one source and never adds them.
//!
//! A reconcile never waits for Prometheus: [`PrometheusQueries`] queries in tasks of its own.

mod access;
mod answer;
mod batch;
mod collect;
mod matchers;
mod metrics;
mod prometheus;
mod promql;
mod questions;
mod targets;
mod transport;

use std::collections::BTreeMap;
use std::sync::Arc;

use operator_core::samples::Snapshot;

use crate::node_api::{FunctionKey, Latency};
pub use access::{Access, Credentials, HeaderSource};
pub use matchers::{InvalidMatchers, Matchers};
pub use metrics::Meter;
pub use prometheus::Prometheus;
pub use questions::{PrometheusQueries, QueryState};

/// Samples that the decision about one function needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleQuery {
    /// The function to evaluate.
    pub function: FunctionKey,
    /// Candidate and stable revisions.
    pub revisions: Vec<String>,
    /// Latency that the plan compares.
    pub latency: Latency,
    /// Population of requests: `live` unless the strategy selects another.
    pub population: String,
}

/// Samples of one function.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    /// Snapshots in order of time.
    pub snapshots: Vec<Snapshot>,
    /// Clause that says why targets of the node-shims were left out, if any were.
    pub problem: Option<Arc<str>>,
}

/// Result of a read. A function without usable data is missing from `snapshots`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sampled {
    /// Snapshots per function, in order of time.
    snapshots: BTreeMap<FunctionKey, Vec<Snapshot>>,
    /// Number of snapshots and targets left out, by reason.
    rejected: BTreeMap<&'static str, u64>,
    /// Clause that says why targets were left out, if any were.
    problem: Option<String>,
}

impl Sampled {
    /// Adds why targets were left out, and their number if it `counts` here.
    fn include(&mut self, targets: &targets::Targets, counts: bool) {
        for (reason, count) in targets.rejected.iter().filter(|_| counts) {
            *self.rejected.entry(reason).or_default() += count;
        }
        self.problem.clone_from(&targets.problem);
    }

    /// Takes the samples of one function.
    fn take(&mut self, function: &FunctionKey) -> Samples {
        Samples {
            snapshots: self.snapshots.remove(function).unwrap_or_default(),
            problem: self.problem.as_deref().map(Arc::from),
        }
    }
}

/// Why there are no samples. No variant implies anything about a revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// A file with credentials or trusted authorities cannot be used, so nothing was asked.
    #[error("{0}")]
    Access(String),
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
        /// Explanation and message of the body, shortened, with a leading separator; empty if there is neither.
        detail: String,
    },
    /// The answer is larger than the query can need.
    #[error("the answer is larger than {} KiB, more than its targets can need", .limit / 1024)]
    TooLarge {
        /// Maximum size in bytes.
        limit: usize,
    },
    /// The answer violates the API's format.
    #[error("malformed answer ({0})")]
    Malformed(String),
}

impl MeasureError {
    /// Value of the `reason` label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Access(_) => "access",
            Self::NoAnswer(_) => "no_answer",
            Self::Timeout => "timeout",
            Self::BadStatus { .. } => "bad_status",
            Self::TooLarge { .. } => "too_large",
            Self::Malformed(_) => "malformed",
        }
    }

    /// Whether one of the functions in a query may be the cause, rather than the server.
    fn may_be_of_one_function(&self) -> bool {
        match self {
            // 422: the query would load too many samples; 503: it took too long
            Self::BadStatus { status, .. } => matches!(status, 422 | 503),
            Self::TooLarge { .. } | Self::Timeout => true,
            Self::Access(_) | Self::NoAnswer(_) | Self::Malformed(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
