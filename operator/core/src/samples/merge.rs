//! Several snapshots of one process, by several ways: one of them is used.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::counters::Counters;

/// What one process counted since it started, read at one moment.
///
/// All revisions come from the same moment, so that trouble that both share hits both in the same look.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The node's name: the same by whichever way the counters came.
    pub process: String,
    /// Start of the process in Unix milliseconds; `None` if unknown.
    pub boot: Option<u64>,
    /// When it was read.
    pub at: Timestamp,
    /// By revision. A revision that is missing was not loaded yet, so it counts as all zero.
    pub revisions: BTreeMap<String, Counters>,
}

impl Snapshot {
    fn total(&self) -> u64 {
        self.revisions.values().map(Counters::total).sum()
    }
}

/// At most one snapshot per process and boot: the one that counted most, of equal ones the newest.
///
/// Nothing is ever added across snapshots: two scrapers of one process, or Prometheus and the in-band counters,
/// tell the same story up to different moments. The choice is per process and not per revision, because both
/// revisions of a node must come from one moment.
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
    use crate::samples::{Code, Outcome};

    fn snapshot(process: &str, boot: u64, second: i64, requests: u64) -> Snapshot {
        let mut counters = Counters::default();
        counters.add(Outcome::Ok, Code::Other, requests);
        Snapshot {
            process: process.into(),
            boot: Some(boot),
            at: Timestamp::from_second(second).unwrap(),
            revisions: [("new".into(), counters)].into(),
        }
    }

    #[test]
    fn the_one_that_counted_most_is_used_whichever_way_and_order_they_come() {
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
