//! Views of nodes for the rest of the operator.

use std::time::Duration;

use jiff::Timestamp;
use node_api::{FencingToken, v1};
use tokio::time::Instant;

use super::revision_states::RevisionStates;
use super::session::Session;
use super::{FunctionKey, Node, Origin};

/// State of one function on one node.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionOnNode {
    /// Name of the node.
    pub node: String,
    /// Whether the node is in sync and in contact within the silence limit; only such a node counts in "all nodes".
    pub live: bool,
    /// Time of the last message of the node.
    pub last_contact: Timestamp,
    /// Revisions on the node; empty if it reported nothing about the function.
    pub revisions: Vec<RevisionOnNode>,
    /// Exceptions that the node reported.
    pub exceptions: Vec<v1::NodeException>,
    /// Fencing token that the node acted on when it reconnected after an absence longer than the time to live of an
    /// unsupervised candidate, until it acts on a newer one.
    pub returned: Option<FencingToken>,
}

/// State of one revision on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionOnNode {
    /// Name of the revision.
    pub revision: String,
    /// Load state of the revision.
    pub state: v1::LoadState,
    /// With `Failed`: the node will not try again.
    pub permanent: bool,
    /// Fencing token of the traffic split that the node acts on.
    pub applied: Option<FencingToken>,
}

/// State of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// Name of the node.
    pub name: String,
    /// Whether the node is in sync and in contact within the silence limit.
    pub live: bool,
    /// Whether a stream is open, here or at another replica.
    pub connected: bool,
    /// Whether the node is connected through another replica.
    pub relayed: bool,
    /// Time of the last message of the node.
    pub last_contact: Timestamp,
    /// Hello message of the node.
    pub hello: v1::Hello,
    /// Table version that the node acts on.
    pub applied_version: u64,
    /// Number of functions placed on the node.
    pub functions_desired: u32,
    /// Number of those functions that are loaded.
    pub functions_loaded: u32,
    /// Number of those functions that failed to load.
    pub functions_failed: u32,
    /// Result of the node's readiness probe.
    pub ready: bool,
    /// Exceptions that the node reported, at most 64.
    pub exceptions: Vec<v1::NodeException>,
    /// Number of further exceptions.
    pub exceptions_dropped: u32,
}

/// Returns the session that represents a node.
pub(super) fn representative(node: &Node) -> Option<&Session> {
    latest(node.sessions.values())
}

/// Selects the authoritative session of several.
pub(super) fn latest<'a>(sessions: impl Iterator<Item = &'a Session>) -> Option<&'a Session> {
    sessions.max_by_key(|session| authority(session))
}

/// Order of sessions of one node; the greatest is authoritative. An ended stream stays authoritative until another one is
/// complete, because a node between two streams keeps its last reported state. While a pod is replaced, the node has two
/// processes that report in turn: the one that started later decides from its first complete report on, and of one
/// process the stream with the latest message.
pub(super) fn authority(session: &Session) -> (bool, bool, u64, Instant) {
    let started = session.hello.boot_id;
    (
        session.complete,
        !session.ended,
        started,
        session.last_contact,
    )
}

pub(super) fn is_live(session: &Session, now: Instant, silence: Duration) -> bool {
    session.complete && session.last_contact + silence >= now
}

pub(super) fn function_on_node(
    name: &str,
    node: &Node,
    key: &FunctionKey,
    now: Instant,
    silence: Duration,
) -> Option<FunctionOnNode> {
    let session = representative(node)?;
    let revisions = session.revisions.get(key).into_iter();
    let states = revisions.flat_map(RevisionStates::iter);
    let revisions = states.map(|state| RevisionOnNode {
        revision: state.revision.clone(),
        state: state.state(),
        permanent: state.permanent,
        applied: state.applied.map(FencingToken::from),
    });
    let about = |one: &&v1::NodeException| {
        let function = one.function.as_ref();
        function.is_some_and(|f| *f.namespace == *key.namespace && *f.name == *key.name)
    };
    Some(FunctionOnNode {
        node: name.to_owned(),
        live: is_live(session, now, silence),
        last_contact: session.last_contact_at,
        revisions: revisions.collect(),
        exceptions: session.exceptions.iter().filter(about).cloned().collect(),
        returned: node.returned.get(key).copied(),
    })
}

pub(super) fn node_view(
    name: &str,
    node: &Node,
    now: Instant,
    silence: Duration,
) -> Option<NodeView> {
    let session = representative(node)?;
    Some(NodeView {
        name: name.to_owned(),
        live: is_live(session, now, silence),
        connected: node.sessions.values().any(|session| !session.ended),
        relayed: session.origin == Origin::Relayed,
        last_contact: session.last_contact_at,
        hello: session.hello.clone(),
        applied_version: session.applied_version,
        functions_desired: session.functions_desired,
        functions_loaded: session.functions_loaded,
        functions_failed: session.functions_failed,
        ready: session.ready,
        exceptions: session.exceptions.clone(),
        exceptions_dropped: session.exceptions_dropped,
    })
}
