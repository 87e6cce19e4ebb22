//! Pending changes of one stream: keys and kinds of change, never content.

use std::collections::{BTreeMap, BTreeSet};

use node_api::v1;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::FunctionKey;

/// When two changes of a key meet, the greater kind wins, but a removal and a record replace each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node_api) enum Change {
    Split,
    Whole,
    Removal,
}

#[derive(Default)]
struct Waiting {
    changes: BTreeMap<FunctionKey, Change>,
    hints: BTreeMap<FunctionKey, v1::SplitUpdate>,
    addresses: PendingAddresses,
}

/// Nodes whose addresses a stream has to send.
#[derive(Default)]
pub(super) struct PendingAddresses {
    pub(super) all: bool,
    pub(super) nodes: BTreeSet<String>,
}

impl PendingAddresses {
    fn is_empty(&self) -> bool {
        !self.all && self.nodes.is_empty()
    }
}

/// Pending changes of one stream.
pub(in crate::node_api) struct StreamQueue {
    node: String,
    /// Whether the node receives functions that are placed on other nodes.
    remote: bool,
    waiting: Mutex<Waiting>,
    changed: Notify,
    hinted: Notify,
}

impl StreamQueue {
    pub(super) fn new(node: &str, remote: bool) -> Self {
        Self {
            node: node.to_owned(),
            remote,
            waiting: Mutex::default(),
            changed: Notify::new(),
            hinted: Notify::new(),
        }
    }

    pub(in crate::node_api) fn node(&self) -> &str {
        &self.node
    }

    pub(super) const fn takes_remote(&self) -> bool {
        self.remote
    }

    /// Queues the address of a node.
    pub(super) fn push_address(&self, node: &str) {
        if self.remote && node != self.node {
            let mut waiting = self.waiting.lock();
            if !waiting.addresses.all {
                waiting.addresses.nodes.insert(node.to_owned());
            }
            drop(waiting);
            self.changed.notify_one();
        }
    }

    /// Queues the addresses of all nodes.
    pub(super) fn push_all_addresses(&self) {
        if self.remote {
            self.waiting.lock().addresses = PendingAddresses {
                all: true,
                nodes: BTreeSet::new(),
            };
            self.changed.notify_one();
        }
    }

    pub(super) fn take_addresses(&self) -> PendingAddresses {
        std::mem::take(&mut self.waiting.lock().addresses)
    }

    pub(super) fn push(&self, key: &FunctionKey, change: Change) {
        let mut waiting = self.waiting.lock();
        match waiting.changes.get_mut(key) {
            // The node still needs what the earlier change contains.
            Some(Change::Whole) if change == Change::Split => {}
            Some(earlier) => {
                *earlier = match (*earlier, change) {
                    (Change::Removal, Change::Split) => Change::Whole,
                    (_, newer) => newer,
                }
            }
            None => {
                waiting.changes.insert(key.clone(), change);
            }
        }
        drop(waiting);
        self.changed.notify_one();
    }

    pub(super) fn push_hint(&self, key: &FunctionKey, hint: v1::SplitUpdate) {
        self.waiting.lock().hints.insert(key.clone(), hint);
        self.hinted.notify_one();
    }

    pub(in crate::node_api) fn take_hints(&self) -> Vec<v1::SplitUpdate> {
        std::mem::take(&mut self.waiting.lock().hints)
            .into_values()
            .collect()
    }

    /// Removes and returns the first pending change.
    pub(in crate::node_api) fn pop(&self) -> Option<(FunctionKey, Change)> {
        self.waiting.lock().changes.pop_first()
    }

    pub(in crate::node_api) fn is_empty(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.changes.is_empty() && waiting.hints.is_empty() && waiting.addresses.is_empty()
    }

    /// Completes when something was pushed since the last completion.
    pub(in crate::node_api) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Completes when a hint was pushed since the last completion.
    pub(in crate::node_api) async fn hinted(&self) {
        self.hinted.notified().await;
    }
}
