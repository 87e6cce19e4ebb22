//! Which functions have series of their own on the page, and the sum of the others.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use node_api::LATENCY_BOUNDS;
use node_shim_core::outcome::{Code, Outcome, Population, Reason, Start};
use node_shim_core::series::{Budget, Level, Seen, Series};
use node_shim_core::table::{FunctionKey, RevisionName};

use crate::counters::{MEMORY_BUCKETS, RevisionCounters};
use crate::data_plane::DataPlane;

/// Series of one page.
const SERIES: usize = 20_000;
/// Of them for what belongs to no function.
const OF_THE_NODE: usize = 500;
/// Functions with series of their own that are in no rollout.
const FUNCTIONS: usize = 200;
/// Then a function gives way to one that has traffic.
const IDLE: Duration = Duration::from_secs(3600);
/// Namespace, name and revision of what is summed: no object of Kubernetes has such a name.
const OTHER: &str = "_other";

/// What the pages of one process remember of each other.
pub(super) struct Places {
    series: Series,
    /// The sum; `None` where no name is valid, which is nowhere.
    other: Option<Arc<RevisionCounters>>,
}

/// One revision, or the sum, and how much of it is shown.
pub(super) type Row = (Arc<RevisionCounters>, Level);

impl Places {
    pub(super) fn new() -> Mutex<Self> {
        let other = RevisionName::new(OTHER).map(|name| {
            Arc::new(RevisionCounters::new(
                &FunctionKey::new(OTHER, OTHER),
                &name,
            ))
        });
        let sum = other.as_ref().map_or(0, |sum| cost(sum).1);
        Mutex::new(Self {
            series: Series::new(Budget {
                series: SERIES - OF_THE_NODE - sum,
                functions: FUNCTIONS,
                idle: IDLE,
            }),
            other,
        })
    }

    /// What the page of this moment shows.
    pub(super) fn rows(this: &Mutex<Self>, plane: &DataPlane, now: Instant) -> Vec<Row> {
        let table = plane.table();
        let rolling: BTreeSet<&FunctionKey> = table
            .functions()
            .iter()
            .filter(|served| served.entry.share.in_rollout)
            .map(|served| &served.entry.key)
            .collect();
        // read under the lock: two pages at once would see the same growth twice
        let mut places = this.lock().unwrap_or_else(PoisonError::into_inner);
        let all = plane.counters().all();
        let seen = all.iter().map(|counters| {
            let (full, brief) = if counters.is_shown() {
                cost(counters)
            } else {
                (0, 0)
            };
            Seen {
                function: counters.function.clone(),
                revision: counters.revision.clone(),
                in_rollout: rolling.contains(&counters.function),
                numbers: counters.numbers(),
                full,
                brief,
            }
        });
        places.series.advance(seen.collect(), now);
        let own = |counters: Arc<RevisionCounters>| {
            let level = places.series.level(&counters.function);
            (counters.is_shown() && level != Level::Summed).then_some((counters, level))
        };
        let mut rows: Vec<Row> = all.iter().cloned().filter_map(own).collect();
        let summed = all.iter().any(|counters| {
            counters.is_shown() && places.series.level(&counters.function) == Level::Summed
        });
        if let Some(other) = &places.other
            && (summed || places.series.rest().next().is_some())
        {
            other.replace(places.series.rest());
            rows.push((Arc::clone(other), Level::Summed));
        }
        rows
    }
}

/// Series that a revision makes at most, in full and in brief.
fn cost(counters: &RevisionCounters) -> (usize, usize) {
    let outcomes = Outcome::ALL
        .iter()
        .map(|outcome| Code::possible(*outcome).len());
    let requests = outcomes.sum::<usize>() * Start::ALL.len();
    // a bucket without bound, the sum and the count
    let histogram = LATENCY_BOUNDS.len() + 3;
    let populations = counters.snapshot().populations.len().max(1);
    debug_assert!(populations <= Population::ALL.len());
    // reasons, and CPU time, lines dropped, calls denied
    let once = Reason::ALL.len() + 3;
    let brief = populations * (requests + 1 + histogram) + once;
    // gauges, and the memory of instances
    let more = 3 + MEMORY_BUCKETS + 2;
    (brief + populations * histogram + more, brief)
}
