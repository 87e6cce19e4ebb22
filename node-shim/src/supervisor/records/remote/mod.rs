//! Functions that are placed on other nodes, and where those nodes receive requests. An operator sends them to nodes that can
//! forward.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use node_api::v1::{Batch, NodeAddress, NodeSet, RemoteFunction as Wire};
use node_shim_core::desired::{MergeDecision, removal_applies, survives_snapshot};
use node_shim_core::desired::{RecordVersions, merge_decision};
use node_shim_core::table::{FunctionEntry, FunctionKey};

use super::super::parse_remote::{parse_remote, remote_versions};
use crate::routing_table::{RemoteFunction, RemoteNodes};

/// Maximum number of nodes with an address.
const MAX_NODES: usize = 20_000;

/// The functions of other nodes.
#[derive(Default)]
pub(crate) struct RemoteFunctions {
    functions: BTreeMap<FunctionKey, Remote>,
    sets: Sets,
    addresses: BTreeMap<String, SocketAddr>,
    /// Addresses of the nodes in each set, as long as no address changes.
    resolved: HashMap<u64, Arc<RemoteNodes>>,
    /// IP addresses of the nodes, as long as none changes.
    peers: Option<Arc<HashSet<IpAddr>>>,
    /// Whether an operator has sent all functions of other nodes since it first sent any.
    complete: bool,
}

/// A function of other nodes.
struct Remote {
    wire: Wire,
    entry: Arc<FunctionEntry>,
    nodes: Arc<NodeSet>,
}

/// Sets of nodes by id, each once.
#[derive(Default)]
struct Sets(HashMap<u64, Weak<NodeSet>>);

/// Functions of other nodes in a batch, with the sets that they refer to.
#[derive(Default)]
pub(super) struct Offered(Vec<(Wire, Arc<NodeSet>)>);

impl Sets {
    fn share(&mut self, set: NodeSet) -> Arc<NodeSet> {
        let known = self.0.get(&set.id).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| **known == set) {
            return known;
        }
        if self.0.len() == self.0.capacity() {
            self.0.retain(|_, set| set.strong_count() > 0);
            let living = self.0.len();
            self.0.reserve(living.max(1));
        }
        let set = Arc::new(set);
        self.0.insert(set.id, Arc::downgrade(&set));
        set
    }
}

impl Offered {
    pub(super) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    pub(super) fn into_functions(self) -> impl Iterator<Item = (Wire, Arc<NodeSet>)> {
        self.0.into_iter()
    }
}

impl RemoteFunctions {
    /// Applies the addresses of a batch. Returns whether one has changed.
    pub(super) fn learn_addresses(&mut self, addresses: &[NodeAddress], complete: bool) -> bool {
        let mut changed = false;
        if complete {
            let named: HashSet<&str> = addresses.iter().map(|one| one.node.as_str()).collect();
            let before = self.addresses.len();
            self.addresses
                .retain(|node, _| named.contains(node.as_str()));
            changed |= self.addresses.len() < before;
        }
        for one in addresses {
            let port = u16::try_from(one.port).ok().filter(|port| *port > 0);
            let ip: Option<IpAddr> = one.address.parse().ok();
            let former = match ip.zip(port) {
                Some(address) if self.addresses.len() < MAX_NODES => {
                    let address = SocketAddr::from(address);
                    let former = self.addresses.insert(one.node.clone(), address);
                    changed |= former != Some(address);
                    continue;
                }
                _ => self.addresses.remove(&one.node),
            };
            changed |= former.is_some();
        }
        if changed {
            self.resolved.clear();
            self.peers = None;
        }
        changed
    }

    /// Takes the functions of other nodes out of a batch.
    pub(super) fn take(&mut self, batch: &mut Batch) -> Offered {
        let sets = std::mem::take(&mut batch.node_sets).into_iter();
        let sets: HashMap<u64, Arc<NodeSet>> =
            sets.map(|set| (set.id, self.sets.share(set))).collect();
        let with_set = |wire: Wire| {
            let set = sets.get(&wire.node_set).cloned();
            if set.is_none() {
                tracing::error!(
                    "ignored a function of other nodes, because its set of nodes is missing"
                );
            }
            Some((wire, set?))
        };
        let functions = std::mem::take(&mut batch.remote).into_iter();
        Offered(functions.filter_map(with_set).collect())
    }

    /// Stores a function. Returns whether it is valid and not older than the one that the node has.
    pub(super) fn put(&mut self, key: FunctionKey, wire: Wire, nodes: Arc<NodeSet>) -> bool {
        let have = self.versions(&key);
        let decision = merge_decision(have.as_ref(), &remote_versions(&wire));
        if !matches!(decision, MergeDecision::Apply { routes: true, .. }) {
            return false;
        }
        match parse_remote(&wire) {
            Ok(entry) => {
                let entry = Arc::new(entry);
                self.functions.insert(key, Remote { wire, entry, nodes });
                true
            }
            Err(error) => {
                tracing::error!(function = %key, %error, "rejected an invalid function of other nodes");
                false
            }
        }
    }

    fn versions(&self, key: &FunctionKey) -> Option<RecordVersions> {
        let have = self.functions.get(key)?;
        Some(remote_versions(&have.wire))
    }

    /// Whether the node has a function of this key and uid.
    pub(super) fn is(&self, key: &FunctionKey, uid: &str) -> bool {
        let have = self.functions.get(key);
        have.is_some_and(|have| have.wire.uid == uid)
    }

    pub(super) fn remove(&mut self, key: &FunctionKey) -> bool {
        self.functions.remove(key).is_some()
    }

    /// Applies a removal. Returns whether it was newer than the function.
    pub(super) fn remove_at(&mut self, key: &FunctionKey, version: u64) -> bool {
        let have = self.versions(key);
        have.is_some_and(|have| removal_applies(&have, version)) && self.remove(key)
    }

    /// Removes what a snapshot of this version does not name.
    pub(super) fn retain_named(&mut self, named: &BTreeSet<FunctionKey>, version: u64) {
        self.functions.retain(|key, have| {
            named.contains(key) || survives_snapshot(&remote_versions(&have.wire), version)
        });
    }

    /// Removes everything, because the operator does not send functions of other nodes.
    pub(super) fn clear(&mut self) -> bool {
        let changed = !self.functions.is_empty();
        *self = Self::default();
        changed
    }

    pub(crate) fn set_complete(&mut self, complete: bool) {
        self.complete = complete;
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &FunctionKey> {
        self.functions.keys()
    }

    /// Returns the functions for the routing table.
    pub(crate) fn publish(&mut self) -> BTreeMap<FunctionKey, RemoteFunction> {
        let Self {
            functions,
            addresses,
            resolved,
            ..
        } = self;
        let in_use: HashSet<u64> = functions.values().map(|one| one.nodes.id).collect();
        resolved.retain(|id, _| in_use.contains(id));
        let function = |(key, remote): (&FunctionKey, &Remote)| {
            let nodes = resolved.entry(remote.nodes.id).or_insert_with(|| {
                let names = &remote.nodes.nodes;
                let known = names.iter().filter_map(|name| addresses.get(name).copied());
                Arc::new(RemoteNodes {
                    addresses: known.collect(),
                    named: names.len(),
                })
            });
            let function = RemoteFunction {
                entry: Arc::clone(&remote.entry),
                nodes: Arc::clone(nodes),
            };
            (key.clone(), function)
        };
        functions.iter().map(function).collect()
    }

    /// Returns the addresses of all nodes.
    pub(crate) fn peers(&mut self) -> Arc<HashSet<IpAddr>> {
        let addresses = self.addresses.values();
        let all = || addresses.map(|address| address.ip().to_canonical());
        let peers = self.peers.get_or_insert_with(|| Arc::new(all().collect()));
        Arc::clone(peers)
    }

    /// Forgets where else a function is, because this node can serve it.
    pub(crate) fn arrived(&mut self, key: &FunctionKey) {
        self.remove(key);
    }

    /// Returns the functions and addresses as parts of a batch, to write them to disk.
    pub(crate) fn to_batch(&self) -> Batch {
        let sets: BTreeMap<u64, &Arc<NodeSet>> = self
            .functions
            .values()
            .map(|remote| (remote.nodes.id, &remote.nodes))
            .collect();
        let addresses = self.addresses.iter().map(|(node, address)| NodeAddress {
            node: node.clone(),
            address: address.ip().to_string(),
            port: address.port().into(),
        });
        Batch {
            node_sets: sets.into_values().map(|set| (**set).clone()).collect(),
            remote: self
                .functions
                .values()
                .map(|one| one.wire.clone())
                .collect(),
            addresses: addresses.collect(),
            addresses_complete: self.complete,
            ..Batch::default()
        }
    }
}

#[cfg(test)]
mod tests;
