//! Gauges that exist for each function during a rollout.

use prometheus::{Error, GaugeVec};

use super::families::Registrar;

/// A gauge of one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionGauge {
    /// 1 for the present state. Label `state`.
    State,
    /// Always 1. Labels `candidate`, `stable`, `strategy`.
    Info,
    /// Weight of the candidate, in basis points (1/10,000). Label `wave`.
    Weight,
    /// Index of the current step, from 0.
    Step,
    /// Natural logarithm of the evidence of a sequential test. Labels `metric`, `side`.
    LogE,
    /// Progress of the current step, 0 to 1.
    PassProgress,
    /// Requests counted over the rollout. Label `arm`.
    Requests,
    /// Events counted over the rollout. Labels `arm`, `metric`.
    Events,
    /// Estimated dispersion φ. Label `metric`.
    Dispersion,
    /// 1 good, 0 not enough data, −1 bad. Label `check`.
    CheckVerdict,
    /// 1 while the weight is held. Label `reason`.
    Hold,
}

const GAUGES: [(&str, &str, &[&str]); 11] = [
    (
        "selvage_rollout_state",
        "1 for the current state of the function's rollout.",
        &["state"],
    ),
    (
        "selvage_rollout_info",
        "Revisions that the rollout compares.",
        &["candidate", "stable", "strategy"],
    ),
    (
        "selvage_rollout_weight",
        "Weight of the candidate in basis points (1/10,000).",
        &["wave"],
    ),
    (
        "selvage_rollout_step",
        "Index of the current step of the plan, from 0.",
        &[],
    ),
    (
        "selvage_rollout_log_e",
        "Natural logarithm of the evidence of a sequential test.",
        &["metric", "side"],
    ),
    (
        "selvage_rollout_pass_progress",
        "Progress of the current step, 0 to 1.",
        &[],
    ),
    (
        "selvage_rollout_requests",
        "Requests counted by the tests of the rollout.",
        &["arm"],
    ),
    (
        "selvage_rollout_events",
        "Events (errors, slow requests) among those requests.",
        &["arm", "metric"],
    ),
    (
        "selvage_rollout_dispersion",
        "Dispersion between nodes: 1 when they differ no more than by chance.",
        &["metric"],
    ),
    (
        "selvage_rollout_check_verdict",
        "Result of a check: 1 good, 0 not enough data, -1 bad.",
        &["check"],
    ),
    (
        "selvage_rollout_hold",
        "1 while the weight is held for this reason.",
        &["reason"],
    ),
];

/// Registers the families in the order of [`FunctionGauge`].
pub(super) fn register(registrar: &Registrar<'_>) -> Result<Vec<GaugeVec>, Error> {
    let families = GAUGES.iter().map(|(name, help, labels)| {
        let of_function = ["function_namespace", "function"].iter();
        let labels: Vec<&str> = of_function.chain(*labels).copied().collect();
        registrar.gauges(name, help, &labels)
    });
    families.collect()
}
