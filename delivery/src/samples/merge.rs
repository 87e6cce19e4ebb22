//! Selects one of several snapshots of a process that arrived from different sources.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::counters::Counters;

/// All counters of one process since its start, read at one time.
///
/// All revisions are read at the same time, so that a failure shared by both affects both in the same evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Name of the node, independent of the source of the counters.
    pub process: String,
    /// Start of the process in Unix milliseconds; `None` if unknown.
    pub boot: Option<u64>,
    /// Time of the reading.
    pub at: Timestamp,
    /// Counters by revision. A missing revision was not loaded yet, so it counts as all zero.
    pub revisions: BTreeMap<String, Counters>,
}

impl Snapshot {
    fn total(&self) -> u64 {
        self.revisions.values().map(Counters::total).sum()
    }
}

/// Returns at most one snapshot per process and boot: the one with the most requests, or the newest of equal ones.
///
/// Snapshots are never added: two scrapers of one process, or Prometheus and the in-band counters, report the same counters
/// at different times. The choice is per process and not per revision, because both revisions of a node must be read at
/// the same time.
#[must_use]
pub fn merge(snapshots: impl IntoIterator<Item = Snapshot>) -> Vec<Snapshot> {
    let mut best: BTreeMap<(String, Option<u64>), Snapshot> = BTreeMap::new();
    for snapshot in snapshots {
        let key = (snapshot.process.clone(), snapshot.boot);
        let better = best
            .get(&key)
            .is_none_or(|held| (snapshot.total(), snapshot.at) > (held.total(), held.at));
        if better {
            best.insert(key, snapshot);
        }
    }
    best.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Outcome, StatusClass};

    fn snapshot(process: &str, boot: u64, second: i64, requests: u64) -> Snapshot {
        let mut counters = Counters::default();
        counters.add(Outcome::Ok, StatusClass::Other, requests);
        Snapshot {
            process: process.into(),
            boot: Some(boot),
            at: Timestamp::from_second(second).unwrap(),
            revisions: [("new".into(), counters)].into(),
        }
    }

    #[test]
    fn the_snapshot_with_the_most_requests_is_used_in_any_order() {
        let most = snapshot("a", 1, 10, 7);
        let others = [snapshot("a", 1, 20, 6), snapshot("a", 1, 9, 7)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let all = [most.clone(), others[0].clone(), others[1].clone()];
            let merged = merge(order.map(|i: usize| all[i].clone()));
            assert_eq!(merged, std::slice::from_ref(&most));
        }
    }

    #[test]
    fn boots_and_processes_are_not_mixed() {
        let all = [
            snapshot("a", 1, 10, 7),
            snapshot("a", 2, 10, 1),
            snapshot("b", 1, 10, 1),
        ];
        assert_eq!(merge(all.clone()), all);
    }
}
