//! Keeps the node tables in step with the caches, on every replica, leader or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use crds::{EdgeFunction, EdgeRevision};
use jiff::Timestamp;
use parking_lot::RwLock;
use zeroize::Zeroizing;

use crate::function_certificates::FunctionCertificates;
use crate::node_api::{FunctionKey, PlacementPool, Tables};
use crate::reconcile::remembered_secrets::{Remembered, Values};
use crate::reconcile::{moving, pick_nodes};
use crate::watch::{Caches, ObjectKey, Secrets, Term};

/// Projects functions into tables; clones share everything.
#[derive(Clone)]
pub struct Projector {
    pub(in crate::reconcile) caches: Caches,
    pub(in crate::reconcile) secrets: Secrets,
    /// Which of the Secrets hold certificates that nodes can use.
    pub(crate) certificates: FunctionCertificates,
    tables: Tables,
    pub(in crate::reconcile) hash_key: Arc<ArcSwapOption<Zeroizing<Vec<u8>>>>,
    /// When the key of the hashes was made: the hashes of older revisions were made with another one. `None` while it is unknown.
    pub(in crate::reconcile) hash_key_since: Arc<ArcSwapOption<Timestamp>>,
    /// Values that were read, for revisions whose Secret has changed since.
    pub(in crate::reconcile) remembered: Arc<Remembered>,
    /// Nodes whose shim was seen, as long as the node exists. An EdgeNode that is deleted, or whose definition is, is created
    /// again by the leader, and its functions must not be moved to other nodes, or to none, in between.
    shims: Arc<RwLock<BTreeSet<String>>>,
    placements: Arc<PlacementPool>,
}

/// The nodes of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Nodes that run the function: those that the accepted placement picks, and the retained ones.
    pub nodes: BTreeSet<String>,
    /// Nodes of a former placement that keep the function until it has moved.
    pub retained: BTreeSet<String>,
    /// Whether another node has a node-shim too.
    restricted: bool,
}

impl fmt::Debug for Projector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projector")
            .field("functions", &self.tables.len())
            .finish_non_exhaustive()
    }
}

impl Projector {
    /// Projects from these caches into these tables.
    #[must_use]
    pub fn new(
        caches: Caches,
        secrets: Secrets,
        tables: Tables,
        hash_key: Arc<ArcSwapOption<Zeroizing<Vec<u8>>>>,
    ) -> Self {
        Self {
            caches,
            certificates: FunctionCertificates::new(secrets.clone()),
            secrets,
            tables,
            hash_key,
            hash_key_since: Arc::default(),
            remembered: Arc::default(),
            shims: Arc::default(),
            placements: Arc::default(),
        }
    }

    /// Uses this time as that of the key of the hashes.
    #[must_use]
    pub fn with_hash_key_since(mut self, since: Arc<ArcSwapOption<Timestamp>>) -> Self {
        self.hash_key_since = since;
        self
    }

    /// Projects a function as it is in the cache.
    pub fn refresh(&self, key: &ObjectKey) {
        if let Some(object) = self.caches.functions.get(key) {
            self.project(key, &object);
        }
    }

    /// Projects every function: nodes came, went or changed their labels.
    pub fn refresh_all(&self) {
        for (key, object) in self.caches.functions.all() {
            self.project(&key, &object);
        }
        for (key, uid) in self.caches.functions.never_decoded() {
            self.withhold(&key, &uid);
        }
    }

    /// Projects one version of a function; an older one than the tables have changes nothing on the nodes.
    pub fn project(&self, key: &ObjectKey, object: &EdgeFunction) {
        let revisions = self.caches.revisions.find(&Term::Function(key.clone()));
        let revisions: Vec<_> = revisions.iter().map(AsRef::as_ref).collect();
        self.read_secrets(key, object, &revisions);
        let values = Values {
            projector: self,
            namespace: &key.namespace,
        };
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let Some(record) = super::record(object, &revisions, &values) else {
            self.withhold(key, uid);
            return;
        };
        if super::names_nothing(&record) {
            // Nothing can be served yet, so it owns no routes. A status that was lost is no reason to
            // take anything away: stable is recovered in a moment.
            if super::is_settled(object) {
                self.remove(key, record.version);
            } else {
                self.withhold(key, uid);
            }
            return;
        }
        if let Some(missing) = super::lacking(&record) {
            // The revision may come by the watch; a traffic split that names it must not reach a node before it.
            tracing::debug!(function = %key, revision = missing, "not projected: the revision is not in the cache");
            self.withhold(key, uid);
            return;
        }
        let Placed {
            nodes, restricted, ..
        } = self.placed(key, object);
        let placement = self.placements.share(nodes);
        let stored = if restricted {
            self.tables.upsert_restricted(record, placement)
        } else {
            self.tables.upsert(record, placement)
        };
        if let Err(error) = stored {
            tracing::error!(function = %key, %error, "the function keeps its former record");
            self.withhold(key, uid);
        }
    }

    /// A function that exists is not removed from nodes because its record cannot be built.
    fn withhold(&self, key: &ObjectKey, uid: &str) {
        let key = FunctionKey::new(&key.namespace, &key.name);
        self.tables.withhold(&key, uid);
    }

    /// Begins to read the Secrets of all revisions, so that the values are known when a traffic split names one of them, and
    /// those of the routes.
    fn read_secrets(&self, key: &ObjectKey, function: &EdgeFunction, revisions: &[&EdgeRevision]) {
        let values = revisions
            .iter()
            .flat_map(|revision| super::secrets_of(revision));
        let certificates = super::certificates_of(function).into_iter();
        for name in values.chain(certificates.map(str::to_owned)) {
            let _ = self.secrets.get(&ObjectKey::new(&key.namespace, &name));
        }
    }

    /// Removes a deleted function from the tables.
    pub fn remove(&self, key: &ObjectKey, version: u64) {
        self.tables
            .remove(&FunctionKey::new(&key.namespace, &key.name), version);
    }

    /// Updates the labels of all nodes in the tables and remembers their shims. Removes nodes that no longer exist.
    pub fn label_nodes(&self, known: &mut BTreeSet<String>) {
        let nodes = self.caches.nodes.all();
        let present: BTreeSet<String> = nodes.keys().map(|key| key.name.to_string()).collect();
        for gone in known.difference(&present) {
            self.tables.remove_node(gone);
        }
        for (key, node) in nodes {
            self.tables
                .set_node(&key.name, node.metadata.labels.clone().unwrap_or_default());
        }
        let mut shims = self.shims.write();
        let seen = self.caches.edge_nodes.all().into_keys();
        shims.extend(seen.map(|key| key.name.to_string()));
        shims.retain(|name| present.contains(name));
        *known = present;
    }

    /// The nodes that the accepted placement picks, and those that keep the function while it moves there.
    #[must_use]
    pub fn placed(&self, key: &ObjectKey, object: &EdgeFunction) -> Placed {
        let spec = super::placement(object);
        let nodes = self.caches.nodes.all();
        let none = BTreeMap::new();
        let shims = self.shims.read();
        let has_shim = |name: &str| {
            let key = ObjectKey::new("", name);
            shims.contains(name) || self.caches.edge_nodes.get(&key).is_some()
        };
        let candidates = pick_nodes::candidates(&nodes, &none, has_shim);
        let mut nodes = pick_nodes::pick(key, &spec, &candidates);
        let status = object.status.as_ref();
        let serving = status.and_then(|status| status.nodes.as_ref());
        let serving = serving.map_or(&[][..], |nodes| &nodes.serving);
        let can_run = |name: &str| {
            let exists = self.caches.nodes.get(&ObjectKey::new("", name)).is_some();
            exists && has_shim(name)
        };
        let retained = moving::retained(&spec, &nodes, serving, can_run);
        nodes.extend(retained.iter().cloned());
        let mut shims = candidates.iter().filter(|node| node.has_shim);
        Placed {
            restricted: shims.any(|node| !nodes.contains(node.name)),
            nodes,
            retained,
        }
    }

    /// Whether every Secret that a revision or a served route refers to was asked for and answered.
    #[must_use]
    pub fn secrets_known(&self) -> bool {
        let is_known = |key: &ObjectKey, name: &str| {
            let state = self.secrets.get(&ObjectKey::new(&key.namespace, name));
            !matches!(state, crate::watch::SecretState::Unknown)
        };
        let revisions = self.caches.revisions.all();
        let functions = self.caches.functions.all();
        revisions.iter().all(|(key, revision)| {
            let names = super::secrets_of(revision);
            names.iter().all(|name| is_known(key, name))
        }) && functions.iter().all(|(key, function)| {
            let mut names = super::certificates_of(function).into_iter();
            names.all(|name| is_known(key, name))
        })
    }
}
