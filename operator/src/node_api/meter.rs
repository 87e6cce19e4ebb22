//! Counters of the node API.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// What happened to streams, reports, hints and blobs. Clones count together.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Open streams of nodes.
    pub streams: IntGauge,
    /// Streams refused or closed by us, by reason.
    pub closed: IntCounterVec,
    /// Reports, counter frames and parts of them by result.
    pub reports: IntCounterVec,
    /// Batches and their bytes.
    pub sent: IntCounterVec,
    /// Hints by result.
    pub hints: IntCounterVec,
    /// Blob calls by result.
    pub blobs: IntCounterVec,
    /// Token reviews by result.
    pub reviews: IntCounterVec,
}

impl Meter {
    /// Counters at zero, registered with `registry`.
    ///
    /// # Errors
    /// A name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, label: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let streams = IntGauge::new("selvage_node_streams", "Open streams of nodes.")?;
        registry.register(Box::new(streams.clone()))?;
        Ok(Self {
            streams,
            closed: counter(
                "selvage_node_streams_closed_total",
                "Streams of nodes that were refused or closed by the operator.",
                "reason",
            )?,
            reports: counter(
                "selvage_node_reports_total",
                "Reports of nodes and the counter frames in them, by what became of them.",
                "result",
            )?,
            sent: counter(
                "selvage_node_sent_total",
                "What went down to the nodes.",
                "unit",
            )?,
            hints: counter(
                "selvage_node_hints_total",
                "Rollback hints, by what became of them.",
                "result",
            )?,
            blobs: counter(
                "selvage_node_blobs_total",
                "Components handed over to nodes, by result.",
                "result",
            )?,
            reviews: counter(
                "selvage_token_reviews_total",
                "Tokens of nodes and replicas, by result.",
                "result",
            )?,
        })
    }

    /// Adds one to a labelled counter.
    pub(super) fn count(counter: &IntCounterVec, label: &str) {
        counter.with_label_values(&[label]).inc();
    }
}
