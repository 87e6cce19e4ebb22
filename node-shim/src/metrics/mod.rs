//! Metrics of the data plane in the text format of Prometheus.

pub(crate) mod family;
mod function_series;
mod node;
mod open_metrics;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use node_api::LATENCY_BOUNDS;
use node_shim_core::egress::{DenialReason, EgressOutcome};
use node_shim_core::request_labels::{Outcome, Population, StartKind, StatusClass};
use node_shim_core::series::DetailLevel;
use parking_lot::Mutex;
use prometheus::TextEncoder;
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use crate::admin::MetricsPage;
use crate::counters::{
    HistogramSnapshot, MEMORY_BOUNDS_MIB, PopulationSnapshot, RevisionCounters, RevisionSnapshot,
};
use crate::data_plane::DataPlane;
use family::{add, counter, counter_of, family, gauge, histogram, with};
use function_series::{FunctionSeries, Row};
use open_metrics::ExemplarTable;

/// Identity of the process in the metrics.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    /// Name of the Kubernetes node.
    pub node_name: String,
    /// Start of the process in milliseconds since the Unix epoch.
    pub started_ms: u64,
}

/// Renders the metrics of the data plane.
pub struct Metrics {
    identity: NodeIdentity,
    series: Mutex<FunctionSeries>,
}

impl Metrics {
    /// Returns the state before the first scrape.
    #[must_use]
    pub fn new(identity: NodeIdentity) -> Self {
        Self {
            identity,
            series: FunctionSeries::new(),
        }
    }

    /// Returns the metrics of the data plane and `more`, in a format that suits a client with this `accept` header. Only a
    /// node that has recorded requests has anything that needs OpenMetrics.
    pub fn page(&self, plane: &DataPlane, more: Vec<MetricFamily>, accept: &str) -> MetricsPage {
        let mut families = self.families(plane);
        families.extend(more);
        let accepted = open_metrics::is_preferred(accept).then(|| exemplars(plane));
        if let Some(exemplars) = accepted.filter(|exemplars| !exemplars.is_empty()) {
            return MetricsPage {
                media_type: open_metrics::MEDIA_TYPE,
                text: open_metrics::page(&families, &exemplars),
            };
        }
        let mut text = String::new();
        encode(families, &mut text);
        MetricsPage::text(text)
    }

    /// Returns the metrics of the data plane.
    fn families(&self, plane: &DataPlane) -> Vec<MetricFamily> {
        let rows = FunctionSeries::rows(&self.series, plane, Instant::now());
        let mut families = per_function(&rows);
        families.extend(node::families(&self.identity, plane));
        families
    }
}

/// Returns the recorded requests of all revisions.
fn exemplars(plane: &DataPlane) -> ExemplarTable {
    let shown = plane.counters().shown();
    let recorded = shown.iter().filter_map(|counters| {
        let function = &counters.function;
        let key = [
            &function.namespace,
            &function.name,
            counters.revision.as_str(),
        ];
        Some((key.map(str::to_owned), counters.exemplars.snapshot()?))
    });
    recorded.collect()
}

/// Appends metrics to a page in the text format of Prometheus.
fn encode(mut families: Vec<MetricFamily>, page: &mut String) {
    families.retain(|family| !family.get_metric().is_empty());
    if let Err(error) = TextEncoder::new().encode_utf8(&families, page) {
        tracing::error!(%error, "the metrics could not be encoded");
    }
}

fn per_function(rows: &[Row]) -> Vec<MetricFamily> {
    let mut requests = family(
        "selvage_requests_total",
        "Number of requests that have ended.",
        MetricType::COUNTER,
    );
    let help = "Number of requests that the revision's own concurrency limit or queue rejected.";
    let mut saturated = family("selvage_saturated_total", help, MetricType::COUNTER);
    let help = "Time from routing to the response head in seconds; warm starts only.";
    let mut head = family("selvage_response_head_seconds", help, MetricType::HISTOGRAM);
    let help = "Time from routing to the last byte of the response in seconds; warm starts only.";
    let mut duration = family(
        "selvage_request_duration_seconds",
        help,
        MetricType::HISTOGRAM,
    );
    let mut failures = family(
        "selvage_failures_total",
        "Number of failed requests by reason.",
        MetricType::COUNTER,
    );
    let mut egress = egress_families();
    let mut others = ScalarFamilies::new();
    for (counters, level) in rows {
        let full = *level == DetailLevel::Full;
        let snapshot = counters.snapshot();
        let base = base_labels(&snapshot);
        for population in &snapshot.populations {
            count_requests(&mut requests, &base, population);
            let labels = with(&base, &[("population", population.population.label())]);
            add(&mut saturated, &labels, counter(population.saturated));
            add(&mut head, &labels, latency(&population.head));
            // rollouts use the histogram of heads by default, so every function exports that one
            if full {
                add(&mut duration, &labels, latency(&population.duration));
            }
        }
        for (reason, count) in counters.failures().filter(|(_, count)| *count > 0) {
            add(
                &mut failures,
                &with(&base, &[("reason", reason.label())]),
                counter(count),
            );
        }
        count_egress(&mut egress, counters, &base);
        others.add(counters, &base, full);
    }
    let mut families = vec![requests, saturated, head, duration, failures];
    families.extend(egress);
    families.extend(others.families);
    families
}

/// Adds the request counters of a population. Every series that live traffic can produce is exported from 0
/// on, so that `rate` and `increase` see its first increment.
fn count_requests(
    requests: &mut MetricFamily,
    base: &[LabelPair],
    population: &PopulationSnapshot,
) {
    for outcome in Outcome::ALL {
        for code in StatusClass::possible(outcome) {
            for start in StartKind::ALL {
                let found = population
                    .requests
                    .iter()
                    .find(|r| r.outcome == outcome && r.code == *code && r.start == start)
                    .map_or(0, |r| r.count);
                if found == 0 && population.population != Population::Live {
                    continue;
                }
                let labels = with(
                    base,
                    &[
                        ("outcome", outcome.label()),
                        ("code", code.label()),
                        ("start", start.label()),
                        ("population", population.population.label()),
                    ],
                );
                add(requests, &labels, counter(found));
            }
        }
    }
}

/// Returns the families of outbound requests: sent ones and denied ones.
fn egress_families() -> [MetricFamily; 2] {
    [
        family(
            "selvage_egress_requests_total",
            "Number of outbound requests that were not denied, by outcome.",
            MetricType::COUNTER,
        ),
        family(
            "selvage_egress_denied_total",
            "Number of outbound requests that were denied, by reason.",
            MetricType::COUNTER,
        ),
    ]
}

/// Adds the counters of outbound requests. Most functions send none, so only what has happened has a series, except
/// the first reason for a denial and the first outcome.
fn count_egress(
    [requests, denied]: &mut [MetricFamily; 2],
    counters: &RevisionCounters,
    base: &[LabelPair],
) {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let outcomes = EgressOutcome::ALL.iter().zip(&counters.egress_requests);
    for (at, (outcome, count)) in outcomes.enumerate() {
        if at == 0 || read(count) > 0 {
            let labels = with(base, &[("outcome", outcome.label())]);
            add(requests, &labels, counter(read(count)));
        }
    }
    let reasons = DenialReason::ALL.iter().zip(&counters.egress_denied);
    for (at, (reason, count)) in reasons.enumerate() {
        if at == 0 || read(count) > 0 {
            let labels = with(base, &[("reason", reason.label())]);
            add(denied, &labels, counter(read(count)));
        }
    }
}

/// Metric families of a revision beside requests and latencies.
struct ScalarFamilies {
    families: Vec<MetricFamily>,
}

impl ScalarFamilies {
    fn new() -> Self {
        let family = |(name, help, kind)| family(name, help, kind);
        let families = [
            (
                "selvage_in_flight_requests",
                "Number of requests that hold a permit of the revision.",
                MetricType::GAUGE,
            ),
            (
                "selvage_queued_requests",
                "Number of requests that wait for a permit of the revision.",
                MetricType::GAUGE,
            ),
            (
                "selvage_instances",
                "Number of live instances.",
                MetricType::GAUGE,
            ),
            (
                "selvage_guest_cpu_seconds_total",
                "CPU time of guests in seconds.",
                MetricType::COUNTER,
            ),
            (
                "selvage_guest_log_dropped_total",
                "Number of log lines of guests that were dropped.",
                MetricType::COUNTER,
            ),
            (
                "selvage_guest_memory_peak_bytes",
                "Peak memory of instances in bytes, observed at their end.",
                MetricType::HISTOGRAM,
            ),
        ];
        Self {
            families: families.into_iter().map(family).collect(),
        }
    }

    fn add(&mut self, counters: &RevisionCounters, base: &[LabelPair], full: bool) {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let values = [
            (full, base, gauge(read(&counters.in_flight) as f64)),
            (full, base, gauge(read(&counters.queued) as f64)),
            (full, base, gauge(read(&counters.instances) as f64)),
            (
                true,
                base,
                counter_of(read(&counters.cpu_micros) as f64 / 1e6),
            ),
            (true, base, counter(read(&counters.log_dropped))),
            (full, base, memory(counters)),
        ];
        for (family, (shown, labels, metric)) in self.families.iter_mut().zip(values) {
            if shown {
                add(family, labels, metric);
            }
        }
    }
}

fn base_labels(snapshot: &RevisionSnapshot) -> Vec<LabelPair> {
    let function = &snapshot.function;
    with(
        &[],
        &[
            ("function_namespace", &function.namespace),
            ("function", &function.name),
            ("revision", snapshot.revision.as_str()),
        ],
    )
}

fn latency(snapshot: &HistogramSnapshot) -> Metric {
    let bounds = LATENCY_BOUNDS.iter().copied();
    histogram(bounds, &snapshot.counts, snapshot.sum_seconds)
}

fn memory(counters: &RevisionCounters) -> Metric {
    let (counts, sum) = counters.memory_peaks();
    let bounds = MEMORY_BOUNDS_MIB.iter().map(|mib| (mib << 20) as f64);
    histogram(bounds, &counts, sum as f64)
}
