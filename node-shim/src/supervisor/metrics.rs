//! Metrics of the supervisor in the Prometheus text format: table, connection to the operator, disk, cold
//! starts and mapped code.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use node_api::ExceptionReason;

use super::admin_status::{AdminStatus, STAGE_BOUNDS};
use super::state_writer::DiskUsage;
use crate::code_cache::CodeCache;
use crate::disk::DiskHealth;
use crate::load::LoadStage;

/// Appends the metrics of table, connection, disk and cold starts to a page.
pub(crate) fn write(
    page: &mut String,
    admin_status: &AdminStatus,
    disk_usage: &DiskUsage,
    health: &DiskHealth,
) {
    let contact = admin_status.last_contact() as f64 / 1000.0;
    gauge(
        page,
        "selvage_table_version",
        "Version of the routing table in effect.",
        admin_status.version() as f64,
    );
    let connected = f64::from(u8::from(admin_status.is_connected()));
    gauge(
        page,
        "selvage_node_api_connected",
        "1 while the node is connected to an operator, else 0.",
        connected,
    );
    let help =
        "Time of the last contact with an operator, in seconds since the Unix epoch; 0 = never.";
    gauge(page, "selvage_node_api_last_contact_seconds", help, contact);
    let unsupervised = f64::from(u8::from(admin_status.is_unsupervised()));
    let help = "1 while candidates get no traffic because the node has had no contact with an operator for too long, else 0.";
    gauge(page, "selvage_node_unsupervised", help, unsupervised);
    let errors = disk_usage.persist_errors.load(Ordering::Relaxed);
    counter(
        page,
        "selvage_table_persist_errors_total",
        "Number of failed attempts to write the table to disk.",
        errors,
    );
    let damaged = disk_usage.damaged_tables.load(Ordering::Relaxed);
    counter(
        page,
        "selvage_table_damaged_total",
        "Number of tables on disk that were damaged and could not be read.",
        damaged,
    );
    head(
        page,
        "selvage_cache_bytes",
        "gauge",
        "Size of the caches on disk, in bytes.",
    );
    let kinds = [
        ("blobs", &disk_usage.blob_bytes),
        ("native", &disk_usage.native_bytes),
    ];
    for (kind, bytes) in kinds {
        line(
            page,
            "selvage_cache_bytes",
            &format!("kind=\"{kind}\""),
            bytes.load(Ordering::Relaxed),
        );
    }
    head(
        page,
        "selvage_exceptions",
        "gauge",
        "Number of current problems by reason: revisions that cannot run on this node, rejected records, a failing disk.",
    );
    let mut exceptions = admin_status.exceptions();
    if health.trouble().is_some() {
        *exceptions.entry(ExceptionReason::DiskFull).or_insert(0) += 1;
    }
    for (reason, number) in exceptions {
        line(
            page,
            "selvage_exceptions",
            &format!("reason=\"{}\"", reason.name()),
            number,
        );
    }
    stages(page, admin_status);
}

/// Appends the number of mapped components and its limit.
pub(crate) fn write_code_cache(page: &mut String, code_cache: &CodeCache) {
    let help = "Number of components whose code is mapped into memory.";
    let mapped = code_cache.mapped() as f64;
    gauge(page, "selvage_loaded_components", help, mapped);
    let help = "Maximum number of components with mapped code. Components in use are kept mapped beyond it.";
    let cap = code_cache.cap() as f64;
    gauge(page, "selvage_loaded_components_limit", help, cap);
}

fn stages(page: &mut String, admin_status: &AdminStatus) {
    let name = "selvage_cold_start_seconds";
    head(
        page,
        name,
        "histogram",
        "Duration of the stages of a cold start, in seconds: pull, compile, load.",
    );
    let labels = [LoadStage::Pull, LoadStage::Compile, LoadStage::Load].map(LoadStage::label);
    for (stage, histogram) in labels.into_iter().zip(admin_status.stages()) {
        let mut total = 0;
        let bounds = STAGE_BOUNDS
            .iter()
            .map(ToString::to_string)
            .chain(["+Inf".to_string()]);
        for (bound, count) in bounds.zip(histogram.counts) {
            total += count;
            let labels = format!("stage=\"{stage}\",le=\"{bound}\"");
            line(page, "selvage_cold_start_seconds_bucket", &labels, total);
        }
        let stage = format!("stage=\"{stage}\"");
        let _ = writeln!(page, "{name}_sum{{{stage}}} {}", histogram.sum);
        line(page, "selvage_cold_start_seconds_count", &stage, total);
    }
}

fn gauge(page: &mut String, name: &str, help: &str, value: f64) {
    head(page, name, "gauge", help);
    let _ = writeln!(page, "{name} {value}");
}

fn counter(page: &mut String, name: &str, help: &str, value: u64) {
    head(page, name, "counter", help);
    let _ = writeln!(page, "{name} {value}");
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(page: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(page, "{name}{{{labels}}} {value}");
}
