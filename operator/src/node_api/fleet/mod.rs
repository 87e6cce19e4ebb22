//! State of the nodes as they report it: which nodes exist, what they have loaded, and what they act on.
//!
//! A node may briefly have two streams: it moved to another replica, and the old stream is half open, or its pod is
//! replaced, and the old process drains. Each stream is a session with its own state. The state of the node is that of the
//! newest process that has sent a complete report. A node counts as live while its last message is within the silence limit, also
//! between two streams, because token expiry ends a stream every ten minutes. Nodes that left are remembered for ten
//! minutes, and their counters still count.

mod changes;
mod counters;
mod expected_nodes;
mod hints;
mod intake;
mod outbox;
mod processes;
mod revision_states;
mod session;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use node_api::FencingToken;
use operator_core::samples::Snapshot;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::FunctionKey;
use super::tables::{HintRefused, Tables};
use changes::Subscribers;
pub use changes::{FleetChanges, FleetSubscription};
pub(super) use counters::FrameResult;
pub use counters::{CounterSelector, Latency};
use expected_nodes::ExpectedNodes;
use hints::Relays;
pub(super) use intake::SessionId;
use outbox::Outbox;
use processes::Ended;
pub use processes::Processes;
use session::Session;
pub use view::{FunctionOnNode, NodeView, RevisionOnNode};

/// A node that left is forgotten after this long.
const RETENTION: Duration = Duration::from_secs(600);
/// How long the time of the last contact with a forgotten node is kept.
const CONTACT_RETENTION: Duration = Duration::from_secs(24 * 3600);
/// Maximum number of nodes; more indicate a mistake or an attack.
const MAX_NODES: usize = 20_000;
/// Highest accepted epoch. Epochs are counted in `leaseTransitions`, a number of 31 bits, and a single faulty node must not
/// use up all of them.
const MAX_EPOCH: u64 = (1 << 31) - (1 << 20);
/// Highest accepted serial. Numbers up to 2^53 survive a status, and a few more are needed above any that a node reports.
const MAX_SERIAL: u64 = 1 << 52;
/// Maximum number of exceptions kept per node.
const MAX_EXCEPTIONS: usize = 64;

/// The nodes as this replica sees them. Clones share the state.
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
    /// Forgotten nodes and the time of their last contact, because they may return.
    left: BTreeMap<String, Instant>,
    expected: ExpectedNodes,
    next_session: u64,
    max_epoch: u64,
}

#[derive(Default)]
struct Node {
    sessions: BTreeMap<u64, Session>,
    /// Earlier processes of the node.
    ended: Ended,
    /// The node was away long enough to have returned candidates' traffic to stable, and has not sent a complete
    /// report yet.
    came_back: bool,
    /// What the node acted on when it returned, per function, until it acts on something newer.
    returned: BTreeMap<FunctionKey, FencingToken>,
}

/// Origin of the messages of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The node's own stream.
    Direct,
    /// The relay of another replica.
    Relayed,
}

impl Fleet {
    /// Creates a fleet without nodes. Hints are sent through `tables`. A node without a message for `silence` is
    /// absent, and one without contact for `unsupervised_ttl` no longer sends traffic to candidates.
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

    /// Returns the state of one function on every known node, including absent and expected nodes.
    pub fn function_nodes(&self, key: &FunctionKey) -> Vec<FunctionOnNode> {
        let now = Instant::now();
        let state = self.lock();
        let expected: BTreeSet<&str> = expected_nodes::without_report(&state, now).collect();
        let nodes = state.nodes.iter();
        nodes
            .filter(|(name, _)| !expected.contains(name.as_str()))
            .filter_map(|(name, node)| view::function_on_node(name, node, key, now, self.0.silence))
            .chain(expected.iter().map(|name| expected_nodes::silent(name)))
            .collect()
    }

    /// Returns every node that was in contact within the last ten minutes.
    pub fn nodes(&self) -> Vec<NodeView> {
        let now = Instant::now();
        let state = self.lock();
        let nodes = state.nodes.iter();
        nodes
            .filter_map(|(name, node)| view::node_view(name, node, now, self.0.silence))
            .collect()
    }

    /// Subscribes to all later changes that affect a reconcile; counters are not among them.
    pub fn subscribe(&self) -> FleetSubscription {
        self.0.subscribers.subscribe()
    }

    /// Returns the counters of one function on every node that reported in the last ten minutes, since the start of
    /// the node: the same numbers that a scrape returns. At most one snapshot per node.
    pub fn counters(&self, key: &FunctionKey, selector: CounterSelector<'_>) -> Vec<Snapshot> {
        let state = self.lock();
        let nodes = state.nodes.iter();
        nodes
            .filter_map(|(name, node)| {
                let session = view::representative(node)?;
                session.counters.snapshot(name, key, selector)
            })
            .collect()
    }

    /// Whether one of these nodes reports counters at all.
    pub fn reports_counters(&self, nodes: &BTreeSet<String>) -> bool {
        let state = self.lock();
        let mut known = nodes.iter().filter_map(|name| state.nodes.get(name));
        known.any(|node| {
            let session = view::representative(node);
            session.is_some_and(|session| session.counters.has_any())
        })
    }

    /// Returns the highest epoch that any node acts on. A leader must use a higher one: after a backup was restored,
    /// the nodes have newer state than the objects.
    pub fn max_epoch_seen(&self) -> u64 {
        self.lock().max_epoch
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

#[cfg(test)]
impl Fleet {
    /// Connects a node with a stream of its own.
    fn stream_from(&self, node: &str, boot_id: u64) -> SessionId {
        let hello = node_api::v1::Hello {
            node: node.to_owned(),
            boot_id,
            ..node_api::v1::Hello::default()
        };
        self.connect(Origin::Direct, hello).unwrap()
    }

    /// Processes a report of a node on a new stream.
    pub(crate) fn report_from(&self, node: &str, report: node_api::v1::Report) {
        self.report(&self.stream_from(node, 1), report);
    }

    /// Processes frames of counters of a node on a new stream.
    pub(crate) fn counters_from(
        &self,
        node: &str,
        boot_id: u64,
        frames: impl IntoIterator<Item = node_api::v1::CounterFrame>,
    ) {
        let session = self.stream_from(node, boot_id);
        for frame in frames {
            let report = node_api::v1::Report {
                counters: Some(frame),
                revisions_complete: true,
                ..node_api::v1::Report::default()
            };
            self.report(&session, report);
        }
    }
}

#[cfg(test)]
mod tests;
