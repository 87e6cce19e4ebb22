//! Metrics of the operator. Reconcile and watches call the methods of [`Metrics`]; the node API and the sampling have a `Meter` of
//! their own, with families that are registered in the same way.

mod families;
mod function_gauge;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{Encoder, Registry, TextEncoder};

use crate::watch::ObjectKey;
use families::Families;
pub(crate) use families::Registrar;
pub use function_gauge::FunctionGauge;

/// All series of the operator. Clones are cheap and share the series.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    families: Arc<Families>,
    per_function: Arc<Mutex<PublishedGauges>>,
}

/// Gauges that exist for each function: family and labels.
type PublishedGauges = HashMap<ObjectKey, Vec<(usize, Vec<String>)>>;

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
            self.per_function.lock().remove(key)
        } else {
            self.per_function.lock().insert(key.clone(), kept.clone())
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
            .states
            .with_label_values(&[state])
            .set(count as f64);
    }

    /// Counts a finished rollout and records its duration.
    pub fn rollout_ended(&self, strategy: &str, outcome: &str, reason: &str, seconds: f64) {
        self.families
            .rollouts
            .ended
            .with_label_values(&[strategy, outcome, reason])
            .inc();
        self.families
            .rollouts
            .duration
            .with_label_values(&[outcome])
            .observe(seconds);
    }

    /// Records the time until a rollback reached a stage: `decided`, `persisted`, `first_node`, `last_node`.
    pub fn rollback_stage(&self, stage: &str, seconds: f64) {
        self.families
            .rollouts
            .rollback_seconds
            .with_label_values(&[stage])
            .observe(seconds);
    }

    /// Counts an evaluation.
    pub fn evaluated(&self, result: &str, reason: &str) {
        self.families
            .rollouts
            .evaluations
            .with_label_values(&[result, reason])
            .inc();
    }

    /// Counts an action that was executed or ignored.
    pub fn action(&self, action: &str, result: &str) {
        self.families
            .rollouts
            .actions
            .with_label_values(&[action, result])
            .inc();
    }

    /// Counts an Event that was dropped because its queue was full or the API server refused it.
    pub fn event_dropped(&self, reason: &str) {
        self.families
            .work
            .events_dropped
            .with_label_values(&[reason])
            .inc();
    }

    /// Records the duration of a reconcile.
    pub fn reconciled(&self, result: &str, seconds: f64) {
        self.families
            .work
            .reconcile_seconds
            .with_label_values(&[result])
            .observe(seconds);
    }

    /// Counts a step of a reconcile that failed.
    pub fn reconcile_failed(&self, step: &str) {
        self.families
            .work
            .reconcile_failures
            .with_label_values(&[step])
            .inc();
    }

    /// Counts a status write, successful or refused.
    pub fn status_written(&self, result: &str) {
        self.families
            .work
            .status_writes
            .with_label_values(&[result])
            .inc();
    }

    /// Counts a request for an image to a registry.
    pub fn resolved(&self, result: &str) {
        self.families
            .work
            .resolves
            .with_label_values(&[result])
            .inc();
    }

    /// Sets whether this replica leads.
    pub fn set_leading(&self, leading: bool) {
        self.families.work.leading.set(i64::from(leading));
    }

    /// Sets how many objects of a kind cannot be decoded.
    pub fn set_unreadable(&self, kind: &str, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.families
            .work
            .unreadable
            .with_label_values(&[kind])
            .set(f64::from(count));
    }

    /// Counts that all functions were queued.
    pub fn queued_all(&self, reason: &str) {
        let family = &self.families.work.queue_all;
        family.with_label_values(&[reason]).inc();
    }

    /// Sets the number of queued functions, and records how long one waited.
    pub fn waited(&self, waiting: usize, class: &str, seconds: f64) {
        self.families
            .work
            .queue
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.families
            .work
            .wait
            .with_label_values(&[class])
            .inc_by(seconds.max(0.0));
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
