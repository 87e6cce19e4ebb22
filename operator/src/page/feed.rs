//! What the page knows beside the caches, and the changes that it publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::broadcast;

use super::charts::Recorder;
use super::list::{List, ListPage, ListQuery, PAGE};
use super::nodes::{NodeList, NodePage, NodeQuery, NodeRow};
use super::row::Row;
use super::view::{Shown, View};
use crate::watch::{Caches, ObjectKey, Term};

/// Time between two updates. Changes that arrive meanwhile are published together.
const PAUSE: Duration = Duration::from_millis(500);
/// Maximum number of rows in an update. After more changes, clients read their page of the list again.
const MAX_ROWS: usize = 100;
/// Number of updates that a slow stream may lag behind.
const BACKLOG: usize = 16;

/// The source of everything that the page shows. Clones are cheap and share the state.
#[derive(Clone)]
pub(super) struct Feed(Arc<Inner>);

struct Inner {
    caches: Caches,
    replica: String,
    state: RwLock<State>,
    updates: broadcast::Sender<Arc<Update>>,
    node_updates: broadcast::Sender<Arc<Update>>,
}

#[derive(Default)]
struct State {
    list: List,
    recorder: Recorder,
    nodes: NodeList,
}

/// Functions or nodes that have changed.
#[derive(Debug)]
pub(super) struct Update {
    /// Keys of the functions; empty for nodes.
    pub(super) keys: BTreeSet<ObjectKey>,
    /// [`Changes`] as JSON. `None` after too many changes.
    pub(super) changes: Option<String>,
}

/// Changes of a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Changes<R> {
    /// Number of all objects by phase or state.
    counts: BTreeMap<&'static str, usize>,
    /// Changed and new objects.
    rows: Vec<R>,
    /// Deleted objects: namespaces and names of functions, names of nodes.
    gone: Vec<Vec<String>>,
}

impl Feed {
    pub(super) fn new(caches: Caches, replica: String) -> Self {
        Self(Arc::new(Inner {
            caches,
            replica,
            state: RwLock::default(),
            updates: broadcast::channel(BACKLOG).0,
            node_updates: broadcast::channel(BACKLOG).0,
        }))
    }

    /// Follows the caches and never returns.
    pub(super) async fn follow(&self) {
        let caches = &self.0.caches;
        caches.filled().await;
        let mut functions = caches.functions.subscribe();
        let mut revisions = caches.revisions.subscribe();
        let mut nodes = caches.edge_nodes.subscribe();
        loop {
            tokio::select! {
                keys = functions.next() => self.handle(keys, Timestamp::now()),
                keys = revisions.next() => self.handle(self.functions_of(&keys), Timestamp::now()),
                keys = nodes.next() => self.handle_nodes(&keys),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Functions of revisions that have changed. That of a deleted revision is no longer known; its status shows the deletion.
    fn functions_of(&self, revisions: &BTreeSet<ObjectKey>) -> BTreeSet<ObjectKey> {
        let cache = &self.0.caches.revisions;
        let function = |key: &ObjectKey| {
            let revision = cache.get(key)?;
            Some(ObjectKey::new(&key.namespace, &revision.spec.function))
        };
        revisions.iter().filter_map(function).collect()
    }

    /// Takes over the newest versions of these functions, and publishes them if anyone follows.
    pub(super) fn handle(&self, keys: BTreeSet<ObjectKey>, now: Timestamp) {
        if keys.is_empty() {
            return;
        }
        let functions = &self.0.caches.functions;
        let mut state = self.0.state.write();
        for key in &keys {
            let function = functions.get(key);
            state.list.update(key, function.as_deref());
            state.recorder.record(key, function.as_deref(), now);
        }
        let counts = state.list.counts();
        drop(state);
        if self.0.updates.receiver_count() == 0 {
            return;
        }
        let row = |key: &ObjectKey| functions.get(key).map(|function| Row::of(&function));
        let changes = changes(&keys, counts, row);
        // An error means that the last stream has just ended.
        let _ = self.0.updates.send(Arc::new(Update { keys, changes }));
    }

    /// Takes over the newest reports about these nodes, and publishes them if anyone follows.
    pub(super) fn handle_nodes(&self, keys: &BTreeSet<ObjectKey>) {
        let nodes = &self.0.caches.edge_nodes;
        let mut state = self.0.state.write();
        for key in keys {
            state.nodes.update(&key.name, nodes.get(key).as_deref());
        }
        let counts = state.nodes.counts();
        drop(state);
        if self.0.node_updates.receiver_count() == 0 {
            return;
        }
        let row = |key: &ObjectKey| nodes.get(key).map(|node| NodeRow::of(&node));
        let changes = changes(keys, counts, row);
        let keys = BTreeSet::new();
        let _ = self.0.node_updates.send(Arc::new(Update { keys, changes }));
    }

    pub(super) fn subscribe_nodes(&self) -> broadcast::Receiver<Arc<Update>> {
        self.0.node_updates.subscribe()
    }

    /// Returns a page of the list of nodes.
    pub(super) fn nodes(&self, query: &NodeQuery) -> NodePage {
        let (total, names, counts) = {
            let state = self.0.state.read();
            let (total, names) = state.nodes.page(query);
            (total, names, state.nodes.counts())
        };
        let nodes = &self.0.caches.edge_nodes;
        let rows = names
            .iter()
            .filter_map(|name| nodes.get(&ObjectKey::new("", name)));
        NodePage {
            total,
            from: query.from,
            size: PAGE,
            counts,
            rows: rows.map(|node| NodeRow::of(&node)).collect(),
            replica: self.0.replica.clone(),
        }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<Update>> {
        self.0.updates.subscribe()
    }

    pub(super) fn is_filled(&self) -> bool {
        self.0.caches.are_filled()
    }

    /// Returns a page of the list.
    pub(super) fn list(&self, query: &ListQuery) -> ListPage {
        let (total, keys, counts) = {
            let state = self.0.state.read();
            let (total, keys) = state.list.page(query);
            (total, keys, state.list.counts())
        };
        let functions = &self.0.caches.functions;
        let rows = keys.iter().filter_map(|key| functions.get(key));
        ListPage {
            total,
            from: query.from,
            size: PAGE,
            counts,
            rows: rows.map(|function| Row::of(&function)).collect(),
            replica: self.0.replica.clone(),
        }
    }

    /// Returns everything that the page shows of a function. `None` if it does not exist.
    pub(super) fn view(&self, key: &ObjectKey) -> Option<View> {
        let caches = &self.0.caches;
        let function = caches.functions.get(key)?;
        let rollout = function.spec.rollout.as_ref();
        let policy = rollout
            .and_then(|rollout| rollout.policy_ref.as_ref())
            .and_then(|policy| {
                let key = ObjectKey::new(&key.namespace, &policy.name);
                caches.policies.get(&key)
            });
        let shown = Shown {
            function: &function,
            revisions: &caches.revisions.find(&Term::Function(key.clone())),
            policy: policy.as_deref(),
            replica: &self.0.replica,
        };
        let state = self.0.state.read();
        Some(View::of(&shown, state.recorder.record_of(key)))
    }
}

/// Changes of a list as JSON. `None` after more than [`MAX_ROWS`].
fn changes<R: Serialize>(
    keys: &BTreeSet<ObjectKey>,
    counts: BTreeMap<&'static str, usize>,
    row: impl Fn(&ObjectKey) -> Option<R>,
) -> Option<String> {
    if keys.len() > MAX_ROWS {
        return None;
    }
    let (mut rows, mut gone) = (Vec::new(), Vec::new());
    for key in keys {
        match row(key) {
            Some(row) => rows.push(row),
            None => gone.push(names(key)),
        }
    }
    serde_json::to_string(&Changes { counts, rows, gone }).ok()
}

/// Namespace and name; the name alone if there is no namespace.
fn names(key: &ObjectKey) -> Vec<String> {
    let parts = [&key.namespace, &key.name].into_iter();
    let parts = parts.filter(|part| !part.is_empty());
    parts.map(|part| part.to_string()).collect()
}
