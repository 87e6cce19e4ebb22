//! Selection of the functions with their own series, and the aggregate of the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use node_api::LATENCY_BOUNDS;
use node_shim_core::egress::{DenialReason, EgressOutcome};
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::request_labels::{Outcome, Population, StartKind, StatusClass};
use node_shim_core::series::{DetailLevel, RevisionSample, SeriesAllocator, SeriesBudget};
use node_shim_core::table::{FunctionKey, RevisionName};
use parking_lot::Mutex;

use crate::counters::{MEMORY_BUCKETS, RevisionCounters};
use crate::data_plane::DataPlane;

/// Maximum number of series of the data plane.
const MAX_SERIES: usize = 20_000;
/// Number of them reserved for series that belong to no function.
const NODE_SERIES: usize = 500;
/// Maximum number of functions with their own series that are not in a rollout.
const MAX_FUNCTIONS: usize = 200;
/// Time without traffic after which a function gives way to an active one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Namespace, name and revision of the aggregate. No Kubernetes object can have this name.
const AGGREGATE_NAME: &str = "_other";

/// State of the selection across scrapes.
pub(super) struct FunctionSeries {
    series: SeriesAllocator,
    /// Counters of the aggregate; always `Some`, because its name is valid.
    aggregate: Option<Arc<RevisionCounters>>,
}

/// A revision or the aggregate, and its level of detail.
pub(super) type Row = (Arc<RevisionCounters>, DetailLevel);

impl FunctionSeries {
    pub(super) fn new() -> Mutex<Self> {
        let other = RevisionName::new(AGGREGATE_NAME).map(|name| {
            Arc::new(RevisionCounters::new(
                &FunctionKey::new(AGGREGATE_NAME, AGGREGATE_NAME),
                &name,
            ))
        });
        let sum = other.as_ref().map_or(0, |sum| SeriesCount::of(sum).brief);
        Mutex::new(Self {
            series: SeriesAllocator::new(SeriesBudget {
                series: MAX_SERIES - NODE_SERIES - sum,
                functions: MAX_FUNCTIONS,
                idle: IDLE_TIMEOUT,
            }),
            aggregate: other,
        })
    }

    /// Returns what the scrape at `now` exports.
    pub(super) fn rows(this: &Mutex<Self>, plane: &DataPlane, now: Instant) -> Vec<Row> {
        let table = plane.table();
        let rolling: BTreeSet<&FunctionKey> = table
            .functions()
            .iter()
            .filter(|served| served.entry.split.in_rollout)
            .map(|served| &served.entry.key)
            .collect();
        // read under the lock, because concurrent scrapes would count the same increments twice
        let mut places = this.lock();
        let all = plane.counters().all();
        let seen = all.iter().map(|counters| {
            let SeriesCount { full, brief } = if counters.is_shown() {
                SeriesCount::of(counters)
            } else {
                SeriesCount::default()
            };
            RevisionSample {
                function: counters.function.clone(),
                revision: counters.revision.clone(),
                in_rollout: rolling.contains(&counters.function),
                values: counters.values(),
                full,
                brief,
            }
        });
        places.series.update(seen.collect(), now);
        let own = |counters: Arc<RevisionCounters>| {
            let level = places.series.level(&counters.function);
            (counters.is_shown() && level != DetailLevel::Aggregated).then_some((counters, level))
        };
        let mut rows: Vec<Row> = all.iter().cloned().filter_map(own).collect();
        let summed = all.iter().any(|counters| {
            counters.is_shown()
                && places.series.level(&counters.function) == DetailLevel::Aggregated
        });
        if let Some(other) = &places.aggregate
            && (summed || places.series.aggregated().next().is_some())
        {
            other.set_values(places.series.aggregated());
            rows.push((Arc::clone(other), DetailLevel::Aggregated));
        }
        rows
    }
}

/// Maximum number of series of a revision.
#[derive(Clone, Copy, Default)]
struct SeriesCount {
    /// At [`DetailLevel::Full`].
    full: usize,
    /// At [`DetailLevel::Brief`].
    brief: usize,
}

impl SeriesCount {
    fn of(counters: &RevisionCounters) -> Self {
        let outcomes = Outcome::ALL
            .iter()
            .map(|outcome| StatusClass::possible(*outcome).len());
        let requests = outcomes.sum::<usize>() * StartKind::ALL.len();
        // plus the +Inf bucket, the sum and the count
        let histogram = LATENCY_BOUNDS.len() + 3;
        let populations = counters.snapshot().populations.len().max(1);
        debug_assert!(populations <= Population::ALL.len());
        // plus CPU time and dropped lines
        let outbound = DenialReason::ALL.len() + EgressOutcome::ALL.len();
        let once = FailureReason::ALL.len() + outbound + 2;
        let brief = populations * (requests + 1 + histogram) + once;
        // gauges, plus the memory histogram
        let more = 3 + MEMORY_BUCKETS + 2;
        Self {
            full: brief + populations * histogram + more,
            brief,
        }
    }
}
