//! Which functions have series of their own on the page, and the sum of the others.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use node_api::LATENCY_BOUNDS;
use node_shim_core::outcome::{FailureReason, Outcome, Population, StartKind};
use node_shim_core::series::{DetailLevel, RevisionSample, SeriesAllocator, SeriesBudget};
use node_shim_core::table::{FunctionKey, RevisionName};

use crate::counters::{MEMORY_BUCKETS, RevisionCounters};
use crate::data_plane::DataPlane;

/// Series of one page.
const MAX_SERIES: usize = 20_000;
/// Of them for what belongs to no function.
const NODE_SERIES: usize = 500;
/// Functions with series of their own that are in no rollout.
const MAX_FUNCTIONS: usize = 200;
/// Then a function gives way to one that has traffic.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Namespace, name and revision of what is summed: no object of Kubernetes has such a name.
const AGGREGATE_NAME: &str = "_other";

/// What the pages of one process remember of each other.
pub(super) struct FunctionSeries {
    series: SeriesAllocator,
    /// The sum; `None` where no name is valid, which is nowhere.
    aggregate: Option<Arc<RevisionCounters>>,
}

/// One revision, or the sum, and how much of it is shown.
pub(super) type Row = (Arc<RevisionCounters>, DetailLevel);

impl FunctionSeries {
    pub(super) fn new() -> Mutex<Self> {
        let other = RevisionName::new(AGGREGATE_NAME).map(|name| {
            Arc::new(RevisionCounters::new(
                &FunctionKey::new(AGGREGATE_NAME, AGGREGATE_NAME),
                &name,
            ))
        });
        let sum = other.as_ref().map_or(0, |sum| series_count(sum).1);
        Mutex::new(Self {
            series: SeriesAllocator::new(SeriesBudget {
                series: MAX_SERIES - NODE_SERIES - sum,
                functions: MAX_FUNCTIONS,
                idle: IDLE_TIMEOUT,
            }),
            aggregate: other,
        })
    }

    /// What the page of this moment shows.
    pub(super) fn rows(this: &Mutex<Self>, plane: &DataPlane, now: Instant) -> Vec<Row> {
        let table = plane.table();
        let rolling: BTreeSet<&FunctionKey> = table
            .functions()
            .iter()
            .filter(|served| served.entry.split.in_rollout)
            .map(|served| &served.entry.key)
            .collect();
        // read under the lock: two pages at once would see the same growth twice
        let mut places = this.lock().unwrap_or_else(PoisonError::into_inner);
        let all = plane.counters().all();
        let seen = all.iter().map(|counters| {
            let (full, brief) = if counters.is_shown() {
                series_count(counters)
            } else {
                (0, 0)
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

/// Series that a revision makes at most, in full and in brief.
fn series_count(counters: &RevisionCounters) -> (usize, usize) {
    let outcomes = Outcome::ALL
        .iter()
        .map(|outcome| outcome.status_classes().len());
    let requests = outcomes.sum::<usize>() * StartKind::ALL.len();
    // a bucket without bound, the sum and the count
    let histogram = LATENCY_BOUNDS.len() + 3;
    let populations = counters.snapshot().populations.len().max(1);
    debug_assert!(populations <= Population::ALL.len());
    // reasons, and CPU time, lines dropped, calls denied
    let once = FailureReason::ALL.len() + 3;
    let brief = populations * (requests + 1 + histogram) + once;
    // gauges, and the memory of instances
    let more = 3 + MEMORY_BUCKETS + 2;
    (brief + populations * histogram + more, brief)
}
