//! Caches of what the API server has, one per kind, and who is told when they change.

mod cache;
mod index;
mod mass_deletion;
mod backoff;
pub(crate) mod quorum;
mod secrets;

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{Api, Client};
use tokio::sync::mpsc;

pub(crate) use cache::version;
pub use cache::{Cache, Change, ObjectKey};
pub use index::{Indexed, Term};
pub use mass_deletion::MassDeletionGuard;
pub use secrets::{RETRY as SECRET_RETRY, SecretState, Secrets};

use crds::{EdgeFunction, EdgeNode, EdgeRevision, HostClaim, RolloutPolicy};

/// Everything a replica knows of the cluster. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    /// What users want.
    pub functions: Cache<EdgeFunction>,
    /// Versions of it.
    pub revisions: Cache<EdgeRevision>,
    /// Reusable rollout descriptions.
    pub policies: Cache<RolloutPolicy>,
    /// Which namespace owns which host.
    pub claims: Cache<HostClaim>,
    /// What was last reported of the shims.
    pub edge_nodes: Cache<EdgeNode>,
    /// The cluster's nodes, without their status.
    pub nodes: Cache<Node>,
    /// Configuration that functions may refer to.
    pub config_maps: Cache<ConfigMap>,
}

/// Which object changed.
#[derive(Debug, Clone)]
pub enum Changed {
    /// A function was written; the terms that its former version had and this one does not.
    Function(ObjectKey, Vec<Term>),
    /// A function was deleted; the version is that of its deletion, 0 when a list no longer had it. With the terms that it
    /// had.
    FunctionGone(ObjectKey, u64, Vec<Term>),
    /// A revision was written or deleted; the function it belongs to.
    Revision(ObjectKey),
    /// A policy was written or deleted.
    Policy(ObjectKey),
    /// A host changed hands.
    Claim(String),
    /// A node came, went, or changed its labels.
    Node,
    /// A ConfigMap was written or deleted.
    ConfigMap(ObjectKey),
}

impl Caches {
    /// Watches every kind until the process ends; each future runs for ever.
    #[must_use]
    pub fn watch(
        &self,
        client: &Client,
        changed: &mpsc::UnboundedSender<Changed>,
    ) -> Vec<BoxFuture<'static, ()>> {
        let tell = |changed: &mpsc::UnboundedSender<Changed>| {
            let sender = changed.clone();
            move |change: Changed| {
                // The receiver ends with the process.
                let _ = sender.send(change);
            }
        };
        let send = tell(changed);
        let functions = self.functions.watch(
            Api::all(client.clone()),
            MassDeletionGuard::Held,
            |_| {},
            move |change| match change {
                Change::Applied(object, dropped) => {
                    send(Changed::Function(ObjectKey::of(&*object), dropped))
                }
                Change::Deleted(object, version) => {
                    let terms = object.terms().into_iter().collect();
                    send(Changed::FunctionGone(
                        ObjectKey::of(&*object),
                        version,
                        terms,
                    ))
                }
            },
        );
        let send = tell(changed);
        let revisions = self.revisions.watch(
            Api::all(client.clone()),
            MassDeletionGuard::Held,
            strip,
            move |change| {
                let object: Arc<EdgeRevision> = change.into_object();
                let namespace = object.metadata.namespace.clone().unwrap_or_default();
                send(Changed::Revision(ObjectKey::new(
                    &namespace,
                    &object.spec.function,
                )));
            },
        );
        let send = tell(changed);
        let policies = self.policies.watch(
            Api::all(client.clone()),
            MassDeletionGuard::Free,
            strip,
            move |change| {
                send(Changed::Policy(ObjectKey::of(&*change.into_object())));
            },
        );
        let send = tell(changed);
        let claims = self.claims.watch(
            Api::all(client.clone()),
            // A claim that vanishes is taken again by whoever still needs it.
            MassDeletionGuard::Free,
            strip,
            move |change| {
                send(Changed::Claim(change.into_object().spec.host.clone()));
            },
        );
        let send = tell(changed);
        // What a shim reports changes all the time; that there is one decides placement.
        let edge_nodes = self.edge_nodes.watch_if(
            Api::all(client.clone()),
            strip,
            |_, _| false,
            move |_| send(Changed::Node),
        );
        let send = tell(changed);
        let slim = |node: &mut Node| {
            strip(node);
            node.metadata.annotations = None;
            node.status = None;
        };
        // A kubelet writes its node every few minutes; only labels and names matter here.
        let nodes = self
            .nodes
            .watch_if(Api::all(client.clone()), slim, labels_differ, move |_| {
                send(Changed::Node)
            });
        let send = tell(changed);
        let config_maps = self.config_maps.watch(
            Api::all(client.clone()),
            MassDeletionGuard::Free,
            strip,
            move |change| {
                send(Changed::ConfigMap(ObjectKey::of(&*change.into_object())));
            },
        );
        vec![
            functions,
            revisions,
            policies,
            claims,
            edge_nodes,
            nodes,
            config_maps,
        ]
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
            self.config_maps.filled(),
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
            && self.config_maps.is_filled()
    }
}

/// Field ownership is half of an object and read nowhere but on functions.
fn strip<K: kube::Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn labels_differ(old: &Node, new: &Node) -> bool {
    old.metadata.labels != new.metadata.labels
}
