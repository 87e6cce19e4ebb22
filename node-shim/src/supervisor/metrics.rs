//! Metrics of the supervisor: table, connection to the operator, disk, cold starts and mapped code.

use std::sync::atomic::Ordering;

use node_api::ExceptionReason;
use prometheus::proto::{MetricFamily, MetricType};

use super::admin_status::{AdminStatus, STAGE_BOUNDS};
use super::shared::Shared;
use crate::function_cache::FunctionCounts;
use crate::load::LoadStage;
use crate::metrics::family::{
    add, counter, counter_family, family, gauge, gauge_family, histogram, labelled_gauges, with,
};

pub(super) fn families(shared: &Shared) -> Vec<MetricFamily> {
    let mut families = connection(&shared.admin_status);
    families.extend(disk(shared));
    families.push(exceptions(shared));
    families.push(cold_starts(&shared.admin_status));
    families.push(compiled_functions(shared));
    families.extend([
        gauge_family(
            "selvage_loaded_components",
            "Number of components whose code is mapped into memory.",
            shared.code_cache.mapped() as f64,
        ),
        gauge_family(
            "selvage_loaded_components_limit",
            "Maximum number of components with mapped code. Components in use are kept mapped beyond it.",
            shared.code_cache.cap() as f64,
        ),
    ]);
    families
}

fn connection(admin_status: &AdminStatus) -> Vec<MetricFamily> {
    let flag = |set: bool| f64::from(u8::from(set));
    vec![
        gauge_family(
            "selvage_table_version",
            "Version of the routing table in effect.",
            admin_status.version() as f64,
        ),
        gauge_family(
            "selvage_node_api_connected",
            "1 while the node is connected to an operator, else 0.",
            flag(admin_status.is_connected()),
        ),
        gauge_family(
            "selvage_node_api_last_contact_seconds",
            "Time of the last contact with an operator, in seconds since the Unix epoch; 0 = never.",
            admin_status.last_contact() as f64 / 1000.0,
        ),
        gauge_family(
            "selvage_node_unsupervised",
            "1 while candidates get no traffic because the node has had no contact with an operator for too long, else 0.",
            flag(admin_status.is_unsupervised()),
        ),
    ]
}

fn disk(shared: &Shared) -> [MetricFamily; 3] {
    let usage = &shared.disk_usage;
    let blobs = usage.blob_bytes.load(Ordering::Relaxed) as f64;
    let native = usage.native_bytes.load(Ordering::Relaxed) as f64;
    let functions = usage.function_bytes.load(Ordering::Relaxed) as f64;
    [
        counter_family(
            "selvage_table_persist_errors_total",
            "Number of failed attempts to write the table to disk.",
            usage.persist_errors.load(Ordering::Relaxed),
        ),
        counter_family(
            "selvage_table_damaged_total",
            "Number of tables on disk that were damaged and could not be read.",
            usage.damaged_tables.load(Ordering::Relaxed),
        ),
        labelled_gauges(
            "selvage_cache_bytes",
            "Size of the caches on disk, in bytes.",
            &[
                (&[("kind", "blobs")], blobs),
                (&[("kind", "native")], native),
                (&[("kind", "functions")], functions),
            ],
        ),
    ]
}

fn exceptions(shared: &Shared) -> MetricFamily {
    let mut exceptions = shared.admin_status.exceptions();
    if shared.health.trouble().is_some() {
        *exceptions.entry(ExceptionReason::DiskFull).or_insert(0) += 1;
    }
    let help = "Number of current problems by reason: revisions that cannot run on this node or cannot reuse instances, rejected records, a failing disk.";
    let mut family = family("selvage_exceptions", help, MetricType::GAUGE);
    for (reason, number) in exceptions {
        let labels = with(&[], &[("reason", reason.name())]);
        add(&mut family, &labels, gauge(number as f64));
    }
    family
}

fn compiled_functions(shared: &Shared) -> MetricFamily {
    let help = "Number of functions of components that were compiled, or taken from the cache of an earlier version.";
    let name = "selvage_compile_functions_total";
    let mut family = family(name, help, MetricType::COUNTER);
    let FunctionCounts { reused, compiled } = shared.functions.totals();
    for (source, count) in [("cached", reused), ("compiled", compiled)] {
        let labels = with(&[], &[("source", source)]);
        add(&mut family, &labels, counter(count));
    }
    family
}

fn cold_starts(admin_status: &AdminStatus) -> MetricFamily {
    let help = "Duration of the stages of a cold start, in seconds: pull, compile, load.";
    let mut family = family("selvage_cold_start_seconds", help, MetricType::HISTOGRAM);
    let stages = [LoadStage::Pull, LoadStage::Compile, LoadStage::Load];
    for (stage, durations) in stages.into_iter().zip(admin_status.stages()) {
        let labels = with(&[], &[("stage", stage.label())]);
        let bounds = STAGE_BOUNDS.into_iter();
        add(
            &mut family,
            &labels,
            histogram(bounds, &durations.counts, durations.sum),
        );
    }
    family
}
