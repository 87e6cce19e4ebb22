//! The data path's part of the metrics page. The numbers are kept where they arise; this file reads
//! them and is the only one that knows the format's library.

mod function_series;

use std::sync::Mutex;
use std::time::Instant;

use node_api::LATENCY_BOUNDS;
use node_shim_core::outcome::{Outcome, Population, StartKind};
use node_shim_core::series::DetailLevel;
use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::counters::{
    HistogramSnapshot, MEMORY_BOUNDS_MIB, PopulationSnapshot, RevisionCounters, RevisionSnapshot,
};
use crate::data_plane::DataPlane;
use function_series::{FunctionSeries, Row};

/// Who is speaking.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    pub node_name: String,
    /// Start of the supervisor, ms since the epoch: tells two runs on one node apart.
    pub started_ms: u64,
}

/// The data path's part of the pages of one process.
pub struct Metrics {
    identity: NodeIdentity,
    series: Mutex<FunctionSeries>,
}

impl Metrics {
    /// Before the first page.
    #[must_use]
    pub fn new(identity: NodeIdentity) -> Self {
        Self {
            identity,
            series: FunctionSeries::new(),
        }
    }

    /// Appends to a page in the text format of Prometheus.
    pub fn write(&self, page: &mut String, plane: &DataPlane) {
        let rows = FunctionSeries::rows(&self.series, plane, Instant::now());
        let mut families = per_function(&rows);
        families.extend(per_node(&self.identity, plane));
        families.retain(|family| !family.get_metric().is_empty());
        if let Err(error) = TextEncoder::new().encode_utf8(&families, page) {
            tracing::error!(%error, "the metrics page could not be written");
        }
    }
}

type Labels<'a> = &'a [(&'a str, &'a str)];

fn per_function(rows: &[Row]) -> Vec<MetricFamily> {
    let mut requests = family(
        "selvage_requests_total",
        "Requests that ended.",
        MetricType::COUNTER,
    );
    let help = "Requests refused by the revision's own permits or queue.";
    let mut saturated = family("selvage_saturated_total", help, MetricType::COUNTER);
    let help = "From the route to the response head; warm starts only.";
    let mut head = family("selvage_response_head_seconds", help, MetricType::HISTOGRAM);
    let help = "From the route to the last byte; warm starts only.";
    let mut duration = family(
        "selvage_request_duration_seconds",
        help,
        MetricType::HISTOGRAM,
    );
    let mut failures = family(
        "selvage_failures_total",
        "Why requests failed.",
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
            // what a rollout judges unless it says otherwise is the one that everybody has
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

/// Series that live traffic can make exist at 0, so that their first count is not lost.
fn count_requests(
    requests: &mut MetricFamily,
    base: &[LabelPair],
    population: &PopulationSnapshot,
) {
    for outcome in Outcome::ALL {
        for code in outcome.status_classes() {
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

/// Everything of a revision that is one number.
struct ScalarFamilies {
    families: Vec<MetricFamily>,
}

impl ScalarFamilies {
    fn new() -> Self {
        let family = |(name, help, kind)| family(name, help, kind);
        let families = [
            (
                "selvage_in_flight",
                "Permits that are taken.",
                MetricType::GAUGE,
            ),
            (
                "selvage_queued",
                "Requests that wait for a permit.",
                MetricType::GAUGE,
            ),
            (
                "selvage_instances",
                "Instances that exist.",
                MetricType::GAUGE,
            ),
            (
                "selvage_guest_cpu_seconds_total",
                "CPU time of guests.",
                MetricType::COUNTER,
            ),
            (
                "selvage_guest_log_dropped_total",
                "Lines of guests that were dropped.",
                MetricType::COUNTER,
            ),
            (
                "selvage_egress_denied_total",
                "Calls out that were refused.",
                MetricType::COUNTER,
            ),
            (
                "selvage_guest_memory_peak_bytes",
                "Memory of instances at their end.",
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
        "Start of the process.",
        MetricType::GAUGE,
        &[(&[], started)],
    );
    let name = [("node_name", identity.node_name.as_str())];
    one(
        "selvage_node_info",
        "Which node this is.",
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
        "How guests are run.",
        MetricType::GAUGE,
        &[(&engine, gauge(1.0))],
    );
    let errors = counter(node.accept_errors());
    one(
        "selvage_accept_errors_total",
        "Connections that could not be accepted.",
        MetricType::COUNTER,
        &[(&[], errors)],
    );
    let fallbacks = counter(node.fallbacks());
    one(
        "selvage_pick_fallback_total",
        "Requests of a candidate that stable answered.",
        MetricType::COUNTER,
        &[(&[], fallbacks)],
    );
    let stalls = counter(plane.engine().epoch_stalls());
    one(
        "selvage_epoch_stalls_total",
        "Epochs that came over a second late.",
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
        "Slots of the instance pool.",
        MetricType::GAUGE,
        &slots,
    );
    let mut connections = family(
        "selvage_connections",
        "Open connections.",
        MetricType::GAUGE,
    );
    for (proto, open) in node.connections() {
        add(
            &mut connections,
            &with(&[], &[("proto", proto)]),
            gauge(open as f64),
        );
    }
    let help = "Requests refused before they had a function.";
    let mut rejections = family("selvage_gate_rejections_total", help, MetricType::COUNTER);
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

/// Buckets of the format are cumulative; the one without a bound is the count.
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
