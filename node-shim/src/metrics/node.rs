//! Metrics of the data plane that belong to no function.

use std::collections::BTreeMap;

use prometheus::proto::{MetricFamily, MetricType};

use super::NodeIdentity;
use super::family::{
    add, counter, counter_family, family, gauge, gauge_family, labelled_gauges, with,
};
use crate::data_plane::DataPlane;
use crate::key_value::KeyValueUsage;
use crate::node_counters::NodeCounters;

/// Maximum number of certificates of functions with an entry of their own.
const MAX_CERTIFICATES: usize = 100;
/// Label value of the entry that the other certificates share.
const OTHER: &str = "_other";

pub(super) fn families(identity: &NodeIdentity, plane: &DataPlane) -> Vec<MetricFamily> {
    let (node, engine) = (plane.node_counters(), plane.engine());
    let scan = engine.pagemap_scan().to_string();
    let labels = [
        ("wasmtime", "48"),
        ("pagemap_scan", scan.as_str()),
        ("cpu", std::env::consts::ARCH),
    ];
    vec![
        gauge_family(
            "process_start_time_seconds",
            "Start time of the process in seconds since the Unix epoch.",
            identity.started_ms as f64 / 1000.0,
        ),
        labelled_gauges(
            "selvage_node_info",
            "Name of the Kubernetes node; always 1.",
            &[(&[("node_name", identity.node_name.as_str())], 1.0)],
        ),
        labelled_gauges(
            "selvage_engine_info",
            "Version and options of the engine; always 1.",
            &[(&labels, 1.0)],
        ),
        counter_family(
            "selvage_accept_errors_total",
            "Number of connections that could not be accepted.",
            node.accept_errors(),
        ),
        counter_family(
            "selvage_refused_connections_total",
            "Number of connections that were closed because their address had the maximum number of open connections.",
            node.refused_connections(),
        ),
        counter_family(
            "selvage_candidate_fallbacks_total",
            "Number of requests of a candidate that the stable revision served, because the candidate could not run.",
            node.fallbacks(),
        ),
        counter_family(
            "selvage_epoch_stalls_total",
            "Number of epochs that advanced over one second late, which delays CPU limits.",
            engine.epoch_stalls(),
        ),
        counter_family(
            "selvage_tls_handshake_failures_total",
            "Number of connections whose TLS handshake failed.",
            node.handshake_failures(),
        ),
        gauge_family(
            "selvage_idle_instances",
            "Number of instances that wait for another request.",
            plane.idle_instances() as f64,
        ),
        counter_family(
            "selvage_instance_reuses_total",
            "Number of requests that started on an instance that had answered others.",
            node.reuses(),
        ),
        counter_family(
            "selvage_instance_reruns_total",
            "Number of requests that failed on an instance that had answered others and ran again on a fresh one.",
            node.reruns(),
        ),
        counter_family(
            "selvage_access_log_dropped_total",
            "Number of lines of the access log that were dropped.",
            plane.access_log_dropped(),
        ),
        instance_drops(node),
        forwards(node),
        certificates(plane),
        pool_slots(plane),
        guest_memory(plane),
        connections(node),
        rejections(node),
    ]
    .into_iter()
    .chain(key_value(&plane.key_value_usage()))
    .chain(spans(plane))
    .collect()
}

fn forwards(node: &NodeCounters) -> MetricFamily {
    let help = "Number of requests that were passed on to other nodes, on which their function is placed, by outcome.";
    let mut forwards = family(
        "selvage_forwarded_requests_total",
        help,
        MetricType::COUNTER,
    );
    for (outcome, count) in node.forwards() {
        let labels = with(&[], &[("outcome", outcome.label())]);
        add(&mut forwards, &labels, counter(count));
    }
    forwards
}

/// Returns the metrics of traces; none while traces are off.
fn spans(plane: &DataPlane) -> Vec<MetricFamily> {
    let Some(tracer) = plane.tracer() else {
        return Vec::new();
    };
    let exported = counter_family(
        "selvage_spans_exported_total",
        "Number of spans that the collector of traces has accepted.",
        tracer.exported(),
    );
    let help = "Number of spans that were dropped, by reason.";
    let mut dropped = family("selvage_spans_dropped_total", help, MetricType::COUNTER);
    for (reason, count) in tracer.dropped() {
        let labels = with(&[], &[("reason", reason.label())]);
        add(&mut dropped, &labels, counter(count));
    }
    vec![exported, dropped]
}

fn key_value(usage: &KeyValueUsage) -> [MetricFamily; 6] {
    let help = "Number of operations on key-value stores by kind of store and outcome.";
    let mut operations = family(
        "selvage_key_value_operations_total",
        help,
        MetricType::COUNTER,
    );
    for (store, outcome, count) in &usage.operations {
        let labels = with(&[], &[("store", *store), ("outcome", outcome.label())]);
        add(&mut operations, &labels, counter(*count));
    }
    let help = "Number of entries that were evicted from key-value stores in memory.";
    let mut evictions = family(
        "selvage_key_value_evictions_total",
        help,
        MetricType::COUNTER,
    );
    for (reason, count) in usage.evictions {
        add(
            &mut evictions,
            &with(&[], &[("reason", reason)]),
            counter(count),
        );
    }
    let help = "Number of reads of key-value stores with copies in memory by whether a copy answered them.";
    let mut cache_reads = family(
        "selvage_key_value_cache_reads_total",
        help,
        MetricType::COUNTER,
    );
    for (result, count) in usage.cache_reads {
        let labels = with(&[], &[("result", result)]);
        add(&mut cache_reads, &labels, counter(count));
    }
    [
        operations,
        evictions,
        cache_reads,
        gauge_family(
            "selvage_key_value_memory_bytes",
            "Memory of the entries and copies of key-value stores.",
            usage.memory as f64,
        ),
        gauge_family(
            "selvage_key_value_memory_limit_bytes",
            "Maximum memory of the entries and copies of key-value stores.",
            usage.memory_limit as f64,
        ),
        gauge_family(
            "selvage_key_value_entries",
            "Number of entries and copies of key-value stores in memory.",
            usage.entries as f64,
        ),
    ]
}

fn certificates(plane: &DataPlane) -> MetricFamily {
    let help =
        "End of the validity of a certificate of the TLS port, in seconds since the Unix epoch.";
    let mut family = family(
        "selvage_tls_certificate_expiry_timestamp_seconds",
        help,
        MetricType::GAUGE,
    );
    let Some(certificates) = plane.certificates() else {
        return family;
    };
    let table = plane.table();
    let of_functions = bounded_expirations(table.certificates().expirations());
    for (name, end) in certificates.expirations().into_iter().chain(of_functions) {
        let labels = with(&[], &[("certificate", name.as_str())]);
        add(&mut family, &labels, gauge(end as f64));
    }
    family
}

/// Returns the certificates that expire first. The others share one entry, with the earliest of their ends.
fn bounded_expirations(all: BTreeMap<String, i64>) -> Vec<(String, i64)> {
    let mut ordered: Vec<(String, i64)> = all.into_iter().collect();
    ordered.sort_by(|(a, a_end), (b, b_end)| (a_end, a).cmp(&(b_end, b)));
    let rest = ordered.split_off(ordered.len().min(MAX_CERTIFICATES));
    let other = rest.into_iter().next();
    ordered.extend(other.map(|(_, end)| (OTHER.to_owned(), end)));
    ordered
}

fn pool_slots(plane: &DataPlane) -> MetricFamily {
    let free = plane.free_instance_slots() as u64;
    let taken = plane.node_counters().instance_slots().saturating_sub(free);
    labelled_gauges(
        "selvage_pool_slots",
        "Number of slots of the instance pool by state.",
        &[
            (&[("kind", "instance"), ("state", "free")], free as f64),
            (&[("kind", "instance"), ("state", "taken")], taken as f64),
        ],
    )
}

fn instance_drops(node: &NodeCounters) -> MetricFamily {
    let help = "Number of instances of revisions with instances.reuse that were dropped, by cause.";
    let mut family = family("selvage_instance_drops_total", help, MetricType::COUNTER);
    for (cause, count) in node.instance_drops() {
        let labels = with(&[], &[("cause", cause.label())]);
        add(&mut family, &labels, counter(count));
    }
    family
}

fn guest_memory(plane: &DataPlane) -> MetricFamily {
    let free = plane.free_guest_memory();
    let taken = plane.engine().guest_memory().saturating_sub(free);
    labelled_gauges(
        "selvage_guest_memory_bytes",
        "Memory for guests by state.",
        &[
            (&[("state", "free")], free as f64),
            (&[("state", "taken")], taken as f64),
        ],
    )
}

fn connections(node: &NodeCounters) -> MetricFamily {
    let help = "Number of open connections.";
    let mut family = family("selvage_connections", help, MetricType::GAUGE);
    for (protocol, open) in node.connections() {
        let labels = with(&[], &[("protocol", protocol)]);
        add(&mut family, &labels, gauge(open as f64));
    }
    family
}

fn rejections(node: &NodeCounters) -> MetricFamily {
    let help = "Number of requests rejected before they were routed to a function, or for the size of their body.";
    let mut family = family("selvage_rejected_requests_total", help, MetricType::COUNTER);
    let mut by_label = BTreeMap::new();
    for (reason, count) in node.rejections() {
        *by_label.entry(reason.label()).or_insert(0) += count;
    }
    for (label, count) in by_label {
        add(
            &mut family,
            &with(&[], &[("reason", label)]),
            counter(count),
        );
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_beyond_the_limit_share_one_entry_with_their_earliest_end() {
        let ends = |count: i64| {
            (0..count)
                .map(|at| (format!("ns/{at}"), 1_000 - at))
                .collect()
        };
        assert!(bounded_expirations(BTreeMap::new()).is_empty());
        let few = bounded_expirations(ends(100));
        assert_eq!(
            (few.len(), few.last()),
            (100, Some(&("ns/0".to_owned(), 1_000)))
        );
        let many = bounded_expirations(ends(150));
        assert_eq!(many.len(), 101);
        assert_eq!(many.first(), Some(&("ns/149".to_owned(), 851)));
        assert_eq!(many.last(), Some(&(OTHER.to_owned(), 951)));
    }
}
