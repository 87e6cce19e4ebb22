//! Routing table of the data plane: the functions of the node with their routes and runnable revisions. It
//! is replaced as a whole; a request keeps the table it started with.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use node_shim_core::failure_reason::FailureReason;
use node_shim_core::host::Host;
use node_shim_core::local_hosts::LocalHosts;
use node_shim_core::pick::candidate_concurrency;
use node_shim_core::routing::RouteIndex;
use node_shim_core::table::{FunctionEntry, FunctionKey};

use crate::revision::Revision;
use crate::tls::{FunctionCertificate, FunctionCertificates};

/// A function and the state of its revisions on this node.
#[derive(Clone, Debug)]
pub struct ServedFunction {
    /// Routes and traffic split.
    pub entry: Arc<FunctionEntry>,
    /// State of the stable revision.
    pub stable: RevisionSlot,
    /// State of the candidate.
    pub candidate: RevisionSlot,
}

/// A function that is placed on other nodes only.
#[derive(Clone, Debug)]
pub struct RemoteFunction {
    /// Routes of the function. Its traffic split is not known here.
    pub entry: Arc<FunctionEntry>,
    /// The nodes that it is placed on.
    pub nodes: Arc<RemoteNodes>,
}

/// Nodes that a function is placed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteNodes {
    /// Where those nodes receive requests whose addresses are known.
    pub addresses: Vec<SocketAddr>,
    /// Number of the nodes.
    pub named: usize,
}

/// State of a revision on this node.
#[derive(Clone, Debug, Default)]
pub enum RevisionSlot {
    /// The traffic split names no such revision. Requests fail at once.
    #[default]
    Absent,
    /// The code is being loaded. Requests wait briefly for the next table.
    Loading,
    /// The code is being loaded, and these nodes serve requests meanwhile.
    LoadingHere(Arc<RemoteNodes>),
    /// The revision cannot run on this node, for the given reason.
    Failed(FailureReason),
    /// The revision can run.
    Ready(Arc<Revision>),
}

/// An immutable table of functions, rebuilt for every change.
#[derive(Debug, Default)]
pub struct RoutingTable {
    /// Version of the operator's table that it was built from, for information only.
    pub version: u64,
    index: Arc<RouteIndex>,
    /// Positions of all functions in the index.
    positions: Arc<HashMap<FunctionKey, usize>>,
    functions: Vec<ServedFunction>,
    /// Functions of other nodes. Their positions in the index follow those of `functions`.
    remote: Vec<RemoteFunction>,
    /// Addresses of the other nodes.
    peers: Arc<HashSet<IpAddr>>,
    local_hosts: LocalHosts,
    /// Certificates that functions bring for their hosts.
    certificates: Arc<FunctionCertificates>,
}

impl RoutingTable {
    /// Builds a table and indexes the routes of all functions.
    pub fn new(version: u64, functions: Vec<ServedFunction>) -> Self {
        Self::with_index(version, functions, Vec::new())
    }

    fn with_index(
        version: u64,
        functions: Vec<ServedFunction>,
        remote: Vec<RemoteFunction>,
    ) -> Self {
        let entries = functions.iter().map(|served| &*served.entry);
        let entries = entries.chain(remote.iter().map(|remote| &*remote.entry));
        let index = Arc::new(RouteIndex::build(entries));
        let keys = functions.iter().map(|served| &served.entry.key);
        let keys = keys.chain(remote.iter().map(|remote| &remote.entry.key));
        let positions = Arc::new(keys.cloned().zip(0..).collect());
        let table = Self {
            version,
            index,
            positions,
            functions,
            remote,
            peers: Arc::default(),
            local_hosts: LocalHosts::default(),
            certificates: Arc::default(),
        };
        table.apply_concurrency_limits();
        table
    }

    /// Replaces the hosts that stand for hosts of routes. Default: none.
    #[must_use]
    pub fn with_local_hosts(self, local_hosts: LocalHosts) -> Self {
        Self {
            local_hosts,
            ..self
        }
    }

    /// Replaces the certificates of functions. Default: none.
    #[must_use]
    pub fn with_certificates(self, certificates: Arc<FunctionCertificates>) -> Self {
        Self {
            certificates,
            ..self
        }
    }

    /// Replaces the addresses of the other nodes. Default: none.
    #[must_use]
    pub fn with_peers(self, peers: Arc<HashSet<IpAddr>>) -> Self {
        Self { peers, ..self }
    }

    /// Builds the next table, without functions of other nodes. Reuses the index when the functions and their routes are
    /// the same and only traffic splits or revisions have changed.
    pub fn with_functions(&self, version: u64, functions: Vec<ServedFunction>) -> Self {
        self.with_all(version, functions, Vec::new())
    }

    /// Builds the next table, as [`with_functions`](Self::with_functions) does, with functions of other nodes.
    pub fn with_all(
        &self,
        version: u64,
        functions: Vec<ServedFunction>,
        remote: Vec<RemoteFunction>,
    ) -> Self {
        let local = functions.iter().zip(&self.functions);
        let local = local.map(|(new, old)| (&new.entry, &old.entry));
        let elsewhere = remote.iter().zip(&self.remote);
        let elsewhere = elsewhere.map(|(new, old)| (&new.entry, &old.entry));
        let same = functions.len() == self.functions.len()
            && remote.len() == self.remote.len()
            && local.chain(elsewhere).all(|(new, old)| {
                Arc::ptr_eq(new, old)
                    || (new.key == old.key
                        && new.created_ms == old.created_ms
                        && new.routes == old.routes)
            });
        if !same {
            return Self::with_index(version, functions, remote)
                .with_local_hosts(self.local_hosts.clone())
                .with_certificates(self.certificates.clone())
                .with_peers(self.peers.clone());
        }
        let table = Self {
            version,
            index: self.index.clone(),
            positions: self.positions.clone(),
            functions,
            remote,
            peers: self.peers.clone(),
            local_hosts: self.local_hosts.clone(),
            certificates: self.certificates.clone(),
        };
        table.apply_concurrency_limits();
        table
    }

    /// Returns all functions.
    pub fn functions(&self) -> &[ServedFunction] {
        &self.functions
    }

    pub(crate) fn local_hosts(&self) -> &LocalHosts {
        &self.local_hosts
    }

    pub(crate) fn index(&self) -> &RouteIndex {
        &self.index
    }

    pub(crate) fn function(&self, at: usize) -> Option<&ServedFunction> {
        self.functions.get(at)
    }

    /// Returns the function of other nodes at a position of the index.
    pub(crate) fn remote(&self, at: usize) -> Option<&RemoteFunction> {
        self.remote.get(at.checked_sub(self.functions.len())?)
    }

    /// Returns all functions of other nodes.
    pub fn remote_functions(&self) -> &[RemoteFunction] {
        &self.remote
    }

    /// Returns whether this is the address of another node.
    pub(crate) fn is_peer(&self, address: IpAddr) -> bool {
        self.peers.contains(&address)
    }

    /// Returns a function by its key in constant time.
    pub(crate) fn by_key(&self, key: &FunctionKey) -> Option<&ServedFunction> {
        self.function(*self.positions.get(key)?)
    }

    /// Returns the routes of a function of this node or of other nodes.
    pub(crate) fn entry_by_key(&self, key: &FunctionKey) -> Option<&Arc<FunctionEntry>> {
        let remote = || self.remote_by_key(key).map(|remote| &remote.entry);
        self.by_key(key).map(|served| &served.entry).or_else(remote)
    }

    /// Returns a function of other nodes by its key in constant time.
    pub(crate) fn remote_by_key(&self, key: &FunctionKey) -> Option<&RemoteFunction> {
        self.remote(*self.positions.get(key)?)
    }

    /// Returns the namespace of the functions that requests to `host` reach.
    pub(crate) fn namespace_of(&self, host: &Host) -> Option<&Arc<str>> {
        let at = self.index.owner(host)?;
        let entry = match self.function(at) {
            Some(served) => &served.entry,
            None => &self.remote(at)?.entry,
        };
        Some(&entry.key.namespace)
    }

    /// Returns the certificate that a function brings for `host`: only one of the namespace to which the host belongs, and
    /// only one that is valid for the host.
    pub(crate) fn certificate(&self, host: &Host) -> Option<&Arc<FunctionCertificate>> {
        if self.certificates.is_empty() {
            return None;
        }
        self.certificates.find(self.namespace_of(host)?, host)
    }

    pub(crate) fn certificates(&self) -> &FunctionCertificates {
        &self.certificates
    }

    /// Returns whether requests may reach this revision.
    pub(crate) fn serves(&self, revision: &Arc<Revision>) -> bool {
        let Some(served) = self.by_key(revision.function()) else {
            return false;
        };
        let mut ready = [&served.stable, &served.candidate]
            .into_iter()
            .filter_map(|slot| slot.ready());
        ready.any(|one| Arc::ptr_eq(one, revision))
    }

    /// Sets the concurrency limits: the stable revision has its full limit, the candidate one according
    /// to its weight.
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
    /// Returns the revision if it can run.
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

    /// Returns a function without revisions on a host.
    fn served(name: &str, host: &str) -> ServedFunction {
        let entry = FunctionEntry {
            key: FunctionKey::new("ns", name),
            created_ms: 0,
            routes: vec![Route {
                hosts: vec![host.to_owned()],
                ..Route::default()
            }],
            suspended: false,
            callers: Vec::new(),
            split: TrafficSplit::default(),
        };
        ServedFunction {
            entry: Arc::new(entry),
            stable: RevisionSlot::Absent,
            candidate: RevisionSlot::Absent,
        }
    }

    /// Returns the hosts of the functions with these names.
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
        // the second table reuses the index
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
        // another function has taken over the route
        all[0] = served("b", "a.test");
        table = table.with_functions(5, all);
        assert_eq!(hosts(&table, names), [None, Some("a.test"), Some("c.test")]);
    }
}
