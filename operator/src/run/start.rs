//! The start of a replica, in stages: fill the caches, project the tables, serve nodes, lead.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crds::EdgeFunction;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::{mpsc, watch};

use super::lead;
use super::shared::Shared;
use super::tasks::Tasks;
use crate::certificate_secret;
use crate::dispatch::QueueAllReason;
use crate::failure_log::FailureLog;
use crate::lease::LeaseHandle;
use crate::reconcile::{self, api};
use crate::watch::{CacheChange, ObjectKey, SecretState};

/// Maximum wait at start for the Secrets that were requested.
const SECRETS: Duration = Duration::from_secs(5);
/// Maximum wait at start for the addresses of the nodes.
const ADDRESSES: Duration = Duration::from_secs(5);

/// Changes that the caches receive.
pub(super) struct Received {
    /// Changes of kinds that are watched as a whole.
    pub(super) objects: mpsc::UnboundedReceiver<CacheChange>,
    /// Secrets whose state changed.
    pub(super) secrets: mpsc::UnboundedReceiver<ObjectKey>,
    /// ConfigMaps whose state changed.
    pub(super) config_maps: mpsc::UnboundedReceiver<ObjectKey>,
}

/// Runs the stages in order.
pub(super) struct Start {
    pub(super) namespace: String,
    pub(super) shared: Shared,
    pub(super) lease: LeaseHandle,
    pub(super) reconciler: Arc<reconcile::Context>,
}

impl Start {
    pub(super) async fn run(self, received: Received) -> anyhow::Result<()> {
        let own_key = ObjectKey::new(&self.namespace, certificate_secret::NAME);
        let mut tasks = Tasks::default();
        let (loaded, is_loaded) = watch::channel(false);
        let load = self.load_certificate_secret(own_key.clone(), loaded);
        let dispatch = &self.shared.dispatch;
        let follow = dispatch.clone().follow_secrets(received.secrets, load);
        tasks.follow("the watch of Secrets", follow);
        let restore = self.shared.own.clone().restore(
            self.shared.client.clone(),
            self.namespace.clone(),
            self.shared.secrets.clone(),
        );
        tasks.follow("the restoration of the operator's Secret", restore);
        // The first read of a Secret starts its watch.
        let _ = self.shared.secrets.get(&own_key);
        let caches = &self.shared.caches;
        caches.filled().await;
        tracing::info!(
            functions = caches.functions.len(),
            nodes = caches.nodes.len(),
            "caches are filled"
        );
        let follow = dispatch.clone().follow_caches(received.objects);
        tasks.follow("the watch of objects", follow);
        let secrets = self.shared.secrets.clone();
        let forget = dispatch.clone().forget_secrets(secrets, own_key.clone());
        tasks.follow("the garbage collection of Secrets", forget);
        // Only a reconcile reads ConfigMaps, so they are no part of what has to be read before nodes are served.
        let follow = dispatch.clone().follow_config_maps(received.config_maps);
        tasks.follow("the watch of ConfigMaps", follow);
        let config_maps = self.shared.config_maps.clone();
        let forget = dispatch.clone().forget_config_maps(config_maps);
        tasks.follow("the garbage collection of ConfigMaps", forget);
        tokio::select! {
            () = self.await_certificate_secret(&own_key, is_loaded) => {}
            error = tasks.ended() => return Err(error),
        }
        self.serve().await;
        tasks.follow("the leader's work", lead::lead(self));
        Err(tasks.ended().await)
    }

    /// Takes over each version of the operator's own Secret.
    fn load_certificate_secret(
        &self,
        own_key: ObjectKey,
        loaded: watch::Sender<bool>,
    ) -> impl Fn(&ObjectKey) + Send + use<> {
        let shared = self.shared.clone();
        move |changed| {
            if *changed != own_key {
                return;
            }
            let secret = match shared.secrets.get(&own_key) {
                SecretState::Present(secret) => secret,
                SecretState::Missing => return shared.own.report_deletion(),
                _ => return,
            };
            match shared.own.load(&secret) {
                Ok(()) => {
                    loaded.send_replace(true);
                    shared.dispatch.projector.refresh_all();
                    shared
                        .dispatch
                        .queue_all(&QueueAllReason::CertificateSecret);
                }
                Err(error) => tracing::error!(%error, "the operator's own Secret cannot be used"),
            }
        }
    }

    /// Waits for the operator's own Secret, which the leader creates.
    async fn await_certificate_secret(&self, key: &ObjectKey, mut loaded: watch::Receiver<bool>) {
        let mut log = FailureLog::default();
        loop {
            if *loaded.borrow_and_update() {
                return;
            }
            let leads = self.lease.leadership().borrow().epoch.is_some();
            if leads
                && matches!(self.shared.secrets.get(key), SecretState::Missing)
                && let Err(error) =
                    certificate_secret::create(&self.shared.client, &key.namespace).await
                && let Some(failures) = log.failed(&error)
            {
                tracing::error!(%error, failures, "the operator's own Secret could not be created");
            }
            let _ = tokio::time::timeout(Duration::from_millis(500), loaded.changed()).await;
        }
    }

    /// Projects everything once, then opens the tables to the nodes.
    async fn serve(&self) {
        let Shared {
            dispatch, tables, ..
        } = &self.shared;
        dispatch.projector.label_nodes(&mut Default::default());
        dispatch.projector.refresh_all();
        let known = async {
            while !dispatch.projector.secrets_known() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(SECRETS, known).await.is_err() {
            tracing::warn!(
                "some Secrets are not loaded yet; their functions answer 503 until then"
            );
        }
        let addresses = self.shared.shim_pods.filled();
        if tokio::time::timeout(ADDRESSES, addresses).await.is_err() {
            tracing::warn!(
                "the pods of the node-shims are not known yet; until then, nodes keep the addresses of each other that they have"
            );
        }
        let version = self.current_version().await;
        tables.synced(version);
        self.shared.serving.store(true, Ordering::Release);
        tracing::info!(version, functions = tables.len(), "serving nodes");
    }

    /// Version of the API server that is later than everything in the caches, because deletions before it are not recorded in
    /// the tables. Only metadata is read, so that an object that cannot be decoded does not prevent serving.
    async fn current_version(&self) -> u64 {
        let functions: Api<EdgeFunction> = Api::all(self.shared.client.clone());
        let one = ListParams::default().limit(1);
        let mut log = FailureLog::default();
        loop {
            match api::call(functions.list_metadata(&one)).await {
                Ok(list) => {
                    let version = list.metadata.resource_version;
                    return version
                        .and_then(|version| version.parse().ok())
                        .unwrap_or(0);
                }
                Err(error) => {
                    if let Some(failures) = log.failed(&error) {
                        tracing::warn!(%error, failures, "the API server returned no version; retrying");
                    }
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
