//! What nodes receive of functions that are placed on other nodes only: where the function is, and where those nodes receive
//! requests. The addresses travel apart from the functions, so that a replaced pod is one small message for each node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use node_api::v1;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::super::placement::Placement;
use super::queue::StreamQueue;
use super::{Entry, State, Tables, encode};

/// Replicas receive changes in different orders, so addresses that changed this recently are sent again to a node that connects.
const OVERLAP: Duration = Duration::from_secs(60);

/// What nodes outside of a function's placement receive.
pub(super) struct Remote {
    /// Encoded as field `remote` of a batch.
    function: Bytes,
    set: Arc<EncodedSet>,
}

/// A set of nodes that functions are placed on.
pub(super) struct EncodedSet {
    id: u64,
    /// Encoded as field `node_sets` of a batch.
    field: Bytes,
}

/// The sets of nodes in use, each encoded once.
#[derive(Default)]
pub(super) struct NodeSets(HashMap<u64, Weak<EncodedSet>>);

/// Where nodes receive the requests of other nodes.
#[derive(Default)]
pub(super) struct NodeAddresses {
    by_node: BTreeMap<String, SocketAddr>,
    /// Whether all addresses are known.
    complete: bool,
    /// Version of the tables and time at the last change.
    changed: Option<(u64, Instant)>,
}

/// Encoded fields of a batch. It has each set of nodes that its functions refer to once.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) list: Vec<Bytes>,
    pub(super) bytes: usize,
    sets: BTreeSet<u64>,
}

// === impl Fields ===

impl Fields {
    pub(super) fn push(&mut self, field: Bytes) {
        self.bytes += field.len();
        self.list.push(field);
    }

    pub(super) fn push_remote(&mut self, remote: &Remote) {
        if self.sets.insert(remote.set.id) {
            self.push(remote.set.field.clone());
        }
        self.push(remote.function.clone());
    }
}

// === impl NodeSets ===

impl NodeSets {
    fn share(&mut self, names: &BTreeSet<String>) -> Arc<EncodedSet> {
        let id = id_of(names);
        if let Some(known) = self.0.get(&id).and_then(Weak::upgrade) {
            return known;
        }
        // dead entries are removed before the map grows, at amortised constant cost
        if self.0.len() == self.0.capacity() {
            self.0.retain(|_, set| set.strong_count() > 0);
            let living = self.0.len();
            self.0.reserve(living.max(1));
        }
        let nodes = names.iter().cloned().collect();
        let field = encode::node_set(&v1::NodeSet { id, nodes });
        let set = Arc::new(EncodedSet { id, field });
        self.0.insert(id, Arc::downgrade(&set));
        set
    }
}

/// Returns an id that only equal sets have: the first 64 bits of a hash of the names.
fn id_of(names: &BTreeSet<String>) -> u64 {
    let mut hash = Sha256::new();
    for name in names {
        hash.update(name.as_bytes());
        hash.update([0]);
    }
    let first = hash.finalize().first_chunk::<8>().copied();
    u64::from_le_bytes(first.unwrap_or_default())
}

// === impl Entry ===

impl Entry {
    /// Whether nodes outside of both placements have to receive this entry in place of `old`.
    pub(super) fn differs_elsewhere(&self, old: &Self) -> bool {
        let (new, held) = (&self.record, &old.record);
        let set = |entry: &Self| entry.remote.as_ref().map(|remote| remote.set.id);
        set(self) != set(old)
            || new.uid != held.uid
            || new.created != held.created
            || new.accepted != held.accepted
            || new.routes != held.routes
            || new.suspended != held.suspended
            || new.callers != held.callers
    }

    /// Adds what nodes outside of the placement receive.
    fn with_set(mut self, set: Option<Arc<EncodedSet>>) -> Self {
        self.remote = set.map(|set| {
            let record = &self.record;
            let function = encode::remote(&v1::RemoteFunction {
                key: record.key.clone(),
                uid: record.uid.clone(),
                version: record.version,
                created: record.created,
                accepted: record.accepted,
                routes: record.routes.clone(),
                suspended: record.suspended,
                node_set: set.id,
                callers: record.callers.clone(),
            });
            Remote { function, set }
        });
        self
    }

    /// Adds what `old`, an entry with the same placement, sends to nodes outside of it.
    pub(super) fn with_remote_of(self, old: &Self) -> Self {
        let set = old.remote.as_ref().map(|remote| Arc::clone(&remote.set));
        self.with_set(set)
    }
}

// === impl State ===

impl State {
    /// Adds what nodes outside of the placement receive, if it is restricted.
    pub(super) fn with_remote(&mut self, entry: Entry, restricted: bool) -> Entry {
        let set = match &entry.placement {
            Placement::Nodes(names) if restricted => Some(self.node_sets.share(names)),
            _ => None,
        };
        entry.with_set(set)
    }

    /// Counts a function that nodes outside of its placement receive, or no longer receive. With the first one, they need addresses.
    pub(super) fn count_restricted(&mut self, before: bool, now_restricted: bool, now: Instant) {
        match (before, now_restricted) {
            (false, true) => {
                self.restricted += 1;
                if self.restricted == 1 {
                    self.addresses.changed = Some((self.version, now));
                    self.push_all_addresses();
                }
            }
            (true, false) => self.restricted = self.restricted.saturating_sub(1),
            _ => {}
        }
    }

    fn push_all_addresses(&self) {
        for stream in self.streams.values() {
            stream.push_all_addresses();
        }
    }

    /// Whether a node that resumes from `have` may lack an address.
    pub(super) fn may_lack_addresses(&self, have: u64, now: Instant) -> bool {
        let changed = self.addresses.changed;
        changed.is_some_and(|(version, at)| version >= have || at + OVERLAP >= now)
    }

    /// Adds all addresses, unless no node needs any.
    pub(super) fn all_addresses(&self, fields: &mut Fields) {
        if self.restricted == 0 {
            return;
        }
        for (node, address) in &self.addresses.by_node {
            fields.push(encode::address(&on_wire(node, Some(*address))));
        }
        if self.addresses.complete {
            fields.push(encode::addresses_complete());
        }
    }

    /// Adds the addresses that a stream has to send.
    pub(super) fn changed_addresses(&self, queue: &StreamQueue, fields: &mut Fields) {
        let pending = queue.take_addresses();
        if self.restricted == 0 {
            return;
        }
        if pending.all {
            return self.all_addresses(fields);
        }
        for node in pending.nodes {
            let address = self.addresses.by_node.get(&node).copied();
            fields.push(encode::address(&on_wire(&node, address)));
        }
    }

    pub(super) fn has_address(&self, node: &str) -> bool {
        self.addresses.by_node.contains_key(node)
    }

    fn set_address(&mut self, node: &str, address: Option<SocketAddr>, version: u64) {
        if address.is_none() {
            self.departed.remove(node);
        }
        let addresses = &mut self.addresses.by_node;
        let former = match address {
            Some(address) => addresses.insert(node.to_owned(), address),
            None => addresses.remove(node),
        };
        if former == address {
            return;
        }
        if self.restricted > 0 {
            self.advance(version);
            for stream in self.streams.values() {
                stream.push_address(node);
            }
        }
        self.addresses.changed = Some((self.version, Instant::now()));
    }
}

fn on_wire(node: &str, address: Option<SocketAddr>) -> v1::NodeAddress {
    v1::NodeAddress {
        node: node.to_owned(),
        address: address.map_or_else(String::new, |address| address.ip().to_string()),
        port: address.map_or(0, |address| address.port().into()),
    }
}

// === impl Tables ===

impl Tables {
    /// Sets where a node receives requests of other nodes; `None` when it has no node-shim. `version` is the resourceVersion of the
    /// pod, or 0.
    pub fn set_address(&self, node: &str, address: Option<SocketAddr>, version: u64) {
        self.lock().set_address(node, address, version);
    }

    /// Records that all addresses are known: nodes forget the others.
    pub fn addresses_complete(&self) {
        let mut state = self.lock();
        state.addresses.complete = true;
        if state.restricted > 0 {
            state.push_all_addresses();
        }
    }
}

#[cfg(test)]
mod tests;
