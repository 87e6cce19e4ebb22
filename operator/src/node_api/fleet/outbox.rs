//! Queue of what a follower still has to relay to the leader. It holds names only, so it is bounded by nodes and
//! functions; the newest content is read when a message is sent.

use std::collections::{BTreeMap, BTreeSet};

use node_api::v1;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Fleet, FunctionKey, Origin, view};

#[derive(Default)]
struct Pending {
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
    /// Number of the session of each node whose Hello the leader has.
    announced: BTreeMap<String, u64>,
}

/// Names of what still has to be relayed.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

impl Outbox {
    /// A stream of the node began, or one of several ended.
    pub(super) fn sessions_changed(&self, node: &str) {
        self.note(node, |pending| pending.gone = false);
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
        waiting.announced.clear();
        waiting.nodes = direct
            .map(|(name, _)| (name.clone(), Pending::default()))
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
            self.0.outbox.waiting.lock().announced.remove(&node);
            return vec![up(Kind::Gone(v1::NodeGone { node }))];
        }
        let state = self.lock();
        let known = state.nodes.get(&node);
        let sessions = known.into_iter().flat_map(|known| &known.sessions);
        let direct = sessions.filter(|(_, one)| one.origin == Origin::Direct && !one.ended);
        let Some((number, session)) = direct.max_by_key(|(_, one)| view::authority(one)) else {
            return Vec::new();
        };
        let mut messages = Vec::new();
        let mut waiting = self.0.outbox.waiting.lock();
        let is_new = waiting.announced.insert(node.clone(), *number) != Some(*number);
        drop(waiting);
        if is_new {
            let hello = Some(session.hello.clone());
            messages.push(up(Kind::Connected(v1::NodeConnected { hello })));
        }
        // Before the node's own first report there is nothing to relay.
        if session.complete {
            let report = session.to_report(is_new || pending.all, &pending.functions);
            let report = Some(report);
            messages.push(up(Kind::Reported(v1::NodeReported { node, report })));
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_api::fleet::SessionId;
    use crate::node_api::tables::Tables;
    use std::time::Duration;
    use v1::relay_up::Kind;

    const OLD: u64 = 7;
    const NEW: u64 = 8;

    fn connect(fleet: &Fleet, boot_id: u64) -> SessionId {
        let node = "n".to_owned();
        let hello = v1::Hello {
            node,
            boot_id,
            ..v1::Hello::default()
        };
        fleet.connect(Origin::Direct, hello).unwrap()
    }

    fn report(fleet: &Fleet, id: &SessionId, revisions_complete: bool) {
        let report = v1::Report {
            revisions_complete,
            ..v1::Report::default()
        };
        fleet.report(id, report);
    }

    /// What a relay sends next: the process that it names, and whether a complete report follows.
    async fn sent(fleet: &Fleet) -> (Option<u64>, Option<bool>) {
        let (mut process, mut complete) = (None, None);
        // the clock is paused, so this time passes at once when there is nothing to relay
        let messages = tokio::time::timeout(Duration::from_secs(1), fleet.next_relayed());
        for message in messages.await.expect("nothing is relayed") {
            match message.kind {
                Some(Kind::Connected(one)) => process = one.hello.map(|hello| hello.boot_id),
                Some(Kind::Reported(one)) => {
                    complete = one.report.map(|report| report.revisions_complete);
                }
                Some(Kind::Gone(_)) | None => {}
            }
        }
        (process, complete)
    }

    fn relay() -> Fleet {
        let (silence, ttl) = (Duration::from_secs(10), Duration::from_secs(600));
        let fleet = Fleet::new(Tables::new(), silence, ttl);
        fleet.open_relay();
        fleet
    }

    /// FE-3: the pod of a node is replaced, and both processes are connected for a while. The leader attributes the samples of
    /// Prometheus by the process that the node reports.
    #[tokio::test(start_paused = true)]
    async fn a_process_that_takes_over_is_announced() {
        let fleet = relay();
        let old = connect(&fleet, OLD);
        report(&fleet, &old, true);
        assert_eq!(sent(&fleet).await, (Some(OLD), Some(true)));
        let new = connect(&fleet, NEW);
        assert_eq!(sent(&fleet).await, (None, Some(false)), "not complete yet");
        report(&fleet, &new, true);
        assert_eq!(sent(&fleet).await, (Some(NEW), Some(true)));
        report(&fleet, &old, false);
        assert_eq!(sent(&fleet).await, (None, Some(false)), "it was replaced");
        fleet.gone(&old);
        assert_eq!(sent(&fleet).await, (None, Some(false)));
    }

    /// The new process crashes while the old one still serves.
    #[tokio::test(start_paused = true)]
    async fn the_old_process_is_announced_again_if_the_new_one_ends_first() {
        let fleet = relay();
        let old = connect(&fleet, OLD);
        report(&fleet, &old, true);
        let new = connect(&fleet, NEW);
        report(&fleet, &new, true);
        assert_eq!(sent(&fleet).await, (Some(NEW), Some(true)));
        fleet.gone(&new);
        assert_eq!(sent(&fleet).await, (Some(OLD), Some(true)));
        fleet.gone(&old);
        let messages = fleet.next_relayed().await;
        assert!(matches!(messages[0].kind, Some(Kind::Gone(_))));
    }
}
