//! Request counters: one set per revision, exported as metrics and reported to the operator. They are
//! updated without locks and never reset while their revision can serve requests.

mod exemplars;
#[cfg(test)]
mod tests;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use node_api::{LATENCY_BUCKETS, latency_bucket};
use node_shim_core::egress::{DenialReason, EgressOutcome};
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::request_labels::{Outcome, Population, StartKind, StatusClass};
use node_shim_core::table::{FunctionKey, RevisionName};
use parking_lot::{Mutex, MutexGuard};

use exemplars::Exemplars;
pub use exemplars::{BucketExemplars, Exemplar};

/// Number of request counters per population: outcomes × status classes × kinds of start.
const REQUEST_COUNTERS: usize = Outcome::ALL.len() * StatusClass::ALL.len() * StartKind::ALL.len();

/// Counters of this process by function and revision.
#[derive(Default)]
pub struct CounterTable {
    revisions: Mutex<BTreeMap<(FunctionKey, RevisionName), Arc<RevisionCounters>>>,
}

/// Counters of one revision. They are kept when its code is unloaded, so a revision that is loaded again
/// continues from the same values.
pub struct RevisionCounters {
    /// Function of the revision.
    pub function: FunctionKey,
    /// Name of the revision.
    pub revision: RevisionName,
    populations: [OnceLock<Box<PopulationCounters>>; 5],
    failures: [AtomicU64; FailureReason::ALL.len()],
    pub(crate) log_dropped: AtomicU64,
    /// Denied outbound requests by position in [`DenialReason::ALL`].
    pub(crate) egress_denied: [AtomicU64; DenialReason::ALL.len()],
    /// Other outbound requests by position in [`EgressOutcome::ALL`].
    pub(crate) egress_requests: [AtomicU64; EgressOutcome::ALL.len()],
    pub(crate) cpu_micros: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) queued: AtomicU64,
    pub(crate) instances: AtomicU64,
    memory_peak: [AtomicU64; MEMORY_BUCKETS],
    memory_peak_sum: AtomicU64,
    /// Recorded requests of live traffic beside the histogram of heads.
    pub(crate) exemplars: Exemplars,
    shown: AtomicBool,
}

/// Upper bounds of the buckets of `selvage_guest_memory_peak_bytes` in MiB, without +Inf.
pub(crate) const MEMORY_BOUNDS_MIB: [u64; 7] = [1, 4, 16, 64, 256, 1024, 4096];
pub(crate) const MEMORY_BUCKETS: usize = MEMORY_BOUNDS_MIB.len() + 1;

/// Counters of one population of a revision.
struct PopulationCounters {
    requests: [AtomicU64; REQUEST_COUNTERS],
    saturated: AtomicU64,
    head: Histogram,
    duration: Histogram,
}

struct Histogram {
    counts: [AtomicU64; LATENCY_BUCKETS],
    sum_micros: AtomicU64,
}

/// A request that has ended, as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct FinishedRequest {
    /// Kind of traffic.
    pub population: Population,
    /// How the request ended.
    pub outcome: Outcome,
    /// Why the request failed; `None` when it succeeded.
    pub reason: Option<FailureReason>,
    /// Class of the status code that was sent.
    pub code: StatusClass,
    /// Whether the code was loaded when the request arrived.
    pub start: StartKind,
    /// Time from routing to the response head; `None` when no head was sent.
    pub head: Option<Duration>,
    /// Time from routing to the last byte of the response.
    pub duration: Duration,
}

impl FinishedRequest {
    /// Returns the time to the head as the histogram counts it. `None` for rejected requests and cold starts, whose
    /// latency says nothing about the function.
    pub(crate) fn counted_head(&self) -> Option<Duration> {
        let counts = self.start == StartKind::Warm && self.outcome != Outcome::Overloaded;
        counts.then(|| self.head.unwrap_or(self.duration))
    }
}

/// Snapshot of the counters of one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionSnapshot {
    /// Function of the revision.
    pub function: FunctionKey,
    /// Name of the revision.
    pub revision: RevisionName,
    /// Populations with counters; always includes [`Population::Live`].
    pub populations: Vec<PopulationSnapshot>,
}

/// Snapshot of the counters of one population.
#[derive(Clone, Debug, PartialEq)]
pub struct PopulationSnapshot {
    /// Kind of traffic.
    pub population: Population,
    /// Request counters above 0.
    pub requests: Vec<RequestCount>,
    /// Requests that the revision's own concurrency limit or queue rejected.
    pub saturated: u64,
    /// Times to the response head, warm starts only.
    pub head: HistogramSnapshot,
    /// Times to the last byte, warm starts only.
    pub duration: HistogramSnapshot,
}

/// Number of requests with the same labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestCount {
    /// How the requests ended.
    pub outcome: Outcome,
    /// Class of the status code that was sent.
    pub code: StatusClass,
    /// Whether the code was loaded when the requests arrived.
    pub start: StartKind,
    /// Number of requests.
    pub count: u64,
}

/// Snapshot of a latency histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSnapshot {
    /// Counts per bucket, not cumulative, by position in [`node_api::LATENCY_BOUNDS`]; the last bucket is +Inf.
    pub counts: [u64; LATENCY_BUCKETS],
    /// Sum of all observations in seconds.
    pub sum_seconds: f64,
}

// === impl Counters ===

impl CounterTable {
    /// Returns an empty table.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Returns the counters of a revision and shows them on the metrics page. Creates them at 0 on the
    /// first call.
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

    /// Hides a revision from the metrics page. Its counters are kept, so they do not decrease when it is
    /// loaded again.
    pub fn hide(&self, function: &FunctionKey, revision: &RevisionName) {
        if let Some(counters) = self.lock().get(&(function.clone(), revision.clone())) {
            counters.shown.store(false, Ordering::Relaxed);
        }
    }

    /// Hides all revisions of the functions for which `gone` returns true.
    pub fn hide_functions(&self, gone: impl Fn(&FunctionKey) -> bool) {
        for counters in self.lock().values().filter(|one| gone(&one.function)) {
            counters.shown.store(false, Ordering::Relaxed);
        }
    }

    /// Removes the counters of deleted functions. Requests that still hold them update counters that are
    /// no longer exported.
    pub fn forget(&self, functions: &BTreeSet<FunctionKey>) {
        self.lock().retain(|(key, _), _| !functions.contains(key));
    }

    /// Removes the counters of a revision unless a request or a revision that can run holds them. Returns whether the
    /// table has no counters of the revision now.
    pub fn forget_unused(&self, function: &FunctionKey, revision: &RevisionName) -> bool {
        let mut revisions = self.lock();
        let key = (function.clone(), revision.clone());
        // new holders need the lock, or a holder from which they clone
        let used = revisions
            .get(&key)
            .is_some_and(|counters| Arc::strong_count(counters) > 1);
        if !used {
            revisions.remove(&key);
        }
        !used
    }

    /// Returns the counters for a request that met no loaded code. They are created or shown only while
    /// `in_table` returns true, so that a late request does not bring a deleted function back. `None`
    /// when the function is not in the table and has no counters.
    pub fn for_request(
        &self,
        function: &FunctionKey,
        revision: &RevisionName,
        in_table: impl FnOnce() -> bool,
    ) -> Option<Arc<RevisionCounters>> {
        // `in_table` is called under the lock: the table without a function is published before `forget`
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

    /// Returns the counters of all revisions, including hidden ones, in ascending order.
    pub fn all(&self) -> Vec<Arc<RevisionCounters>> {
        self.lock().values().cloned().collect()
    }

    /// Returns the counters of all revisions that are not hidden, in ascending order.
    pub fn shown(&self) -> Vec<Arc<RevisionCounters>> {
        let mut all = self.all();
        all.retain(|counters| counters.is_shown());
        all
    }

    /// Returns snapshots of all revisions of the functions for which `wanted` returns true.
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
        self.revisions.lock()
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
            egress_denied: zeros(),
            egress_requests: zeros(),
            cpu_micros: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            instances: AtomicU64::new(0),
            memory_peak: zeros(),
            memory_peak_sum: AtomicU64::new(0),
            exemplars: Exemplars::default(),
            shown: AtomicBool::new(true),
        };
        counters.population(Population::Live);
        counters
    }

    /// Returns whether the revision is shown on the metrics page.
    pub(crate) fn is_shown(&self) -> bool {
        self.shown.load(Ordering::Relaxed)
    }

    /// Counts one request.
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
        if let Some(head) = finished.counted_head() {
            cells.duration.observe(finished.duration);
            cells.head.observe(head);
        }
    }

    /// Records the peak memory in bytes of an instance that ended.
    pub fn memory_peak(&self, bytes: u64) {
        let at = MEMORY_BOUNDS_MIB.iter().position(|mib| bytes <= mib << 20);
        if let Some(count) = self.memory_peak.get(at.unwrap_or(MEMORY_BOUNDS_MIB.len())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.memory_peak_sum.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns the counts per memory bucket and the sum in bytes.
    pub(crate) fn memory_peaks(&self) -> ([u64; MEMORY_BUCKETS], u64) {
        (
            read(&self.memory_peak),
            self.memory_peak_sum.load(Ordering::Relaxed),
        )
    }

    /// Returns the number of failed requests by reason.
    pub fn failures(&self) -> impl Iterator<Item = (FailureReason, u64)> + '_ {
        let count =
            |(reason, count): (FailureReason, &AtomicU64)| (reason, count.load(Ordering::Relaxed));
        FailureReason::ALL
            .into_iter()
            .zip(&self.failures)
            .map(count)
    }

    /// Returns a snapshot of the counters.
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
        let at = latency_bucket(seconds);
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
