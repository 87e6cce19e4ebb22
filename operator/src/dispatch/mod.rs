//! Routes changes to the parts that they concern: every replica projects node tables at once, and the leader queues
//! functions.

mod queue_all;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crds::conditions::reasons;
use crds::{EdgeFunction, host_claim_name};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::index_terms::is_refused;
use crate::metrics::Metrics;
use crate::node_api::FleetSubscription;
use crate::queue::Queue;
use crate::reconcile::{Projector, contested_hosts, hosts_overlap, table_projection};
use crate::validate::references;
use crate::watch::{CacheChange, Caches, ConfigMaps, ObjectKey, Secrets, Term};
pub use queue_all::QueueAllReason;

/// Interval between two searches for Secrets and ConfigMaps that no object refers to.
const FORGET: Duration = Duration::from_secs(60);
/// Changes of nodes are collected for this long, because a starting DaemonSet causes many of them.
const NODES: Duration = Duration::from_millis(300);

/// Sends changes to the node tables and to the reconcile queue.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Caches of the API server's objects.
    pub caches: Caches,
    /// Node tables of this replica.
    pub projector: Projector,
    /// Work queue of the leader.
    pub queue: Queue,
    /// Metrics of the operator.
    pub metrics: Metrics,
}

impl Dispatch {
    /// Queues every function.
    pub fn queue_all(&self, reason: &QueueAllReason) {
        let functions = self.caches.functions.all();
        self.metrics.queued_all(reason.label());
        let count = functions.len();
        tracing::info!(functions = count, "all functions are queued: {reason}");
        for key in functions.keys() {
            self.queue.push(key);
        }
    }

    /// Handles changes of cached objects until the channel closes.
    pub async fn follow_caches(self, mut changes: mpsc::UnboundedReceiver<CacheChange>) {
        let mut labelled = BTreeSet::new();
        let mut nodes = BTreeSet::new();
        // Counts from the first change of a node: other changes must not postpone it, and they may never pause.
        let mut due = None;
        loop {
            if due.is_some_and(|due| due <= Instant::now()) {
                due = None;
                self.refresh_nodes(&mut labelled, std::mem::take(&mut nodes));
            }
            let next = match due {
                None => Ok(changes.recv().await),
                Some(due) => tokio::time::timeout_at(due, changes.recv()).await,
            };
            match next {
                Err(_) => {}
                Ok(None) => return,
                Ok(Some(CacheChange::Node(node))) => {
                    nodes.insert(node);
                    due.get_or_insert_with(|| Instant::now() + NODES);
                }
                Ok(Some(change)) => self.handle(&change),
            }
        }
    }

    /// Handles reports of nodes until the channel closes.
    pub async fn follow_fleet(self, mut changes: FleetSubscription) {
        loop {
            let changed = changes.next().await;
            for function in changed.functions {
                let key = ObjectKey {
                    namespace: function.namespace,
                    name: function.name,
                };
                if self.caches.functions.get(&key).is_some() {
                    self.queue.push(&key);
                }
            }
        }
    }

    /// Handles changes of Secrets until the channel closes.
    pub async fn follow_secrets(
        self,
        mut changes: mpsc::UnboundedReceiver<ObjectKey>,
        own: impl Fn(&ObjectKey),
    ) {
        while let Some(secret) = changes.recv().await {
            own(&secret);
            let refers = Term::Secret(secret.clone());
            for function in self.caches.functions.find(&refers) {
                self.refresh_and_queue(&function);
            }
            // A revision may still refer to a Secret that the function no longer refers to.
            for revision in self.caches.revisions.find(&refers) {
                let function = ObjectKey::new(&secret.namespace, &revision.spec.function);
                self.projector.refresh(&function);
                // The status shows whether the values of its revisions are available.
                self.queue.push(&function);
            }
        }
    }

    /// Handles changes of ConfigMaps until the channel closes. Nodes read none, so their tables stay as they are.
    pub async fn follow_config_maps(self, mut changes: mpsc::UnboundedReceiver<ObjectKey>) {
        while let Some(map) = changes.recv().await {
            self.push_all(self.caches.functions.find(&Term::ConfigMap(map)));
        }
    }

    /// Periodically forgets ConfigMaps that no function refers to, and never returns.
    pub async fn forget_config_maps(self, config_maps: ConfigMaps) {
        loop {
            tokio::time::sleep(FORGET).await;
            let functions = &self.caches.functions;
            config_maps.retain(|key| !functions.find(&Term::ConfigMap(key.clone())).is_empty());
        }
    }

    /// Periodically forgets Secrets that no object refers to, and never returns; `own` is always kept.
    pub async fn forget_secrets(self, secrets: Secrets, own: ObjectKey) {
        loop {
            tokio::time::sleep(FORGET).await;
            let mut referred = HashSet::from([own.clone()]);
            for (key, function) in self.caches.functions.all() {
                let found = references(&function);
                let names = found.secrets.iter().chain(&found.pull_secrets);
                let names = names.map(String::as_str);
                // of routes that are served although the spec no longer has them
                let names = names.chain(table_projection::certificates_of(&function));
                referred.extend(names.map(|name| ObjectKey::new(&key.namespace, name)));
            }
            for (key, revision) in self.caches.revisions.all() {
                let pull = revision
                    .spec
                    .image_pull_secrets
                    .iter()
                    .map(|secret| secret.name.clone());
                let names = table_projection::secrets_of(&revision)
                    .into_iter()
                    .chain(pull);
                referred.extend(names.map(|name| ObjectKey::new(&key.namespace, &name)));
            }
            secrets.retain(|key| referred.contains(key));
            self.projector
                .certificates
                .retain(|key| referred.contains(key));
            self.projector.forget_values();
        }
    }

    fn handle(&self, change: &CacheChange) {
        match change {
            CacheChange::Function(key, dropped) => {
                self.projector.refresh(key);
                self.queue.push(key);
                self.queue_refused(dropped);
            }
            CacheChange::FunctionGone(key, version, terms) => {
                self.projector.remove(key, *version);
                self.queue.push(key);
                self.queue_refused(terms);
            }
            CacheChange::Revision(key) => {
                self.projector.refresh(key);
                if self.caches.functions.get(key).is_some() {
                    self.queue.push(key);
                }
            }
            CacheChange::Policy(policy) => {
                self.push_all(self.caches.functions.find(&Term::Policy(policy.clone())));
            }
            CacheChange::Claim(host) => {
                self.push_all(self.caches.functions.find(&Term::Host(host.clone())));
                let mut refused = self.caches.functions.find(&Term::HostConflict);
                refused.retain(|function| {
                    let mut hosts = function.spec.routes.iter().flat_map(|route| &route.hosts);
                    hosts.any(|wanted| hosts_overlap(wanted, host))
                });
                self.push_all(refused);
                // Only one of two claims that overlap stays. The function of the other one must be refused.
                let claim = ObjectKey::new("", &host_claim_name(host));
                let claim = self.caches.claims.get(&claim);
                for other in claim
                    .iter()
                    .flat_map(|it| contested_hosts(&self.caches, it))
                {
                    self.push_all(self.caches.functions.find(&Term::Host(other)));
                }
            }
            CacheChange::Node(_) => {}
        }
    }

    /// Queues the functions that were refused for a route that another function has released.
    fn queue_refused(&self, terms: &[Term]) {
        let routes = terms.iter().filter(|term| matches!(term, Term::Route(..)));
        for route in routes {
            let mut refused = self.caches.functions.find(route);
            refused.retain(|function| is_refused(function, reasons::ROUTE_CONFLICT));
            self.push_all(refused);
        }
    }

    fn push_all(&self, functions: Vec<Arc<EdgeFunction>>) {
        for function in functions {
            self.queue.push(&ObjectKey::of(&*function));
        }
    }

    fn refresh_nodes(&self, labelled: &mut BTreeSet<String>, changed: BTreeSet<String>) {
        self.projector.label_nodes(labelled);
        self.projector.refresh_all();
        self.queue_all(&QueueAllReason::Nodes(changed));
    }

    fn refresh_and_queue(&self, function: &EdgeFunction) {
        let key = ObjectKey::of(function);
        self.projector.refresh(&key);
        self.queue.push(&key);
    }
}
