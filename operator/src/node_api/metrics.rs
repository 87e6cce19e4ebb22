//! Metrics of the node API.

use prometheus::{IntCounterVec, IntGauge, Registry};

use crate::metrics::Registrar;

/// Counters of streams, reports, hints and blobs. Clones share them.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Number of open streams of nodes.
    pub streams: IntGauge,
    /// Streams that the operator refused or closed, by reason.
    pub closed: IntCounterVec,
    /// Reports, counter frames and parts of them, by result.
    pub reports: IntCounterVec,
    /// Batches that were sent, and their bytes.
    pub sent: IntCounterVec,
    /// Hints, by result.
    pub hints: IntCounterVec,
    /// Blob calls, by result.
    pub blobs: IntCounterVec,
    /// Token reviews, by result.
    pub reviews: IntCounterVec,
}

impl Meter {
    /// Creates the counters at zero, registered with `registry`.
    ///
    /// # Errors
    /// A name is already registered.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        let counter = |name, help, label| registrar.counter(name, help, &[label]);
        Ok(Self {
            streams: registrar.gauge("selvage_node_streams", "Number of open streams of nodes.")?,
            closed: counter(
                "selvage_node_streams_closed_total",
                "Streams of nodes that were refused or closed by the operator.",
                "reason",
            )?,
            reports: counter(
                "selvage_node_reports_total",
                "Reports of nodes and the counter frames in them, by result.",
                "result",
            )?,
            sent: counter(
                "selvage_node_sent_total",
                "Batches sent to the nodes, and their bytes.",
                "unit",
            )?,
            hints: counter(
                "selvage_node_hints_total",
                "Rollback hints, by result.",
                "result",
            )?,
            blobs: counter(
                "selvage_node_blobs_total",
                "Components served to nodes, by result.",
                "result",
            )?,
            reviews: counter(
                "selvage_token_reviews_total",
                "Reviewed tokens of nodes and replicas, by result.",
                "result",
            )?,
        })
    }

    /// Increments a labelled counter by one.
    pub(super) fn count(counter: &IntCounterVec, label: &str) {
        counter.with_label_values(&[label]).inc();
    }
}
