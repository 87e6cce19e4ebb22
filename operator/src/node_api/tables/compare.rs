//! Compares the functions that a node reports with those it should have.
//!
//! Differences are sent by version, and versions alone do not cover every case: a replica whose watch is behind may
//! send a node a function that another replica had already removed, and that does not lower the node's version. Once
//! the removal has left the logs, no replica would send it again. So the report of a node that resumes is compared,
//! and differences are corrected.

use std::collections::BTreeSet;

use super::queue::{Change, StreamQueue};
use super::{FunctionKey, Tables};

impl Tables {
    /// Queues every surplus and missing function of a node that has `has`; returns their number.
    ///
    /// Safe on a replica that is behind: a removal carries this replica's version, and a node keeps newer records; a
    /// record carries its fencing token, and a node ignores an older one.
    pub(in crate::node_api) fn compare(
        &self,
        queue: &StreamQueue,
        has: &BTreeSet<FunctionKey>,
    ) -> usize {
        let state = self.lock();
        let placed = state.placed_on(queue.node());
        let placed: BTreeSet<&FunctionKey> = placed.iter().collect();
        let surplus = has
            .iter()
            .filter(|key| !placed.contains(key) && !state.withheld.contains(key));
        let lacking = placed.iter().copied().filter(|key| !has.contains(*key));
        let changes: Vec<_> = surplus
            .map(|key| (key, Change::Removal))
            .chain(lacking.map(|key| (key, Change::Whole)))
            .collect();
        for (key, change) in &changes {
            queue.push(key, *change);
        }
        changes.len()
    }
}
