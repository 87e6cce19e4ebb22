//! Caches of API objects and the routing of their changes: whole kinds, and objects that functions refer to by name.

mod cache;
mod changed_keys;
mod config_maps;
mod index;
mod mass_deletion;
pub(crate) mod quorum;
mod referenced;
mod secrets;
mod shim_pods;
mod slim;

use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;

pub(crate) use cache::version;
pub use cache::{Cache, Change, ObjectKey};
pub use changed_keys::ChangedKeys;
pub use config_maps::{ConfigMapState, ConfigMaps};
pub use index::{Indexed, Term};
pub use mass_deletion::MassDeletionGuard;
pub use referenced::{ObjectState, RETRY as GRANT_RETRY, Referable, ReferencedObjects};
pub use secrets::{SecretState, Secrets};
pub use shim_pods::ShimPods;
pub(crate) use slim::slim_function;
use slim::strip;

use crate::backoff::Backoff;
use crds::{EdgeFunction, EdgeNode, EdgeRevision, HostClaim, RolloutPolicy, claimed_host};

/// Delay before a watch is started again. Only a few replicas watch, not thousands of nodes, so it stays short: while a
/// replica receives no changes, its nodes receive none either. With kube's default backoff, the nodes of a replica
/// received no changes for a minute after the API server was available again.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));

/// The caches of whole kinds of a replica. Clones are cheap.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    /// Functions, which users write.
    pub functions: Cache<EdgeFunction>,
    /// Revisions of functions.
    pub revisions: Cache<EdgeRevision>,
    /// Reusable rollout policies.
    pub policies: Cache<RolloutPolicy>,
    /// Claims of namespaces on hosts.
    pub claims: Cache<HostClaim>,
    /// Last reports about the shims.
    pub edge_nodes: Cache<EdgeNode>,
    /// Nodes of the cluster, without their status.
    pub nodes: Cache<Node>,
}

/// A change of a cached object.
#[derive(Debug, Clone)]
pub enum CacheChange {
    /// A function was written. With the terms that its previous version had and this one does not.
    Function(ObjectKey, Vec<Term>),
    /// A function was deleted. With the version of its deletion (0 when a list no longer had it), and the terms that
    /// it had.
    FunctionGone(ObjectKey, u64, Vec<Term>),
    /// A revision of this function was written or deleted.
    Revision(ObjectKey),
    /// A policy was written or deleted.
    Policy(ObjectKey),
    /// The owner of a host changed.
    Claim(String),
    /// The node of this name joined, left, or changed its labels, or its node-shim was seen first.
    Node(String),
}

impl Caches {
    /// Returns the futures that watch every kind; they run until the process ends.
    #[must_use]
    pub fn watch(
        &self,
        client: &Client,
        changed: &mpsc::UnboundedSender<CacheChange>,
    ) -> Vec<BoxFuture<'static, ()>> {
        let send = {
            let changed = changed.clone();
            move |change: CacheChange| {
                // The receiver lives until the process ends.
                let _ = changed.send(change);
            }
        };
        let mut all = Vec::from(self.watch_served(client, send.clone()));
        all.extend(self.watch_references(client, send.clone()));
        all.extend(self.watch_nodes(client, send));
        all
    }

    /// Watches what nodes serve: functions and their revisions.
    fn watch_served(
        &self,
        client: &Client,
        send: impl Fn(CacheChange) + Clone + Send + 'static,
    ) -> [BoxFuture<'static, ()>; 2] {
        let sender = send.clone();
        let functions = self.functions.watch(
            Api::all(client.clone()),
            MassDeletionGuard::Held,
            slim_function,
            move |change| {
                sender(match change {
                    Change::Applied(object, dropped) => {
                        CacheChange::Function(ObjectKey::of(&*object), dropped)
                    }
                    Change::Deleted(object, version) => {
                        let terms = object.terms().into_iter().collect();
                        CacheChange::FunctionGone(ObjectKey::of(&*object), version, terms)
                    }
                    Change::Vanished(key, version) => {
                        CacheChange::FunctionGone(key, version, Vec::new())
                    }
                });
            },
        );
        let revisions = self.revisions.watch(
            Api::all(client.clone()),
            MassDeletionGuard::Held,
            strip,
            move |change| {
                let Some(object) = change.into_object() else {
                    return;
                };
                let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
                send(CacheChange::Revision(ObjectKey::new(
                    namespace,
                    &object.spec.function,
                )));
            },
        );
        [functions, revisions]
    }

    /// Watches policies and claims. Functions that still need a deleted claim create it again.
    fn watch_references(
        &self,
        client: &Client,
        send: impl Fn(CacheChange) + Clone + Send + 'static,
    ) -> [BoxFuture<'static, ()>; 2] {
        let free = MassDeletionGuard::Free;
        let sender = send.clone();
        let policies = self
            .policies
            .watch(Api::all(client.clone()), free, strip, move |change| {
                if let Some(policy) = change.into_object() {
                    sender(CacheChange::Policy(ObjectKey::of(&*policy)));
                }
            });
        let claims = self
            .claims
            .watch(Api::all(client.clone()), free, strip, move |change| {
                send(CacheChange::Claim(match change {
                    // Its name alone says which host is free again.
                    Change::Vanished(key, _) => claimed_host(&key.name),
                    Change::Applied(claim, _) | Change::Deleted(claim, _) => {
                        claim.spec.host.clone()
                    }
                }));
            });
        [policies, claims]
    }

    /// Watches the nodes of the cluster and their node-shims.
    fn watch_nodes(
        &self,
        client: &Client,
        send: impl Fn(CacheChange) + Clone + Send + 'static,
    ) -> [BoxFuture<'static, ()>; 2] {
        let sender = send.clone();
        // Shims report changes all the time, but placement depends only on whether a shim exists.
        let edge_nodes = self.edge_nodes.watch_if(
            Api::all(client.clone()),
            strip,
            |_, _| false,
            move |change| {
                if let Some(node) = change.into_object() {
                    sender(CacheChange::Node(node.name_any()));
                }
            },
        );
        let slim = |node: &mut Node| {
            strip(node);
            node.metadata.annotations = None;
            node.status = None;
        };
        // A kubelet updates its node every few minutes, but only labels and names matter here.
        let nodes = self.nodes.watch_if(
            Api::all(client.clone()),
            slim,
            labels_differ,
            move |change| {
                if let Some(node) = change.into_object() {
                    send(CacheChange::Node(node.name_any()));
                }
            },
        );
        [edge_nodes, nodes]
    }

    /// Waits until every cache holds a complete list.
    pub async fn filled(&self) {
        tokio::join!(
            self.functions.filled(),
            self.revisions.filled(),
            self.policies.filled(),
            self.claims.filled(),
            self.edge_nodes.filled(),
            self.nodes.filled(),
        );
    }

    /// Whether every cache holds a complete list.
    #[must_use]
    pub fn are_filled(&self) -> bool {
        self.functions.is_filled()
            && self.revisions.is_filled()
            && self.policies.is_filled()
            && self.claims.is_filled()
            && self.edge_nodes.is_filled()
            && self.nodes.is_filled()
    }
}

fn labels_differ(old: &Node, new: &Node) -> bool {
    old.metadata.labels != new.metadata.labels
}
