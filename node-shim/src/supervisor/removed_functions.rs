//! Functions that were removed from the table. Their metrics disappear at once, but their counters are kept for
//! [`COUNTER_RETENTION`]: running requests are still counted, operators receive the final counts of a rollout, and
//! a function that is created again continues its counters, so no reported counter ever decreases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use node_shim_core::table::FunctionKey;

use super::records::Records;
use crate::counters::CounterTable;
use crate::routing_table::RoutingTable;

/// Time for which the counters of a removed function are kept.
pub(super) const COUNTER_RETENTION: Duration = Duration::from_secs(600);

/// Removed functions whose counters are still kept.
#[derive(Debug, Default)]
pub(crate) struct RemovedFunctions {
    removed: BTreeMap<FunctionKey, RemovedFunction>,
    /// Functions whose counters may have been reported to an operator.
    reported: BTreeSet<FunctionKey>,
    counter_generation: u64,
}

#[derive(Clone, Copy, Debug)]
struct RemovedFunction {
    since: Instant,
    in_rollout: bool,
}

impl RemovedFunctions {
    /// Adds the functions that the previous routing table contains and the records in effect do not; drops functions
    /// that were created again.
    pub(super) fn update(&mut self, before: &RoutingTable, records: &Records, now: Instant) {
        for served in before.functions() {
            let entry = &served.entry;
            if !records.contains(&entry.key) {
                let in_rollout = entry.split.in_rollout;
                let since = now;
                self.removed
                    .insert(entry.key.clone(), RemovedFunction { since, in_rollout });
            }
        }
        self.removed.retain(|key, _| !records.contains(key));
        let rolling = records
            .iter()
            .filter(|(_, record)| record.parsed.entry.split.in_rollout);
        for (key, _) in rolling {
            if !self.reported.contains(key) {
                self.reported.insert(key.clone());
            }
        }
    }

    /// Hides the metrics of removed functions and drops their counters after the retention. Returns the functions
    /// whose counters were dropped. Must be called after the table without them was published; otherwise a request
    /// shows the metrics again.
    pub(super) fn tick(&mut self, counters: &CounterTable, now: Instant) -> BTreeSet<FunctionKey> {
        if self.removed.is_empty() {
            return BTreeSet::new();
        }
        counters.hide_functions(|key| self.removed.contains_key(key));
        let over = |removed: &RemovedFunction| {
            now.saturating_duration_since(removed.since) >= COUNTER_RETENTION
        };
        let over: BTreeSet<FunctionKey> = self
            .removed
            .iter()
            .filter(|(_, removed)| over(removed))
            .map(|(key, _)| key.clone())
            .collect();
        if !over.is_empty() {
            counters.forget(&over);
            self.removed.retain(|key, _| !over.contains(key));
            let reported = self.reported.len();
            self.reported.retain(|key| !over.contains(key));
            self.counter_generation += u64::from(self.reported.len() < reported);
        }
        over
    }

    /// Records that counters of these functions were dropped.
    pub(super) fn counters_dropped(&mut self, functions: &BTreeSet<FunctionKey>) {
        let reported = functions.iter().any(|key| self.reported.contains(key));
        self.counter_generation += u64::from(reported);
    }

    /// Iterates over the functions that were removed during a rollout. Their counters are reported until they are
    /// dropped.
    pub(super) fn in_rollout(&self) -> impl Iterator<Item = &FunctionKey> {
        self.removed
            .iter()
            .filter(|(_, removed)| removed.in_rollout)
            .map(|(key, _)| key)
    }

    /// Returns a number that increases whenever reported counters were dropped.
    pub(super) fn counter_generation(&self) -> u64 {
        self.counter_generation
    }
}
