//! What the nodes say: who is there, what they loaded, what they act on.
//!
//! A node may be heard over two streams for a moment (it moved to another replica, the old stream is
//! half open). Each stream is a session with its own state; the node is what the session says that was
//! heard last of those that told all their revisions. A node counts as live while that was within the
//! silence limit, also between two streams: tokens make a stream end every ten minutes. Nodes that left are remembered for ten minutes: what they counted still counts.

mod awaited;
mod changes;
mod counters;
mod hints;
mod intake;
mod outbox;
mod session;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use node_api::FencingToken;
use operator_core::samples::Snapshot;
use tokio::time::Instant;

use super::FunctionKey;
use super::tables::{HintRefused, Tables};
use awaited::Awaited;
use changes::Subscribers;
pub use changes::{Changed, Changes};
pub(super) use counters::FrameResult;
pub use counters::{Latency, Reading};
use hints::Relays;
pub(super) use intake::SessionId;
use outbox::Outbox;
use session::Session;
pub use view::{FunctionOnNode, NodeView, RevisionOnNode};

/// A node that left is forgotten after this long.
const REMEMBER: Duration = Duration::from_secs(600);
/// When it was last heard is known for this long.
const LEFT: Duration = Duration::from_secs(24 * 3600);
/// Nodes at a time; more are a mistake or an attack.
const MAX_NODES: usize = 20_000;
/// Epochs above this are not believed: one lying node must not use up the numbers.
const MAX_EPOCH: u64 = 1 << 48;
/// Exceptions kept per node.
const MAX_EXCEPTIONS: usize = 64;

/// The nodes as this replica knows them; clones share it.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    tables: Tables,
    silence: Duration,
    unsupervised_ttl: Duration,
    state: Mutex<State>,
    subscribers: Subscribers,
    outbox: Outbox,
    relays: Relays,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<String, Node>,
    /// Nodes that are forgotten, and when they were last heard: they may come back.
    left: BTreeMap<String, Instant>,
    awaited: Awaited,
    next_session: u64,
    max_epoch: u64,
}

#[derive(Default)]
struct Node {
    sessions: BTreeMap<u64, Session>,
    /// It was away for so long that it had sent candidates' shares back to stable, and has not told everything yet.
    came_back: bool,
    /// What it acted on when it came back, per function, until it acts on something newer.
    returned: BTreeMap<FunctionKey, FencingToken>,
}

/// Where a session's messages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The node's own stream.
    Direct,
    /// Another replica's relay.
    Relayed,
}

impl Fleet {
    /// Nobody yet. Hints go through `tables`; without a message for `silence` a node is absent, and without
    /// contact for `unsupervised_ttl` it gives candidates nothing any more.
    pub fn new(tables: Tables, silence: Duration, unsupervised_ttl: Duration) -> Self {
        Self(Arc::new(Inner {
            tables,
            silence,
            unsupervised_ttl,
            state: Mutex::default(),
            subscribers: Subscribers::default(),
            outbox: Outbox::default(),
            relays: Relays::default(),
        }))
    }

    /// What every known node says about one function, also nodes that are absent, and those that are awaited.
    pub fn function_nodes(&self, key: &FunctionKey) -> Vec<FunctionOnNode> {
        let now = Instant::now();
        let state = self.lock();
        let awaited: BTreeSet<&str> = awaited::unheard(&state, now).collect();
        let nodes = state.nodes.iter();
        nodes
            .filter(|(name, _)| !awaited.contains(name.as_str()))
            .filter_map(|(name, node)| view::function_on_node(name, node, key, now, self.0.silence))
            .chain(awaited.iter().map(|name| awaited::silent(name)))
            .collect()
    }

    /// Every node heard within the last ten minutes.
    pub fn nodes(&self) -> Vec<NodeView> {
        let now = Instant::now();
        let state = self.lock();
        let nodes = state.nodes.iter();
        nodes
            .filter_map(|(name, node)| view::node_view(name, node, now, self.0.silence))
            .collect()
    }

    /// Tells of every later change that a reconcile could care about; counters are not among them.
    pub fn subscribe(&self) -> Changes {
        self.0.subscribers.subscribe()
    }

    /// What every node that reported in the last ten minutes counted for one function since it
    /// started: the same numbers a scrape of it gives. At most one snapshot per node.
    pub fn counters(&self, key: &FunctionKey, reading: Reading<'_>) -> Vec<Snapshot> {
        let state = self.lock();
        let nodes = state.nodes.iter();
        nodes
            .filter_map(|(name, node)| {
                let session = view::speaker(node)?;
                session.counters.snapshot(name, key, reading)
            })
            .collect()
    }

    /// The highest epoch any node acts on. A leader goes above it: after a restored backup the nodes
    /// know more than the objects.
    pub fn max_epoch_seen(&self) -> u64 {
        self.lock().max_epoch
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Fleet {
    /// A node that connects and says this.
    pub(crate) fn say_for_test(&self, node: &str, report: node_api::v1::Report) {
        let hello = node_api::v1::Hello {
            node: node.to_owned(),
            boot_id: 1,
            ..node_api::v1::Hello::default()
        };
        if let Some(session) = self.connect(Source::Direct, hello) {
            self.report(&session, report);
        }
    }

    /// A node that connects and sends these frames.
    pub(crate) fn hear_for_test(
        &self,
        node: &str,
        boot_id: u64,
        frames: impl IntoIterator<Item = node_api::v1::CounterFrame>,
    ) {
        let hello = node_api::v1::Hello {
            node: node.to_owned(),
            boot_id,
            ..node_api::v1::Hello::default()
        };
        let session = self.connect(Source::Direct, hello);
        for frame in frames {
            let report = node_api::v1::Report {
                counters: Some(frame),
                revisions_complete: true,
                ..node_api::v1::Report::default()
            };
            if let Some(session) = &session {
                self.report(session, report);
            }
        }
    }
}

#[cfg(test)]
mod tests;
