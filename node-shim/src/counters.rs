//! What every request leaves behind: one set of counters per revision, read by the metrics page and
//! by the frames to the operator. Written without locks, never reset while the process lives.

#[cfg(test)]
mod tests;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use node_api::LATENCY_BOUNDS;
use node_shim_core::outcome::{FailureReason, Outcome, Population, StartKind, StatusClass};
use node_shim_core::table::{FunctionKey, RevisionName};

/// Buckets of a latency histogram, the one without an upper bound included.
pub const BUCKETS: usize = LATENCY_BOUNDS.len() + 1;

/// Outcomes × codes × starts.
const REQUEST_COUNTERS: usize = Outcome::ALL.len() * StatusClass::ALL.len() * StartKind::ALL.len();

/// All counters of this process by function and revision.
#[derive(Default)]
pub struct CounterTable {
    revisions: Mutex<BTreeMap<(FunctionKey, RevisionName), Arc<RevisionCounters>>>,
}

/// Counters of one revision. They outlive its code: a revision that comes back goes on counting.
pub struct RevisionCounters {
    /// The function that owns the revision.
    pub function: FunctionKey,
    /// The revision that is counted.
    pub revision: RevisionName,
    populations: [OnceLock<Box<PopulationCounters>>; 5],
    failures: [AtomicU64; FailureReason::ALL.len()],
    pub(crate) log_dropped: AtomicU64,
    pub(crate) egress_denied: AtomicU64,
    pub(crate) cpu_micros: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) queued: AtomicU64,
    pub(crate) instances: AtomicU64,
    memory_peak: [AtomicU64; MEMORY_BUCKETS],
    memory_peak_sum: AtomicU64,
    shown: AtomicBool,
}

/// Upper bounds of `selvage_guest_memory_peak_bytes`, MiB; one more bucket has none.
pub(crate) const MEMORY_BOUNDS_MIB: [u64; 7] = [1, 4, 16, 64, 256, 1024, 4096];
pub(crate) const MEMORY_BUCKETS: usize = MEMORY_BOUNDS_MIB.len() + 1;

/// One population of one revision.
struct PopulationCounters {
    requests: [AtomicU64; REQUEST_COUNTERS],
    saturated: AtomicU64,
    head: Histogram,
    duration: Histogram,
}

struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

/// One request, when it is over.
#[derive(Clone, Copy, Debug)]
pub struct FinishedRequest {
    pub population: Population,
    /// How the request ended.
    pub outcome: Outcome,
    /// Of anything but a plain `Ok`.
    pub reason: Option<FailureReason>,
    pub code: StatusClass,
    pub start: StartKind,
    /// From the route to the head, when one was sent.
    pub head: Option<Duration>,
    /// From the route to the last byte.
    pub duration: Duration,
}

/// The counters of one revision at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionSnapshot {
    /// The function that owns the revision.
    pub function: FunctionKey,
    /// The revision that was counted.
    pub revision: RevisionName,
    /// One entry for each population that had a request, and always one for `live`.
    pub populations: Vec<PopulationSnapshot>,
}

/// The counters of one population; `live` is always there.
#[derive(Clone, Debug, PartialEq)]
pub struct PopulationSnapshot {
    /// The kind of traffic that was counted.
    pub population: Population,
    /// Only those above 0.
    pub requests: Vec<RequestCount>,
    /// Requests refused by the permits or the queue of the revision.
    pub saturated: u64,
    /// Time from the route to the response head.
    pub head: HistogramSnapshot,
    /// Time from the route to the last byte of the response.
    pub duration: HistogramSnapshot,
}

/// Number of requests with the same outcome, status class and start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestCount {
    /// How these requests ended.
    pub outcome: Outcome,
    pub code: StatusClass,
    pub start: StartKind,
    pub count: u64,
}

/// Counts per bucket (not cumulative), by position in `LATENCY_BOUNDS`; the last has no bound.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSnapshot {
    /// Number of requests in each bucket.
    pub counts: [u64; BUCKETS],
    /// Sum of all durations, in seconds.
    pub sum_seconds: f64,
}

// === impl Counters ===

impl CounterTable {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The counters of a revision, made at 0 at the first call.
    pub fn revision(
        &self,
        function: &FunctionKey,
        revision: &RevisionName,
    ) -> Arc<RevisionCounters> {
        let key = (function.clone(), revision.clone());
        let counters = self
            .lock()
            .entry(key)
            .or_insert_with(|| Arc::new(RevisionCounters::new(function, revision)))
            .clone();
        counters.shown.store(true, Ordering::Relaxed);
        counters
    }

    /// Takes a revision off the metrics page; its numbers are kept, so that they never fall if it
    /// is loaded again.
    pub fn hide(&self, function: &FunctionKey, revision: &RevisionName) {
        if let Some(counters) = self.lock().get(&(function.clone(), revision.clone())) {
            counters.shown.store(false, Ordering::Relaxed);
        }
    }

    /// Takes the functions that `gone` names off the metrics page, as `hide` does.
    pub fn hide_functions(&self, gone: impl Fn(&FunctionKey) -> bool) {
        for counters in self.lock().values().filter(|one| gone(&one.function)) {
            counters.shown.store(false, Ordering::Relaxed);
        }
    }

    /// Forgets functions that were deleted. Who still holds counters of theirs counts for nobody.
    pub fn forget(&self, functions: &BTreeSet<FunctionKey>) {
        self.lock().retain(|(key, _), _| !functions.contains(key));
    }

    /// The counters for a request that began when its function was in the table and may be the last
    /// to know of it: they are made, or shown again, only while `in_table` says that it still is.
    /// `None` when there are none and it is not.
    pub fn for_request(
        &self,
        function: &FunctionKey,
        revision: &RevisionName,
        in_table: impl FnOnce() -> bool,
    ) -> Option<Arc<RevisionCounters>> {
        // asked under the lock: whoever forgets a function has published the table without it before
        let mut revisions = self.lock();
        let key = (function.clone(), revision.clone());
        let known = revisions.get(&key);
        if known.is_some_and(|counters| counters.is_shown()) || !in_table() {
            return known.cloned();
        }
        let counters = revisions
            .entry(key)
            .or_insert_with(|| Arc::new(RevisionCounters::new(function, revision)));
        counters.shown.store(true, Ordering::Relaxed);
        Some(Arc::clone(counters))
    }

    /// Every revision, the hidden ones included, in order.
    pub fn all(&self) -> Vec<Arc<RevisionCounters>> {
        self.lock().values().cloned().collect()
    }

    /// Every revision that is not hidden, in order.
    pub fn shown(&self) -> Vec<Arc<RevisionCounters>> {
        let mut all = self.all();
        all.retain(|counters| counters.is_shown());
        all
    }

    /// Snapshots of all revisions of the functions that `wanted` names.
    pub fn snapshot(&self, wanted: impl Fn(&FunctionKey) -> bool) -> Vec<RevisionSnapshot> {
        let found: Vec<_> = self
            .lock()
            .values()
            .filter(|c| wanted(&c.function))
            .cloned()
            .collect();
        found.iter().map(|counters| counters.snapshot()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(FunctionKey, RevisionName), Arc<RevisionCounters>>> {
        self.revisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl RevisionCounters ===

impl RevisionCounters {
    pub(crate) fn new(function: &FunctionKey, revision: &RevisionName) -> Self {
        let counters = Self {
            function: function.clone(),
            revision: revision.clone(),
            populations: [const { OnceLock::new() }; 5],
            failures: zeros(),
            log_dropped: AtomicU64::new(0),
            egress_denied: AtomicU64::new(0),
            cpu_micros: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            instances: AtomicU64::new(0),
            memory_peak: zeros(),
            memory_peak_sum: AtomicU64::new(0),
            shown: AtomicBool::new(true),
        };
        counters.population(Population::Live);
        counters
    }

    /// Whether it is to be on the metrics page.
    pub(crate) fn is_shown(&self) -> bool {
        self.shown.load(Ordering::Relaxed)
    }

    /// Records one request.
    pub fn record(&self, finished: &FinishedRequest) {
        let Some(cells) = self.population(finished.population) else {
            return;
        };
        let at = request_index(finished.outcome, finished.code, finished.start);
        if let Some(count) = cells.requests.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(reason) = finished.reason {
            if let Some(count) = self.failures.get(reason.index()) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            if reason.counts_as_saturation() {
                cells.saturated.fetch_add(1, Ordering::Relaxed);
            }
        }
        // what the node refused has no latency of the function, and a cold start is never judged
        if finished.start == StartKind::Warm && finished.outcome != Outcome::Overloaded {
            cells.duration.observe(finished.duration);
            cells
                .head
                .observe(finished.head.unwrap_or(finished.duration));
        }
    }

    /// Counts the memory of an instance that ended.
    pub fn memory_peak(&self, bytes: u64) {
        let at = MEMORY_BOUNDS_MIB.iter().position(|mib| bytes <= mib << 20);
        if let Some(count) = self.memory_peak.get(at.unwrap_or(MEMORY_BOUNDS_MIB.len())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.memory_peak_sum.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts per bucket and their sum in bytes.
    pub(crate) fn memory_peaks(&self) -> ([u64; MEMORY_BUCKETS], u64) {
        (
            read(&self.memory_peak),
            self.memory_peak_sum.load(Ordering::Relaxed),
        )
    }

    /// How often each reason ended a request.
    pub fn failures(&self) -> impl Iterator<Item = (FailureReason, u64)> + '_ {
        let count =
            |(reason, count): (FailureReason, &AtomicU64)| (reason, count.load(Ordering::Relaxed));
        FailureReason::ALL
            .into_iter()
            .zip(&self.failures)
            .map(count)
    }

    /// Reads all counters of this revision. Single numbers are exact; together they may differ by requests that end meanwhile.
    pub fn snapshot(&self) -> RevisionSnapshot {
        let populations = Population::ALL
            .into_iter()
            .filter_map(|p| Some((p, self.populations.get(p.index())?.get()?)))
            .map(|(population, cells)| cells.snapshot(population))
            .collect();
        RevisionSnapshot {
            function: self.function.clone(),
            revision: self.revision.clone(),
            populations,
        }
    }

    fn population(&self, population: Population) -> Option<&PopulationCounters> {
        let slot = self.populations.get(population.index())?;
        Some(slot.get_or_init(|| Box::new(PopulationCounters::new())))
    }
}

// === impl Cells, Histogram ===

impl PopulationCounters {
    fn new() -> Self {
        Self {
            requests: zeros(),
            saturated: AtomicU64::new(0),
            head: Histogram::new(),
            duration: Histogram::new(),
        }
    }

    fn snapshot(&self, population: Population) -> PopulationSnapshot {
        let mut requests = Vec::new();
        for outcome in Outcome::ALL {
            for code in StatusClass::ALL {
                for start in StartKind::ALL {
                    let count = self
                        .requests
                        .get(request_index(outcome, code, start))
                        .map_or(0, |count| count.load(Ordering::Relaxed));
                    if count > 0 {
                        requests.push(RequestCount {
                            outcome,
                            code,
                            start,
                            count,
                        });
                    }
                }
            }
        }
        PopulationSnapshot {
            population,
            requests,
            saturated: self.saturated.load(Ordering::Relaxed),
            head: self.head.snapshot(),
            duration: self.duration.snapshot(),
        }
    }
}

impl Histogram {
    fn new() -> Self {
        Self {
            counts: zeros(),
            sum_micros: AtomicU64::new(0),
        }
    }

    fn observe(&self, value: Duration) {
        let seconds = value.as_secs_f64();
        let at = LATENCY_BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn snapshot(&self) -> HistogramSnapshot {
        let sum = Duration::from_micros(self.sum_micros.load(Ordering::Relaxed));
        HistogramSnapshot {
            counts: read(&self.counts),
            sum_seconds: sum.as_secs_f64(),
        }
    }
}

fn request_index(outcome: Outcome, code: StatusClass, start: StartKind) -> usize {
    (outcome.index() * StatusClass::ALL.len() + code.index()) * StartKind::ALL.len() + start.index()
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

fn read<const N: usize>(counts: &[AtomicU64; N]) -> [u64; N] {
    counts.each_ref().map(|count| count.load(Ordering::Relaxed))
}
