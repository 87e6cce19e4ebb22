//! What others may know about nodes.

use std::time::Duration;

use jiff::Timestamp;
use node_api::{FencingToken, v1};
use tokio::time::Instant;

use super::session::Session;
use super::{FunctionKey, Node, Source};

/// One function as one node has it.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionOnNode {
    /// The node's name.
    pub node: String,
    /// In sync and heard within the silence limit; only such a node counts in "all nodes".
    pub live: bool,
    /// When it was last heard.
    pub last_contact: Timestamp,
    /// The revisions it knows of; empty if it said nothing about the function.
    pub revisions: Vec<RevisionOnNode>,
    /// What it complains about.
    pub exceptions: Vec<v1::NodeException>,
    /// It was away longer than the time to live of an unsupervised candidate, came back acting on this token,
    /// and has not acted on anything newer since.
    pub returned: Option<FencingToken>,
}

/// One revision on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionOnNode {
    /// Its name.
    pub revision: String,
    /// How far it got.
    pub state: v1::LoadState,
    /// With `Failed`: the node will not try again.
    pub permanent: bool,
    /// Token of the share that the node acts on.
    pub applied: Option<FencingToken>,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// In sync and heard within the silence limit.
    pub live: bool,
    /// A stream is open, here or at another replica.
    pub connected: bool,
    /// It is heard through another replica.
    pub relayed: bool,
    /// When it was last heard.
    pub last_contact: Timestamp,
    /// What it said when it connected.
    pub hello: v1::Hello,
    /// The table version it acts on.
    pub applied_version: u64,
    /// Functions placed there.
    pub functions_desired: u32,
    /// Of them: loaded.
    pub functions_loaded: u32,
    /// Of them: failed.
    pub functions_failed: u32,
    /// What its readiness probe says.
    pub ready: bool,
    /// What it complains about, at most 64.
    pub exceptions: Vec<v1::NodeException>,
    /// How many more complaints there are.
    pub exceptions_dropped: u32,
}

/// The session that speaks for a node.
pub(super) fn speaker(node: &Node) -> Option<&Session> {
    loudest(node.sessions.values())
}

/// Of several sessions the one to believe: complete, heard last. That its stream has ended does not
/// matter: a node between two streams is what it said a moment ago.
pub(super) fn loudest<'a>(sessions: impl Iterator<Item = &'a Session>) -> Option<&'a Session> {
    sessions.max_by_key(|session| (session.complete, session.last_contact))
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
    let session = speaker(node)?;
    let revisions = session.revisions.get(key).into_iter().flatten();
    let revisions = revisions.map(|(revision, state)| RevisionOnNode {
        revision: revision.clone(),
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
    let session = speaker(node)?;
    Some(NodeView {
        name: name.to_owned(),
        live: is_live(session, now, silence),
        connected: node.sessions.values().any(|session| !session.ended),
        relayed: session.source == Source::Relayed,
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
