//! Functions that left the table. Their series end at once. Their counters are kept for a while:
//! requests under way still end, an operator is reported the last of those in a rollout, and a function
//! that is made again goes on counting, so that nothing falls between two looks at this process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use node_shim_core::table::FunctionKey;

use super::records::Records;
use crate::counters::CounterTable;
use crate::routing_table::RoutingTable;

/// From the end of a function to the end of its counters.
pub(super) const COUNTER_RETENTION: Duration = Duration::from_secs(600);

/// What is remembered of functions that were deleted.
#[derive(Debug, Default)]
pub(crate) struct RemovedFunctions {
    removed: BTreeMap<FunctionKey, RemovedFunction>,
    /// Of which an operator may hold counters.
    reported: BTreeSet<FunctionKey>,
    counter_generation: u64,
}

#[derive(Clone, Copy, Debug)]
struct RemovedFunction {
    since: Instant,
    in_rollout: bool,
}

impl RemovedFunctions {
    /// Compares what is in force with the table that served until now.
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

    /// Ends series, and after a while counters. Returns the functions that are counter_generation now. Comes
    /// after the table without them was published, so that no request shows them again.
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

    /// Functions that were in a rollout when they were deleted: an operator hears of them until
    /// they are counter_generation.
    pub(super) fn in_rollout(&self) -> impl Iterator<Item = &FunctionKey> {
        self.removed
            .iter()
            .filter(|(_, removed)| removed.in_rollout)
            .map(|(key, _)| key)
    }

    /// Changes whenever counters that an operator may hold were dropped.
    pub(super) fn counter_generation(&self) -> u64 {
        self.counter_generation
    }
}
