//! Metrics of the operator. Only this file uses the metrics library; other modules call its methods.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{
    CounterVec, Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

use crate::watch::ObjectKey;

const SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const ROLLOUT_SECONDS: &[f64] = &[
    10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0, 7200.0, 14_400.0, 86_400.0,
];

/// All series of the operator. Clones are cheap and share the series.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    families: Arc<Families>,
    per_function: Arc<Mutex<PublishedGauges>>,
}

/// Gauges that exist for each function: family and labels.
type PublishedGauges = HashMap<ObjectKey, Vec<(usize, Vec<String>)>>;

struct Families {
    functions: Vec<GaugeVec>,
    rollouts: GaugeVec,
    rollouts_total: IntCounterVec,
    rollout_duration: HistogramVec,
    rollback_seconds: HistogramVec,
    looks: IntCounterVec,
    actions: IntCounterVec,
    events_dropped: IntCounterVec,
    reconcile_seconds: HistogramVec,
    reconcile_failures: IntCounterVec,
    status_writes: IntCounterVec,
    unreadable: GaugeVec,
    resolves: IntCounterVec,
    leading: IntGauge,
    queue: IntGauge,
    wait: CounterVec,
}

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

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

// === impl Metrics ===

impl Metrics {
    /// Registers every family.
    ///
    /// # Errors
    /// A family is declared incorrectly, which the tests detect.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let families = Families::register(&registry)?;
        Ok(Self {
            registry,
            families: Arc::new(families),
            per_function: Arc::default(),
        })
    }

    /// Registry for components that register their own metrics.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Renders all metrics in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }

    /// Replaces all gauges of one function: series that are not in `values` are removed.
    pub fn set_function(&self, key: &ObjectKey, values: &[(FunctionGauge, Vec<&str>, f64)]) {
        let mut kept = Vec::with_capacity(values.len());
        for (gauge, labels, value) in values {
            let all: Vec<&str> = [&*key.namespace, &*key.name]
                .into_iter()
                .chain(labels.iter().copied())
                .collect();
            let index = *gauge as usize;
            let Some(family) = self.families.functions.get(index) else {
                continue;
            };
            if let Ok(series) = family.get_metric_with_label_values(&all) {
                series.set(*value);
                kept.push((
                    index,
                    all.into_iter().map(ToOwned::to_owned).collect::<Vec<_>>(),
                ));
            }
        }
        let before = if kept.is_empty() {
            self.lock().remove(key)
        } else {
            self.lock().insert(key.clone(), kept.clone())
        };
        for (index, labels) in before.unwrap_or_default() {
            if !kept.contains(&(index, labels.clone()))
                && let Some(family) = self.families.functions.get(index)
            {
                let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                // The series was already removed, which is the wanted result.
                let _ = family.remove_label_values(&labels);
            }
        }
    }

    /// Sets the number of rollouts in a state.
    pub fn set_rollouts(&self, state: &str, count: usize) {
        self.families
            .rollouts
            .with_label_values(&[state])
            .set(count as f64);
    }

    /// Counts a finished rollout and records its duration.
    pub fn rollout_ended(&self, strategy: &str, outcome: &str, reason: &str, seconds: f64) {
        self.families
            .rollouts_total
            .with_label_values(&[strategy, outcome, reason])
            .inc();
        self.families
            .rollout_duration
            .with_label_values(&[outcome])
            .observe(seconds);
    }

    /// Records the time until a rollback reached a stage: `decided`, `persisted`, `first_node`, `last_node`.
    pub fn rollback_stage(&self, stage: &str, seconds: f64) {
        self.families
            .rollback_seconds
            .with_label_values(&[stage])
            .observe(seconds);
    }

    /// Counts an evaluation.
    pub fn evaluated(&self, result: &str, reason: &str) {
        self.families
            .looks
            .with_label_values(&[result, reason])
            .inc();
    }

    /// Counts an action that was executed or ignored.
    pub fn action(&self, action: &str, result: &str) {
        self.families
            .actions
            .with_label_values(&[action, result])
            .inc();
    }

    /// Counts an Event that was dropped because its queue was full or the API server refused it.
    pub fn event_dropped(&self, reason: &str) {
        self.families
            .events_dropped
            .with_label_values(&[reason])
            .inc();
    }

    /// Records the duration of a reconcile.
    pub fn reconciled(&self, result: &str, seconds: f64) {
        self.families
            .reconcile_seconds
            .with_label_values(&[result])
            .observe(seconds);
    }

    /// Counts a step of a reconcile that failed.
    pub fn reconcile_failed(&self, step: &str) {
        self.families
            .reconcile_failures
            .with_label_values(&[step])
            .inc();
    }

    /// Counts a status write, successful or refused.
    pub fn status_written(&self, result: &str) {
        self.families
            .status_writes
            .with_label_values(&[result])
            .inc();
    }

    /// Counts a request for an image to a registry.
    pub fn resolved(&self, result: &str) {
        self.families.resolves.with_label_values(&[result]).inc();
    }

    /// Sets whether this replica leads.
    pub fn set_leading(&self, leading: bool) {
        self.families.leading.set(i64::from(leading));
    }

    /// Sets how many objects of a kind cannot be decoded.
    pub fn set_unreadable(&self, kind: &str, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.families
            .unreadable
            .with_label_values(&[kind])
            .set(f64::from(count));
    }

    /// Sets the number of queued functions, and records how long one waited.
    pub fn waited(&self, waiting: usize, class: &str, seconds: f64) {
        self.families
            .queue
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.families
            .wait
            .with_label_values(&[class])
            .inc_by(seconds.max(0.0));
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, PublishedGauges> {
        self.per_function.lock()
    }
}

impl Families {
    #[expect(clippy::too_many_lines, reason = "one entry for each metric")]
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let mut functions = Vec::with_capacity(GAUGES.len());
        for (name, help, labels) in GAUGES {
            let labels: Vec<&str> = ["function_namespace", "function"]
                .into_iter()
                .chain(labels.iter().copied())
                .collect();
            let family = GaugeVec::new(Opts::new(name, help), &labels)?;
            registry.register(Box::new(family.clone()))?;
            functions.push(family);
        }
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let family = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone())).map(|()| family)
        };
        let histogram = |name: &str, help: &str, labels: &[&str], bounds: &[f64]| {
            let family = HistogramVec::new(
                HistogramOpts::new(name, help).buckets(bounds.to_vec()),
                labels,
            )?;
            registry.register(Box::new(family.clone())).map(|()| family)
        };
        let gauge = |name: &str, help: &str| {
            let family = IntGauge::new(name, help)?;
            registry.register(Box::new(family.clone())).map(|()| family)
        };
        let rollouts = GaugeVec::new(
            Opts::new("selvage_rollouts", "Rollouts by state."),
            &["state"],
        )?;
        registry.register(Box::new(rollouts.clone()))?;
        let unreadable = GaugeVec::new(
            Opts::new(
                "selvage_unreadable_objects",
                "Objects whose newest version this operator cannot decode; the last readable version stays in use.",
            ),
            &["kind"],
        )?;
        registry.register(Box::new(unreadable.clone()))?;
        let wait = CounterVec::new(
            Opts::new(
                "selvage_queue_wait_seconds_total",
                "Time that functions waited in the queue before their reconcile.",
            ),
            &["class"],
        )?;
        registry.register(Box::new(wait.clone()))?;
        Ok(Self {
            functions,
            rollouts,
            wait,
            rollouts_total: counter(
                "selvage_rollouts_total",
                "Finished rollouts.",
                &["strategy", "outcome", "reason"],
            )?,
            rollout_duration: histogram(
                "selvage_rollout_duration_seconds",
                "Duration of rollouts from start to end.",
                &["outcome"],
                ROLLOUT_SECONDS,
            )?,
            rollback_seconds: histogram(
                "selvage_rollback_seconds",
                "Time from the deciding evaluation to each stage of a rollback.",
                &["stage"],
                SECONDS,
            )?,
            looks: counter(
                "selvage_evaluations_total",
                "Evaluations of the sequential tests.",
                &["result", "reason"],
            )?,
            actions: counter(
                "selvage_actions_total",
                "Actions that users requested.",
                &["action", "result"],
            )?,
            events_dropped: counter(
                "selvage_events_dropped_total",
                "Events that were dropped and not recorded.",
                &["reason"],
            )?,
            reconcile_seconds: histogram(
                "selvage_reconcile_seconds",
                "Duration of a reconcile.",
                &["result"],
                SECONDS,
            )?,
            reconcile_failures: counter(
                "selvage_reconcile_failures_total",
                "Reconciles that ended early because a step failed.",
                &["step"],
            )?,
            status_writes: counter(
                "selvage_status_writes_total",
                "Writes of the status of functions.",
                &["result"],
            )?,
            resolves: counter(
                "selvage_resolves_total",
                "Requests for images to registries.",
                &["result"],
            )?,
            unreadable,
            leading: gauge("selvage_leading", "1 while this replica leads.")?,
            queue: gauge(
                "selvage_queue_length",
                "Functions that wait in the queue for their reconcile.",
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render()).unwrap()
    }

    #[test]
    fn outdated_series_of_a_function_are_removed() {
        let metrics = Metrics::new().unwrap();
        let key = ObjectKey::new("shop", "checkout");
        metrics.set_function(
            &key,
            &[
                (FunctionGauge::State, vec!["Loading"], 1.0),
                (FunctionGauge::Weight, vec![""], 0.0),
            ],
        );
        metrics.set_function(
            &key,
            &[
                (FunctionGauge::State, vec!["Stepping"], 1.0),
                (FunctionGauge::Step, vec![], 2.0),
            ],
        );
        let now = text(&metrics);
        assert!(now.contains(r#"selvage_rollout_state{function="checkout",function_namespace="shop",state="Stepping"} 1"#));
        assert!(
            !now.contains("Loading") && !now.contains("selvage_rollout_weight{"),
            "{now}"
        );
        metrics.set_function(&key, &[]);
        assert!(!text(&metrics).contains("checkout"));
    }

    #[test]
    fn every_gauge_takes_its_own_labels() {
        let metrics = Metrics::new().unwrap();
        let key = ObjectKey::new("a", "b");
        let all = [
            (FunctionGauge::State, vec!["Idle"], 1.0),
            (FunctionGauge::Info, vec!["c", "s", "Canary"], 1.0),
            (FunctionGauge::Weight, vec![""], 1.0),
            (FunctionGauge::Step, vec![], 1.0),
            (FunctionGauge::LogE, vec!["errors", "rollback"], 1.0),
            (FunctionGauge::PassProgress, vec![], 1.0),
            (FunctionGauge::Requests, vec!["stable"], 1.0),
            (FunctionGauge::Events, vec!["stable", "errors"], 1.0),
            (FunctionGauge::Dispersion, vec!["errors"], 1.0),
            (FunctionGauge::CheckVerdict, vec!["errors"], 1.0),
            (FunctionGauge::Hold, vec!["TotalErrors"], 1.0),
        ];
        metrics.set_function(&key, &all);
        assert_eq!(text(&metrics).matches(r#"function="b""#).count(), all.len());
    }
}
