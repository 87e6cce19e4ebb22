//! Processes connects, reports and disconnects of nodes, and detects silent nodes.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use node_api::v1;
use tokio::time::Instant;

use super::counters::FrameResult;
use super::expected_nodes;
use super::session::Session;
use super::{
    CONTACT_RETENTION, Fleet, FleetChanges, FunctionKey, MAX_EXCEPTIONS, MAX_NODES, Node, Origin,
    RETENTION, State, view,
};

/// A session of the fleet; passed back with every message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node_api) struct SessionId {
    pub(super) node: String,
    pub(in crate::node_api) number: u64,
}

/// Result of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node_api) struct Received {
    pub(in crate::node_api) frame: Option<FrameResult>,
    /// A part of the report was above its limit and was left out.
    pub(in crate::node_api) dropped: bool,
}

impl Fleet {
    /// Registers a stream that a node has opened; `None` when there are too many nodes.
    pub(in crate::node_api) fn connect(
        &self,
        origin: Origin,
        hello: v1::Hello,
    ) -> Option<SessionId> {
        let name = hello.node.clone();
        let mut state = self.lock();
        if state.nodes.len() >= MAX_NODES && !state.nodes.contains_key(&name) {
            return None;
        }
        let number = state.next_session;
        state.next_session += 1;
        let now = Instant::now();
        let left = state.left.remove(&name);
        let session = Session::new(origin, hello.clone(), now, Timestamp::now());
        let node = state.nodes.entry(name.clone()).or_default();
        let heard = node.sessions.values().map(|session| session.last_contact);
        let last = heard.max().or(left);
        node.came_back |= last.is_some_and(|last| last + self.0.unsupervised_ttl <= now);
        node.sessions.insert(number, session);
        drop(state);
        if origin == Origin::Direct {
            self.0.outbox.sessions_changed(&name);
        }
        self.publish_node(&name);
        let node = name;
        Some(SessionId { node, number })
    }

    /// Processes a report of a node.
    pub(in crate::node_api) fn report(&self, id: &SessionId, report: v1::Report) -> Received {
        let mut state = self.lock();
        let session = state
            .nodes
            .get_mut(&id.node)
            .and_then(|node| node.sessions.get_mut(&id.number));
        let Some(session) = session else {
            let (frame, dropped) = (None, false);
            return Received { frame, dropped };
        };
        let origin = session.origin;
        let now = Instant::now();
        let was_live = view::is_live(session, now, self.0.silence);
        let was_complete = session.complete;
        let mut applied = session.apply(report, MAX_EXCEPTIONS, now, Timestamp::now());
        let completed = session.complete && !was_complete;
        let came_to_life = session.complete && !was_live;
        if let Some(node) = state.nodes.get_mut(&id.node) {
            if came_to_life {
                applied.node = true;
                let former = live_predecessor(node, id.number, now, self.0.silence);
                match former.zip(node.sessions.get(&id.number)) {
                    Some((former, session)) => applied.functions = former.differing(session),
                    None => applied.functions.extend(all_functions(node)),
                }
            }
            note_return(node, id.number, &applied.functions);
            if completed {
                drop_replaced(node);
            }
        }
        state.max_epoch = state.max_epoch.max(applied.max_epoch);
        drop(state);
        if origin == Origin::Direct {
            let (functions, removed) = (&applied.functions, applied.removed);
            self.0.outbox.reported(&id.node, functions, removed);
        }
        let mut changed = FleetChanges {
            functions: applied.functions,
            nodes: BTreeSet::new(),
        };
        if applied.node {
            changed.nodes.insert(id.node.clone());
        }
        self.0.subscribers.publish(&changed);
        Received {
            frame: applied.frame,
            dropped: applied.dropped,
        }
    }

    /// Ends a stream. Its reports stay valid until another stream has sent a complete report.
    pub(in crate::node_api) fn gone(&self, id: &SessionId) {
        let mut state = self.lock();
        let Some(node) = state.nodes.get_mut(&id.node) else {
            return;
        };
        let Some(session) = node.sessions.get_mut(&id.number) else {
            return;
        };
        session.ended = true;
        let origin = session.origin;
        let functions = handed_over(node, id.number);
        drop_replaced(node);
        let direct_left = node
            .sessions
            .values()
            .any(|one| !one.ended && one.origin == Origin::Direct);
        drop(state);
        match (origin, direct_left) {
            (Origin::Direct, false) => self.0.outbox.gone(&id.node),
            (Origin::Direct, true) => self.0.outbox.sessions_changed(&id.node),
            (Origin::Relayed, _) => {}
        }
        let nodes = BTreeSet::from([id.node.clone()]);
        self.0
            .subscribers
            .publish(&FleetChanges { functions, nodes });
    }

    /// Reports nodes that became silent since `last`, and forgets nodes that left long ago. Call this about once a
    /// second.
    pub(in crate::node_api) fn sweep(&self, last: Instant, now: Instant) {
        let silence = self.0.silence;
        let mut state = self.lock();
        let no_longer_expected = expected_nodes::no_longer_expected(&state, last, now);
        let nodes = forget(&mut state, now);
        let fell_silent = state.nodes.iter().filter(|(_, node)| {
            let session = view::representative(node);
            session.is_some_and(|session| {
                view::is_live(session, last, silence) && !view::is_live(session, now, silence)
            })
        });
        let (mut silent, mut functions) = (BTreeSet::new(), BTreeSet::new());
        for (name, node) in fell_silent {
            silent.insert(name.clone());
            let known = view::representative(node).map(|session| session.revisions.keys().cloned());
            functions.extend(known.into_iter().flatten());
        }
        drop(state);
        let nodes = nodes
            .into_iter()
            .chain(silent)
            .chain(no_longer_expected)
            .collect();
        self.0
            .subscribers
            .publish(&FleetChanges { functions, nodes });
    }

    fn publish_node(&self, name: &str) {
        self.0.subscribers.publish(&FleetChanges {
            nodes: BTreeSet::from([name.to_owned()]),
            ..FleetChanges::default()
        });
    }
}

/// The session that represented a node until its session `number` came to life. A node opens a new stream every ten
/// minutes; what it had before and has now is no reason to reconcile anything.
fn live_predecessor(node: &Node, number: u64, now: Instant, silence: Duration) -> Option<&Session> {
    let others = node.sessions.iter().filter(|(other, _)| **other != number);
    view::latest(others.map(|(_, other)| other))
        .filter(|former| view::is_live(former, now, silence))
}

/// Functions that another session reports differently, if that session represents the node since `number` ended.
fn handed_over(node: &Node, number: u64) -> BTreeSet<FunctionKey> {
    let others = node.sessions.iter().filter(|(other, _)| **other != number);
    let next =
        view::latest(others.map(|(_, other)| other)).filter(|next| next.complete && !next.ended);
    let ended = node.sessions.get(&number).filter(|ended| ended.complete);
    next.zip(ended)
        .map_or_else(BTreeSet::new, |(next, ended)| ended.differing(next))
}

fn all_functions(node: &Node) -> impl Iterator<Item = FunctionKey> {
    let sessions = node.sessions.values();
    sessions.flat_map(|session| session.revisions.keys().cloned())
}

/// A reconnecting node still uses its old state, so only a newer state counts as following again.
fn note_return(node: &mut Node, session: u64, functions: &BTreeSet<FunctionKey>) {
    let Some(session) = node.sessions.get(&session) else {
        return;
    };
    if node.came_back && session.complete {
        node.came_back = false;
        node.returned = session
            .revisions
            .keys()
            .filter_map(|key| Some((key.clone(), session.acted_on(key)?)))
            .collect();
        return;
    }
    for key in functions {
        if node.returned.get(key) != session.acted_on(key).as_ref() {
            node.returned.remove(key);
        }
    }
}

/// An ended session is kept only while it has the latest report of its node.
fn drop_replaced(node: &mut Node) {
    let mut sessions = node.sessions.values();
    let replaced = sessions.any(|session| !session.ended && session.complete);
    let last = view::representative(node).map(|session| session.last_contact);
    let Node {
        sessions, ended, ..
    } = node;
    sessions.retain(|_, session| {
        let kept = !session.ended || !replaced && Some(session.last_contact) == last;
        if !kept {
            ended.remember(session.hello.boot_id, session.last_contact);
        }
        kept
    });
}

fn forget(state: &mut State, now: Instant) -> Vec<String> {
    let old = |session: &Session| session.ended && session.last_contact + RETENTION < now;
    let mut forgotten = Vec::new();
    let left = &mut state.left;
    left.retain(|_, last| *last + CONTACT_RETENTION >= now);
    state.nodes.retain(|name, node| {
        let last = view::representative(node).map(|session| session.last_contact);
        node.sessions.retain(|_, session| !old(session));
        if node.sessions.is_empty() {
            forgotten.push(name.clone());
            if let Some(last) = last.filter(|_| left.len() < MAX_NODES) {
                left.insert(name.clone(), last);
            }
        }
        !node.sessions.is_empty()
    });
    forgotten
}
