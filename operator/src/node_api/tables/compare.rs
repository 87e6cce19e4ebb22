//! What a node says that it has, against what it should have.
//!
//! A difference is told by version, and versions alone cannot tell everything: a replica whose watch is behind may
//! give a node again what another replica had already taken from it, and the node's version does not fall by that.
//! Once the removal has left the logs nobody would name it again. So a node that resumes is taken at its word about
//! what it has, and what differs is put right.

use std::collections::BTreeSet;

use super::queue::{Change, StreamQueue};
use super::{FunctionKey, Tables};

impl Tables {
    /// Queues what a node that has `has` has too much or lacks; returns how many functions that are.
    ///
    /// Safe on a replica that is behind: a removal carries this replica's version, and a node keeps what is newer;
    /// a record carries its pair, and a node ignores an older one.
    pub(in crate::node_api) fn compare(
        &self,
        queue: &StreamQueue,
        has: &BTreeSet<FunctionKey>,
    ) -> usize {
        let state = self.lock();
        let placed = state.placed_on(queue.node());
        let placed: BTreeSet<&FunctionKey> = placed.iter().collect();
        let surplus = has.iter().filter(|key| !placed.contains(key));
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
