//! Metrics of sampling.

use std::sync::Arc;
use std::time::Duration;

use ::prometheus::{HistogramVec, IntCounterVec, Registry};
use parking_lot::Mutex;

use super::{MeasureError, Sampled};
use crate::failure_log::FailureLog;
use crate::metrics::Registrar;

const SOURCE: &str = "prometheus";

/// Metrics of queries and of snapshots left out, and the log of failed queries. Clones share them.
#[derive(Clone, Debug)]
pub struct Meter {
    seconds: HistogramVec,
    failures: IntCounterVec,
    rejected: IntCounterVec,
    log: Arc<Mutex<FailureLog>>,
}

impl Meter {
    /// Creates the metrics at zero, registered with `registry`.
    ///
    /// # Errors
    /// A name is already registered.
    pub fn new(registry: &Registry) -> Result<Self, ::prometheus::Error> {
        let registrar = Registrar(registry);
        Ok(Self {
            seconds: registrar.histogram(
                "selvage_metrics_query_seconds",
                "Duration of one read of samples, for all functions to evaluate.",
                &["source"],
                &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0],
            )?,
            failures: registrar.counter(
                "selvage_metrics_query_failures_total",
                "Reads of samples that returned no usable answer.",
                &["source", "reason"],
            )?,
            rejected: registrar.counter(
                "selvage_samples_rejected_total",
                "Snapshots that were left out because a number in them is invalid, and targets that are no process of a known node.",
                &["reason"],
            )?,
            log: Arc::default(),
        })
    }

    pub(super) fn read(&self, took: Duration, answer: &Result<Sampled, MeasureError>) {
        self.seconds
            .with_label_values(&[SOURCE])
            .observe(took.as_secs_f64());
        match answer {
            Ok(sampled) => {
                for (reason, count) in &sampled.rejected {
                    self.rejected.with_label_values(&[reason]).inc_by(*count);
                }
                if let Some(failures) = self.log.lock().succeeded() {
                    tracing::info!(failures, "Prometheus answers again");
                }
            }
            Err(error) => {
                self.failures
                    .with_label_values(&[SOURCE, error.reason()])
                    .inc();
                if let Some(failures) = self.log.lock().failed(error) {
                    tracing::warn!(
                        %error, failures,
                        "a query of Prometheus failed; evaluations use the counters of the nodes where the analysis allows it"
                    );
                }
            }
        }
    }
}
