//! The routing table of the data path: which function a request belongs to and what can run for it.
//! Built beside the data path, swapped in whole; a request keeps its table to the end.

use std::collections::HashMap;
use std::sync::Arc;

use node_shim_core::outcome::FailureReason;
use node_shim_core::pick::candidate_concurrency;
use node_shim_core::routing::RouteIndex;
use node_shim_core::table::{FunctionEntry, FunctionKey};

use crate::revision::Revision;

/// A function and what its share's revisions are on this node at this moment.
#[derive(Clone, Debug)]
pub struct ServedFunction {
    pub entry: Arc<FunctionEntry>,
    pub stable: RevisionSlot,
    pub candidate: RevisionSlot,
}

/// What there is of a revision.
#[derive(Clone, Debug, Default)]
pub enum RevisionSlot {
    /// The share names none.
    #[default]
    Absent,
    /// On its way: requests wait for the next table, no longer than the function's queue allows.
    Loading,
    /// Cannot run here, and why.
    Failed(FailureReason),
    Ready(Arc<Revision>),
}

/// Cheap to share; made anew for every change.
#[derive(Debug, Default)]
pub struct RoutingTable {
    /// Of the operator's table it was made from; shown, never compared.
    pub version: u64,
    index: Arc<RouteIndex>,
    /// Where in `functions` each is.
    positions: Arc<HashMap<FunctionKey, usize>>,
    functions: Vec<ServedFunction>,
}

impl RoutingTable {
    /// Indexes the routes of all functions.
    pub fn new(version: u64, functions: Vec<ServedFunction>) -> Self {
        let index = Arc::new(RouteIndex::build(
            functions.iter().map(|served| &*served.entry),
        ));
        let keys = functions.iter().map(|served| served.entry.key.clone());
        let positions = Arc::new(keys.zip(0..).collect());
        let table = Self {
            version,
            index,
            positions,
            functions,
        };
        table.apply_concurrency_limits();
        table
    }

    /// The same functions with the same routes in the same order, only shares or revisions changed:
    /// what is indexed is kept. Falls back to `new` when a route differs.
    pub fn with_functions(&self, version: u64, functions: Vec<ServedFunction>) -> Self {
        let same = functions.len() == self.functions.len()
            && functions.iter().zip(&self.functions).all(|(new, old)| {
                Arc::ptr_eq(&new.entry, &old.entry)
                    || (new.entry.key == old.entry.key
                        && new.entry.created_ms == old.entry.created_ms
                        && new.entry.routes == old.entry.routes)
            });
        if !same {
            return Self::new(version, functions);
        }
        let table = Self {
            version,
            index: self.index.clone(),
            positions: self.positions.clone(),
            functions,
        };
        table.apply_concurrency_limits();
        table
    }

    pub fn functions(&self) -> &[ServedFunction] {
        &self.functions
    }

    pub(crate) fn index(&self) -> &RouteIndex {
        &self.index
    }

    pub(crate) fn function(&self, at: usize) -> Option<&ServedFunction> {
        self.functions.get(at)
    }

    /// However many there are, found at once.
    pub(crate) fn by_key(&self, key: &FunctionKey) -> Option<&ServedFunction> {
        self.function(*self.positions.get(key)?)
    }

    /// Stable keeps all of its permits, the candidate has its own.
    fn apply_concurrency_limits(&self) {
        for served in &self.functions {
            if let RevisionSlot::Ready(stable) = &served.stable {
                stable.concurrency.set_limit(stable.spec.limits.concurrency);
            }
            if let RevisionSlot::Ready(candidate) = &served.candidate {
                let all = candidate.spec.limits.concurrency;
                let permits = match served.entry.split.stable {
                    Some(_) => candidate_concurrency(all, served.entry.split.weight),
                    None => all,
                };
                candidate.concurrency.set_limit(permits);
            }
        }
    }
}

impl RevisionSlot {
    pub fn ready(&self) -> Option<&Arc<Revision>> {
        match self {
            Self::Ready(revision) => Some(revision),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use node_shim_core::table::{Route, TrafficSplit};

    use super::*;

    /// A function without revisions on a host.
    fn served(name: &str, host: &str) -> ServedFunction {
        let entry = FunctionEntry {
            key: FunctionKey::new("ns", name),
            created_ms: 0,
            routes: vec![Route {
                hosts: vec![host.to_owned()],
                ..Route::default()
            }],
            suspended: false,
            split: TrafficSplit::default(),
        };
        ServedFunction {
            entry: Arc::new(entry),
            stable: RevisionSlot::Absent,
            candidate: RevisionSlot::Absent,
        }
    }

    /// The hosts that are found under these names.
    fn hosts<'a>(table: &'a RoutingTable, names: [&str; 3]) -> [Option<&'a str>; 3] {
        names.map(|name| {
            let found = table.by_key(&FunctionKey::new("ns", name))?;
            Some(found.entry.routes[0].hosts[0].as_str())
        })
    }

    #[test]
    fn functions_are_found_by_name_in_every_table_that_follows() {
        let names = ["a", "b", "c"];
        let mut table = RoutingTable::default();
        assert_eq!(hosts(&table, names), [None; 3]);
        let mut all = vec![served("b", "b.test"), served("c", "c.test")];
        // the second time only shares may have changed
        for version in [1, 2] {
            table = table.with_functions(version, all.clone());
            assert_eq!(hosts(&table, names), [None, Some("b.test"), Some("c.test")]);
        }
        assert!(table.by_key(&FunctionKey::new("other", "b")).is_none());
        all.insert(0, served("a", "a.test"));
        table = table.with_functions(3, all.clone());
        assert_eq!(
            hosts(&table, names),
            [Some("a.test"), Some("b.test"), Some("c.test")]
        );
        all.remove(1);
        table = table.with_functions(4, all.clone());
        assert_eq!(hosts(&table, names), [Some("a.test"), None, Some("c.test")]);
        // another one has taken its route over
        all[0] = served("b", "a.test");
        table = table.with_functions(5, all);
        assert_eq!(hosts(&table, names), [None, Some("a.test"), Some("c.test")]);
    }
}
