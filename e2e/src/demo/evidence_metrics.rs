//! Reads the evidence from the metrics of the leader, which Prometheus scrapes every two seconds. The status of a
//! function is written less often.

use crate::cluster::query;
use serde_json::Value;
use std::time::Duration;
use tokio::{sync::watch, task::JoinHandle};

/// Metrics of a rollout.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct EvidenceMetrics {
    /// Name of the metric with the most evidence against the candidate, and its e-value.
    pub(super) against: Option<(String, f64)>,
    /// Progress towards the next step, 0 to 1.
    pub(super) pass: Option<f64>,
}

/// Task that reads the metrics every second.
#[derive(Debug)]
pub(super) struct EvidenceReader {
    latest: watch::Receiver<EvidenceMetrics>,
    task: JoinHandle<()>,
}

impl EvidenceReader {
    pub(super) fn start(url: String, function: &'static str) -> Self {
        let (sender, latest) = watch::channel(EvidenceMetrics::default());
        let task = tokio::spawn(async move {
            let of = format!("function=\"{function}\"");
            let log_e =
                format!("max by (metric) (selvage_rollout_log_e{{{of},side=\"rollback\"}})");
            let pass = format!("max(selvage_rollout_pass_progress{{{of}}})");
            loop {
                let metrics = EvidenceMetrics {
                    against: query(&url, &log_e)
                        .await
                        .ok()
                        .and_then(|found| largest(&found)),
                    pass: query(&url, &pass)
                        .await
                        .ok()
                        .and_then(|found| Some(largest(&found)?.1)),
                };
                let metrics = EvidenceMetrics {
                    against: metrics.against.map(|(name, log)| (name, log.exp())),
                    ..metrics
                };
                if sender.send(metrics).is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        Self { latest, task }
    }

    pub(super) fn read(&self) -> EvidenceMetrics {
        self.latest.borrow().clone()
    }
}

impl Drop for EvidenceReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the largest value of an instant vector and its label `metric`.
fn largest(vector: &Value) -> Option<(String, f64)> {
    let series = vector.as_array()?.iter().filter_map(|series| {
        let value: f64 = series["value"][1].as_str()?.parse().ok()?;
        Some((
            series["metric"]["metric"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            value,
        ))
    });
    series
        .filter(|(_, value)| !value.is_nan())
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_largest_series_is_named() {
        let vector = json!([
            { "metric": { "metric": "errors" }, "value": [1.0, "2.5"] },
            { "metric": { "metric": "latency/5ms" }, "value": [1.0, "-1"] },
            { "metric": { "metric": "broken" }, "value": [1.0, "NaN"] },
        ]);
        assert_eq!(largest(&vector), Some(("errors".to_owned(), 2.5)));
        assert_eq!(largest(&json!([])), None);
    }
}
