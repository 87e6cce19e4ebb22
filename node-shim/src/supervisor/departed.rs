//! Functions that left the table. Their series end at once. Their counters are kept for a while:
//! requests under way still end, an operator is told the last of those in a rollout, and a function
//! that is made again goes on counting, so that nothing falls between two looks at this process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use node_shim_core::table::FunctionKey;

use super::records::Records;
use crate::counters::CounterTable;
use crate::routing_table::RoutingTable;

/// From the end of a function to the end of its counters.
pub(super) const KEPT: Duration = Duration::from_secs(600);

/// What is remembered of functions that were deleted.
#[derive(Debug, Default)]
pub(crate) struct Departed {
    gone: BTreeMap<FunctionKey, Gone>,
    /// Of which an operator may hold counters.
    told: BTreeSet<FunctionKey>,
    forgotten: u64,
}

#[derive(Clone, Copy, Debug)]
struct Gone {
    since: Instant,
    in_rollout: bool,
}

impl Departed {
    /// Compares what is in force with the table that served until now.
    pub(super) fn compare(&mut self, before: &RoutingTable, records: &Records, now: Instant) {
        for served in before.functions() {
            let entry = &served.entry;
            if !records.contains(&entry.key) {
                let in_rollout = entry.split.in_rollout;
                let since = now;
                self.gone
                    .insert(entry.key.clone(), Gone { since, in_rollout });
            }
        }
        self.gone.retain(|key, _| !records.contains(key));
        let rolling = records
            .iter()
            .filter(|(_, record)| record.parsed.entry.split.in_rollout);
        for (key, _) in rolling {
            if !self.told.contains(key) {
                self.told.insert(key.clone());
            }
        }
    }

    /// Ends series, and after a while counters. Returns the functions that are forgotten now. Comes
    /// after the table without them was published, so that no request shows them again.
    pub(super) fn tick(&mut self, counters: &CounterTable, now: Instant) -> BTreeSet<FunctionKey> {
        if self.gone.is_empty() {
            return BTreeSet::new();
        }
        counters.hide_functions(|key| self.gone.contains_key(key));
        let over = |gone: &Gone| now.saturating_duration_since(gone.since) >= KEPT;
        let over: BTreeSet<FunctionKey> = self
            .gone
            .iter()
            .filter(|(_, gone)| over(gone))
            .map(|(key, _)| key.clone())
            .collect();
        if !over.is_empty() {
            counters.forget(&over);
            self.gone.retain(|key, _| !over.contains(key));
            let told = self.told.len();
            self.told.retain(|key| !over.contains(key));
            self.forgotten += u64::from(self.told.len() < told);
        }
        over
    }

    /// Functions that were in a rollout when they were deleted: an operator hears of them until
    /// they are forgotten.
    pub(super) fn in_rollout(&self) -> impl Iterator<Item = &FunctionKey> {
        self.gone
            .iter()
            .filter(|(_, gone)| gone.in_rollout)
            .map(|(key, _)| key)
    }

    /// Changes whenever counters that an operator may hold were dropped.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}
