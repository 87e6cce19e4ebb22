//! Revisions that left the table. Their metrics disappear after a time in which Prometheus scrapes their last requests,
//! and their counters are dropped later. A revision that returns before then continues its counters; one that returns
//! afterwards starts at 0, and its series have been absent for so long that no observer sees a decrease.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use node_shim_core::table::FunctionKey;

use super::node::RevisionKey;
use crate::counters::CounterTable;

/// Time for which the counters of a retired revision stay on the metrics page.
const VISIBILITY: Duration = Duration::from_secs(600);
/// Time for which the counters of a retired revision are kept. Longer than the lookback of Prometheus (5 minutes)
/// after [`VISIBILITY`].
const COUNTER_RETENTION: Duration = Duration::from_secs(1_200);

/// Revisions that left the table and still have counters.
#[derive(Debug, Default)]
pub(crate) struct RetiredRevisions {
    /// Revisions that the table defines, whether they can run or not. Requests may create their counters.
    defined: BTreeSet<RevisionKey>,
    /// Time at which each revision left the table.
    retired: BTreeMap<RevisionKey, Instant>,
}

impl RetiredRevisions {
    /// Takes the revisions that the next table defines.
    pub(super) fn update(&mut self, defined: BTreeSet<RevisionKey>, now: Instant) {
        for id in self.defined.difference(&defined) {
            self.retired.insert(id.clone(), now);
        }
        self.retired.retain(|id, _| !defined.contains(id));
        self.defined = defined;
    }

    /// Hides and drops counters that are old enough. Counters that a request still uses are kept until it has ended.
    /// Returns the functions of the dropped counters.
    pub(super) fn tick(&mut self, counters: &CounterTable, now: Instant) -> BTreeSet<FunctionKey> {
        let mut dropped = BTreeSet::new();
        self.retired.retain(|(function, revision), since| {
            let age = now.saturating_duration_since(*since);
            if age < VISIBILITY {
                return true;
            }
            counters.hide(function, revision);
            if age < COUNTER_RETENTION {
                return true;
            }
            let done = counters.forget_unused(function, revision);
            if done {
                dropped.insert(function.clone());
            }
            !done
        });
        dropped
    }

    /// Removes the revisions of functions whose counters were dropped.
    pub(super) fn forget(&mut self, functions: &BTreeSet<FunctionKey>) {
        if !functions.is_empty() {
            self.retired
                .retain(|(function, _), _| !functions.contains(function));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use node_api::v1::{Batch, FunctionRecord, SnapshotPhase};
    use node_shim_core::table::RevisionName;

    use super::*;
    use crate::clock::Now;
    use crate::counters::RevisionCounters;
    use crate::node_api::Event;
    use crate::supervisor::node::Node;
    use crate::supervisor::parse_record::tests::record;
    use crate::supervisor::recent_traffic::RecentTraffic;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A node to which one version of a function after the other is deployed.
    struct Deployments {
        node: Node,
        counters: Arc<CounterTable>,
        now: Now,
        deployed: u64,
    }

    impl Deployments {
        fn new() -> Self {
            let (counters, now) = (CounterTable::new(), Now::read());
            let recent_traffic = RecentTraffic::default();
            let node = Node::new(None, recent_traffic, counters.clone(), MINUTE, now);
            Self {
                node,
                counters,
                now,
                deployed: 0,
            }
        }

        fn revision(number: u64) -> RevisionName {
            RevisionName::new(format!("r{number}").as_str()).unwrap()
        }

        /// Returns the record in which revision `number` is the candidate and the one before it is stable.
        fn version(number: u64, serial: u64) -> FunctionRecord {
            let mut record = record("f", serial);
            let names = [number - 1, number].map(|number| Self::revision(number).to_string());
            let split = record.split.as_mut().unwrap();
            split.in_rollout = true;
            (split.stable, split.candidate) = (names[0].clone(), names[1].clone());
            for (definition, name) in record.definitions.iter_mut().zip(names) {
                definition.revision = name;
            }
            record
        }

        /// Deploys a revision and sends it a request. A minute passes.
        fn deploy(&mut self, number: u64) -> Arc<RevisionCounters> {
            self.deployed += 1;
            let batch = Batch {
                version: 20 + self.deployed,
                snapshot: SnapshotPhase::Whole.into(),
                functions: vec![Self::version(number, self.deployed)],
                ..Batch::default()
            };
            self.node.handle(Event::Batch(batch), self.now);
            self.node.reconcile(self.now, |_| true);
            let function = FunctionKey::new("ns", "f");
            // a request creates the counters, although the code is not loaded
            let counters = self
                .counters
                .for_request(&function, &Self::revision(number), || true)
                .unwrap();
            self.now.at += MINUTE;
            self.node.tick(self.now);
            counters
        }
    }

    #[test]
    fn a_deployment_every_minute_leaves_no_counters_behind() {
        let mut deployments = Deployments::new();
        for number in 1..=1_000 {
            drop(deployments.deploy(number));
            let (all, shown) = (deployments.counters.all(), deployments.counters.shown());
            assert!(all.len() <= 22, "{} after {number}", all.len());
            assert!(shown.len() <= 12, "{} after {number}", shown.len());
        }
        assert!(deployments.node.removed_functions.counter_generation() > 900);
    }

    #[test]
    fn counters_in_use_and_those_of_a_revision_that_returns_are_kept() {
        let mut deployments = Deployments::new();
        let used = deployments.deploy(1);
        let second = Arc::downgrade(&deployments.deploy(2));
        for number in 3..20 {
            deployments.deploy(number);
        }
        // a rollback to a revision whose metrics are hidden already
        let again = deployments.deploy(2);
        assert!(Arc::ptr_eq(&second.upgrade().unwrap(), &again));
        assert!(again.is_shown());
        drop(again);
        for _ in 0..60 {
            deployments.deploy(2);
        }
        let known = |deployments: &Deployments| {
            let all = deployments.counters.all();
            all.iter()
                .map(|one| one.revision.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(known(&deployments), ["r1", "r2"], "r1 is in use or stable");
        // revision 1 is no longer stable, but a request still runs
        for _ in 0..60 {
            deployments.deploy(30);
        }
        assert_eq!(known(&deployments), ["r1", "r30"]);
        assert!(!used.is_shown());
        drop(used);
        deployments.deploy(30);
        assert_eq!(known(&deployments), ["r30"]);
    }
}
