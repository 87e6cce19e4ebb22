//! Who is concerned when something changes: tables are projected at once on every replica, functions are
//! queued for the leader.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use crds::EdgeFunction;
use crds::conditions::{reasons, types};
use tokio::sync::mpsc;

use crate::node_api::Changes;
use crate::queue::Queue;
use crate::reconcile::Projector;
use crate::validate::references;
use crate::watch::{Caches, Changed, ObjectKey, Secrets};

/// Between two looks for Secrets that nothing refers to.
const FORGET: Duration = Duration::from_secs(60);
/// Changes of nodes are collected for this long: a DaemonSet that starts is many of them.
const NODES: Duration = Duration::from_millis(300);

/// Sends changes to where they matter.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// What is known.
    pub caches: Caches,
    /// Tables of this replica.
    pub projector: Projector,
    /// The leader's work.
    pub queue: Queue,
}

impl Dispatch {
    /// Queues every function, e.g. when this replica begins to lead.
    pub fn everything(&self) {
        for key in self.caches.functions.all().keys() {
            self.queue.push(key);
        }
    }

    /// Follows the caches until they end.
    pub async fn follow_caches(self, mut changes: mpsc::UnboundedReceiver<Changed>) {
        let mut labelled = BTreeSet::new();
        let mut nodes_changed = false;
        loop {
            let change = if nodes_changed {
                match tokio::time::timeout(NODES, changes.recv()).await {
                    Ok(change) => change,
                    Err(_) => {
                        nodes_changed = false;
                        self.nodes(&mut labelled);
                        continue;
                    }
                }
            } else {
                changes.recv().await
            };
            match change {
                None => return,
                Some(Changed::Node) => nodes_changed = true,
                Some(change) => self.one(&change),
            }
        }
    }

    /// Follows what nodes say.
    pub async fn follow_fleet(self, mut changes: Changes) {
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

    /// Follows Secrets.
    pub async fn follow_secrets(
        self,
        mut changes: mpsc::UnboundedReceiver<ObjectKey>,
        own: impl Fn(&ObjectKey),
    ) {
        while let Some(secret) = changes.recv().await {
            own(&secret);
            let refers = |function: &EdgeFunction| {
                let found = references(function);
                found.secrets.contains(&*secret.name)
                    || found.pull_secrets.iter().any(|name| **name == *secret.name)
            };
            for function in self
                .caches
                .functions
                .in_namespace(&secret.namespace, refers)
            {
                self.concern(&function);
            }
            // A revision may still refer to what the function no longer does.
            let revisions = self
                .caches
                .revisions
                .in_namespace(&secret.namespace, |revision| {
                    crate::reconcile::project::secrets_of(revision).contains(&*secret.name)
                });
            for revision in revisions {
                let function = ObjectKey::new(&secret.namespace, &revision.spec.function);
                self.projector.refresh(&function);
                // its status says whether the values of its revisions are known
                self.queue.push(&function);
            }
        }
    }

    /// Lets go of Secrets that nothing refers to any more, for ever; `own` is always kept.
    pub async fn forget_secrets(self, secrets: Secrets, own: ObjectKey) {
        loop {
            tokio::time::sleep(FORGET).await;
            let mut referred = HashSet::from([own.clone()]);
            for (key, function) in self.caches.functions.all() {
                let found = references(&function);
                let names = found.secrets.iter().chain(&found.pull_secrets);
                referred.extend(names.map(|name| ObjectKey::new(&key.namespace, name)));
            }
            for (key, revision) in self.caches.revisions.all() {
                let pull = revision
                    .spec
                    .image_pull_secrets
                    .iter()
                    .map(|secret| secret.name.clone());
                let names = crate::reconcile::project::secrets_of(&revision)
                    .into_iter()
                    .chain(pull);
                referred.extend(names.map(|name| ObjectKey::new(&key.namespace, &name)));
            }
            secrets.retain(&referred);
            self.projector.forget_values();
        }
    }

    fn one(&self, change: &Changed) {
        match change {
            Changed::Function(key) => {
                self.projector.refresh(key);
                self.queue.push(key);
                self.siblings(key);
            }
            Changed::FunctionGone(key, version) => {
                self.projector.remove(key, *version);
                self.queue.push(key);
                self.siblings(key);
            }
            Changed::Revision(key) => {
                self.projector.refresh(key);
                if self.caches.functions.get(key).is_some() {
                    self.queue.push(key);
                }
            }
            Changed::Policy(policy) => {
                let refers = |function: &EdgeFunction| {
                    references(function).policy.as_deref() == Some(&*policy.name)
                };
                for function in self
                    .caches
                    .functions
                    .in_namespace(&policy.namespace, refers)
                {
                    self.queue.push(&ObjectKey::of(&*function));
                }
            }
            Changed::ConfigMap(map) => {
                let refers =
                    |function: &EdgeFunction| references(function).config_maps.contains(&*map.name);
                for function in self.caches.functions.in_namespace(&map.namespace, refers) {
                    self.queue.push(&ObjectKey::of(&*function));
                }
            }
            Changed::Claim(host) => {
                let concerned = |function: &EdgeFunction| {
                    is_refused(function, reasons::HOST_CONFLICT)
                        || function
                            .spec
                            .routes
                            .iter()
                            .any(|route| route.hosts.contains(host))
                };
                for function in self
                    .caches
                    .functions
                    .filter(|_, function| concerned(function))
                {
                    self.queue.push(&ObjectKey::of(&*function));
                }
            }
            Changed::Node => {}
        }
    }

    /// Functions of the namespace that wait for another one's routes.
    fn siblings(&self, key: &ObjectKey) {
        let waits = |function: &EdgeFunction| is_refused(function, reasons::ROUTE_CONFLICT);
        for function in self.caches.functions.in_namespace(&key.namespace, waits) {
            self.queue.push(&ObjectKey::of(&*function));
        }
    }

    fn nodes(&self, labelled: &mut BTreeSet<String>) {
        self.projector.label_nodes(labelled);
        self.projector.refresh_all();
        self.everything();
    }

    fn concern(&self, function: &EdgeFunction) {
        let key = ObjectKey::of(function);
        self.projector.refresh(&key);
        self.queue.push(&key);
    }
}

fn is_refused(function: &EdgeFunction, reason: &str) -> bool {
    let conditions = function
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == types::ACCEPTED && condition.reason == reason)
}
