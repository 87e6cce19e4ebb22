//! Metrics of the data plane in the text format of Prometheus.

mod function_series;

use std::time::Instant;

use node_api::LATENCY_BOUNDS;
use node_shim_core::outcome::{Outcome, Population, StartKind, StatusClass};
use node_shim_core::series::DetailLevel;
use parking_lot::Mutex;
use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::counters::{
    HistogramSnapshot, MEMORY_BOUNDS_MIB, PopulationSnapshot, RevisionCounters, RevisionSnapshot,
};
use crate::data_plane::DataPlane;
use function_series::{FunctionSeries, Row};

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

    /// Appends the metrics of the data plane to `page`.
    pub fn write(&self, page: &mut String, plane: &DataPlane) {
        let rows = FunctionSeries::rows(&self.series, plane, Instant::now());
        let mut families = per_function(&rows);
        families.extend(per_node(&self.identity, plane));
        families.retain(|family| !family.get_metric().is_empty());
        if let Err(error) = TextEncoder::new().encode_utf8(&families, page) {
            tracing::error!(%error, "the metrics could not be encoded");
        }
    }
}

type Labels<'a> = &'a [(&'a str, &'a str)];

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
        others.add(counters, &base, full);
    }
    let mut families = vec![requests, saturated, head, duration, failures];
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
                "selvage_egress_denied_total",
                "Number of outbound requests that were denied.",
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
        let read =
            |value: &std::sync::atomic::AtomicU64| value.load(std::sync::atomic::Ordering::Relaxed);
        let denied = with(base, &[("reason", "not_allowed")]);
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
            (true, &denied, counter(read(&counters.egress_denied))),
            (full, base, memory(counters)),
        ];
        for (family, (shown, labels, metric)) in self.families.iter_mut().zip(values) {
            if shown {
                add(family, labels, metric);
            }
        }
    }
}

fn per_node(identity: &NodeIdentity, plane: &DataPlane) -> Vec<MetricFamily> {
    let node = plane.node_counters();
    let mut families = Vec::new();
    let mut one = |name, help, kind, rows: &[(Labels<'_>, Metric)]| {
        let mut family = family(name, help, kind);
        for (labels, metric) in rows {
            add(&mut family, &with(&[], labels), metric.clone());
        }
        families.push(family);
    };
    let started = gauge(identity.started_ms as f64 / 1000.0);
    one(
        "process_start_time_seconds",
        "Start time of the process in seconds since the Unix epoch.",
        MetricType::GAUGE,
        &[(&[], started)],
    );
    let name = [("node_name", identity.node_name.as_str())];
    one(
        "selvage_node_info",
        "Name of the Kubernetes node; always 1.",
        MetricType::GAUGE,
        &[(&name, gauge(1.0))],
    );
    let scan = plane.engine().pagemap_scan().to_string();
    let engine = [
        ("wasmtime", "48"),
        ("pagemap_scan", scan.as_str()),
        ("cpu", std::env::consts::ARCH),
    ];
    one(
        "selvage_engine_info",
        "Version and options of the engine; always 1.",
        MetricType::GAUGE,
        &[(&engine, gauge(1.0))],
    );
    let errors = counter(node.accept_errors());
    one(
        "selvage_accept_errors_total",
        "Number of connections that could not be accepted.",
        MetricType::COUNTER,
        &[(&[], errors)],
    );
    let fallbacks = counter(node.fallbacks());
    one(
        "selvage_candidate_fallbacks_total",
        "Number of requests of a candidate that the stable revision served, because the candidate could not run.",
        MetricType::COUNTER,
        &[(&[], fallbacks)],
    );
    let stalls = counter(plane.engine().epoch_stalls());
    one(
        "selvage_epoch_stalls_total",
        "Number of epochs that advanced over one second late, which delays CPU limits.",
        MetricType::COUNTER,
        &[(&[], stalls)],
    );
    let free = plane.free_instance_slots() as u64;
    let taken = node.instance_slots().saturating_sub(free);
    let slots: [(Labels<'_>, Metric); 2] = [
        (
            &[("kind", "instance"), ("state", "free")],
            gauge(free as f64),
        ),
        (
            &[("kind", "instance"), ("state", "taken")],
            gauge(taken as f64),
        ),
    ];
    one(
        "selvage_pool_slots",
        "Number of slots of the instance pool by state.",
        MetricType::GAUGE,
        &slots,
    );
    let mut connections = family(
        "selvage_connections",
        "Number of open connections.",
        MetricType::GAUGE,
    );
    for (proto, open) in node.connections() {
        add(
            &mut connections,
            &with(&[], &[("protocol", proto)]),
            gauge(open as f64),
        );
    }
    let help = "Number of requests rejected before they were routed to a function, or for the size of their body.";
    let mut rejections = family("selvage_rejected_requests_total", help, MetricType::COUNTER);
    let mut by_label = std::collections::BTreeMap::new();
    for (reason, count) in node.rejections() {
        *by_label.entry(reason.label()).or_insert(0) += count;
    }
    for (label, count) in by_label {
        add(
            &mut rejections,
            &with(&[], &[("reason", label)]),
            counter(count),
        );
    }
    families.extend([connections, rejections]);
    families
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

fn with(base: &[LabelPair], more: Labels<'_>) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    base.iter().cloned().chain(more.iter().map(pair)).collect()
}

fn family(name: &str, help: &str, kind: MetricType) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family
}

fn add(family: &mut MetricFamily, labels: &[LabelPair], mut metric: Metric) {
    metric.set_label(labels.to_vec());
    family.mut_metric().push(metric);
}

fn counter(value: u64) -> Metric {
    counter_of(value as f64)
}

fn counter_of(value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    metric
}

fn gauge(value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    Metric::from_gauge(gauge)
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

/// Builds a histogram. Buckets of the format are cumulative, and the +Inf bucket is the sample count.
fn histogram(bounds: impl Iterator<Item = f64>, counts: &[u64], sum: f64) -> Metric {
    let mut total = 0;
    let mut buckets = Vec::new();
    for (bound, count) in bounds.zip(counts) {
        total += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(total);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    metric
}
