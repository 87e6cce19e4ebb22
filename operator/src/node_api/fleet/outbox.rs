//! Queue of what a follower still has to relay to the leader. It holds names only, so it is bounded by nodes and
//! functions; the newest content is read when a message is sent.

use std::collections::{BTreeMap, BTreeSet};

use node_api::v1;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::view;
use super::{Fleet, FunctionKey, Origin};

#[derive(Default)]
struct Pending {
    connected: bool,
    gone: bool,
    /// All functions, because any of them may have lost a revision.
    all: bool,
    functions: BTreeSet<FunctionKey>,
}

#[derive(Default)]
struct Waiting {
    /// Whether a relay is open; without one, nothing is collected.
    open: bool,
    nodes: BTreeMap<String, Pending>,
}

/// Names of what still has to be relayed.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

impl Outbox {
    pub(super) fn connected(&self, node: &str) {
        self.note(node, |pending| {
            *pending = Pending {
                connected: true,
                ..Pending::default()
            };
        });
    }

    pub(super) fn reported(&self, node: &str, functions: &BTreeSet<FunctionKey>, removed: bool) {
        self.note(node, |pending| {
            pending.all |= removed;
            pending.functions.extend(functions.iter().cloned());
        });
    }

    pub(super) fn gone(&self, node: &str) {
        self.note(node, |pending| {
            *pending = Pending {
                gone: true,
                ..Pending::default()
            };
        });
    }

    fn note(&self, node: &str, change: impl FnOnce(&mut Pending)) {
        let mut waiting = self.waiting.lock();
        if waiting.open {
            change(waiting.nodes.entry(node.to_owned()).or_default());
            drop(waiting);
            self.filled.notify_one();
        }
    }
}

impl Fleet {
    /// Starts a relay to the leader: queues the complete state of the direct nodes first.
    pub(in crate::node_api) fn open_relay(&self) {
        let state = self.lock();
        let direct = state.nodes.iter().filter(|(_, node)| {
            let sessions = node.sessions.values();
            sessions
                .into_iter()
                .any(|session| session.origin == Origin::Direct && !session.ended)
        });
        let mut waiting = self.0.outbox.waiting.lock();
        waiting.open = true;
        waiting.nodes = direct
            .map(|(name, _)| {
                let pending = Pending {
                    connected: true,
                    ..Pending::default()
                };
                (name.clone(), pending)
            })
            .collect();
        drop(waiting);
        self.0.outbox.filled.notify_one();
    }

    /// Ends the relay; nothing is collected any longer.
    pub(in crate::node_api) fn close_relay(&self) {
        *self.0.outbox.waiting.lock() = Waiting::default();
    }

    /// Waits until a node has something to relay, and returns its messages in order.
    pub(in crate::node_api) async fn next_relayed(&self) -> Vec<v1::RelayUp> {
        loop {
            let first = self.0.outbox.waiting.lock().nodes.pop_first();
            match first {
                Some((node, pending)) => {
                    let messages = self.relay_messages(node, &pending);
                    if !messages.is_empty() {
                        return messages;
                    }
                }
                None => self.0.outbox.filled.notified().await,
            }
        }
    }

    fn relay_messages(&self, node: String, pending: &Pending) -> Vec<v1::RelayUp> {
        use v1::relay_up::Kind;
        let up = |kind| v1::RelayUp { kind: Some(kind) };
        if pending.gone {
            return vec![up(Kind::Gone(v1::NodeGone { node }))];
        }
        let state = self.lock();
        let known = state.nodes.get(&node);
        let sessions = known.into_iter().flat_map(|known| known.sessions.values());
        let direct = sessions.filter(|one| one.origin == Origin::Direct && !one.ended);
        let Some(session) = view::latest(direct) else {
            return Vec::new();
        };
        let mut messages = Vec::new();
        if pending.connected {
            let hello = Some(session.hello.clone());
            messages.push(up(Kind::Connected(v1::NodeConnected { hello })));
        }
        // Before the node's own first report there is nothing to relay.
        if session.complete {
            let report = session.to_report(pending.connected || pending.all, &pending.functions);
            let report = Some(report);
            messages.push(up(Kind::Reported(v1::NodeReported { node, report })));
        }
        messages
    }
}
