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
    /// Queues every surplus and missing function of a node that runs `has` and has `remote` as functions of other nodes; returns
    /// their number.
    ///
    /// Safe on a replica that is behind: a removal carries this replica's version, and a node keeps newer records; a
    /// record carries its fencing token, and a node ignores an older one.
    pub(in crate::node_api) fn compare(
        &self,
        queue: &StreamQueue,
        has: &BTreeSet<FunctionKey>,
        remote: &BTreeSet<FunctionKey>,
    ) -> usize {
        let state = self.lock();
        let (mut placed, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
        for (key, entry) in &state.functions {
            if entry.placement.includes(queue.node()) {
                placed.insert(key);
            } else if entry.reaches(queue) {
                elsewhere.insert(key);
            }
        }
        // a function that came to the node stays one of other nodes, too, until its code is loaded
        let surplus_remote = |key: &&FunctionKey| !elsewhere.contains(key) && !placed.contains(key);
        let surplus = has.iter().filter(|key| !placed.contains(key));
        let surplus = surplus.chain(remote.iter().filter(surplus_remote));
        let surplus = surplus.filter(|key| !state.withheld.contains(key));
        let lacking = placed.iter().filter(|key| !has.contains(*key));
        let lacking = lacking.chain(elsewhere.iter().filter(|key| !remote.contains(*key)));
        let lacking = lacking.copied();
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
