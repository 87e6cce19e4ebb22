//! What the parts of the operator share, and the parts that are built from it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use kube::Client;
use tokio::sync::{mpsc, watch};

use super::args::RunArgs;
use super::tasks::Tasks;
use crate::admin::Readiness;
use crate::blobs::Components;
use crate::certificate_secret::CertificateSecret;
use crate::dispatch::Dispatch;
use crate::lease::{Leadership, LeaseHandle};
use crate::metrics::Metrics;
use crate::node_api::{Fleet, KubeReviewer, Leader, Meter, Server, Tables};
use crate::queue::Queue;
use crate::reconcile::{self, Projector, Reporter, StatusRateLimit};
use crate::resolve::Resolver;
use crate::watch::{Caches, ConfigMaps, ObjectKey, Secrets, ShimPods};

/// What the parts of the operator share. Clones share the state.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) caches: Caches,
    pub(super) secrets: Secrets,
    pub(super) config_maps: ConfigMaps,
    pub(super) shim_pods: ShimPods,
    pub(super) own: CertificateSecret,
    pub(super) tables: Tables,
    pub(super) fleet: Fleet,
    pub(super) dispatch: Dispatch,
    pub(super) metrics: Metrics,
    /// Whether nodes are served.
    pub(super) serving: Arc<AtomicBool>,
    resolver: Arc<Resolver>,
}

impl Shared {
    /// Builds the state; nothing runs yet. Changes of Secrets and of ConfigMaps are sent to `secret_changed` and
    /// `config_map_changed`.
    pub(super) fn new(
        args: &RunArgs,
        client: Client,
        secret_changed: mpsc::UnboundedSender<ObjectKey>,
        config_map_changed: mpsc::UnboundedSender<ObjectKey>,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::new().context("metrics")?;
        let caches = Caches::default();
        let secrets = Secrets::new(client.clone(), secret_changed);
        let config_maps = ConfigMaps::new(client.clone(), config_map_changed);
        let own = CertificateSecret::default();
        let tables = Tables::new();
        let settings = args.node_api();
        let fleet = Fleet::new(tables.clone(), settings.silence, settings.unsupervised_ttl);
        let projector = Projector::new(
            caches.clone(),
            secrets.clone(),
            tables.clone(),
            Arc::clone(&own.hash_key),
        )
        .with_hash_key_since(Arc::clone(&own.hash_key_since));
        let resolver = Resolver::new(args.insecure_registries.clone());
        Ok(Self {
            client,
            dispatch: Dispatch {
                caches: caches.clone(),
                projector,
                queue: Queue::default(),
                metrics: metrics.clone(),
            },
            caches,
            secrets,
            config_maps,
            shim_pods: ShimPods::default(),
            own,
            tables,
            fleet,
            metrics,
            serving: Arc::default(),
            resolver: Arc::new(resolver.context("TLS client for registries")?),
        })
    }

    /// The context of the reconciler, which calls the API server through `client`. Events are written by one of `tasks`.
    pub(super) fn reconciler(
        &self,
        args: &RunArgs,
        client: Client,
        tasks: &mut Tasks,
    ) -> anyhow::Result<Arc<reconcile::Context>> {
        let (reporter, events) =
            Reporter::new(self.client.clone(), self.metrics.clone(), &args.pod_name);
        tasks.follow("the Events", events);
        Ok(Arc::new(reconcile::Context {
            client,
            caches: self.caches.clone(),
            secrets: self.secrets.clone(),
            config_maps: self.config_maps.clone(),
            resolver: Arc::clone(&self.resolver),
            fleet: self.fleet.clone(),
            projector: self.dispatch.projector.clone(),
            source: args.prometheus_queries(&self.metrics, &self.fleet, &self.dispatch.queue)?,
            metrics: self.metrics.clone(),
            queue: self.dispatch.queue.clone(),
            reporter,
            hash_key: Arc::clone(&self.own.hash_key),
            settings: args.reconcile(),
            contexts: Default::default(),
            slots: Default::default(),
            status_rate_limit: StatusRateLimit::default(),
            failure_log: Default::default(),
        }))
    }

    /// The server of the node API. The address of the leader is followed by one of `tasks`.
    pub(super) fn server(
        &self,
        args: &RunArgs,
        lease: &LeaseHandle,
        identity: String,
        tasks: &mut Tasks,
    ) -> anyhow::Result<Server> {
        let (send, leader) = watch::channel(None);
        let leadership = lease.leadership();
        tasks.follow(
            "the leader's address",
            follow_leader(leadership, identity, send),
        );
        let (caches, secrets) = (self.caches.clone(), self.secrets.clone());
        let resolver = Arc::clone(&self.resolver);
        Ok(Server {
            settings: args.node_api(),
            tables: self.tables.clone(),
            fleet: self.fleet.clone(),
            tls: self.own.tls.clone(),
            reviewer: Arc::new(KubeReviewer::new(self.client.clone())),
            blobs: Arc::new(Components::new(caches, secrets, resolver)),
            leader,
            meter: Meter::new(self.metrics.registry()).context("metrics of the node API")?,
        })
    }

    /// Names what is not ready yet.
    pub(super) fn readiness(&self) -> Readiness {
        let shared = self.clone();
        Arc::new(move || {
            if !shared.caches.are_filled() {
                Some("the caches")
            } else if !shared.own.tls.is_loaded() {
                Some("the Secret selvage-node-api")
            } else if !shared.serving.load(Ordering::Acquire) {
                Some("the node tables")
            } else {
                None
            }
        })
    }
}

/// Publishes the address of the leader for the relay of the node API.
async fn follow_leader(
    mut leadership: watch::Receiver<Leadership>,
    identity: String,
    send: watch::Sender<Option<Leader>>,
) {
    loop {
        let leader = leader(&leadership.borrow_and_update(), &identity);
        send.send_if_modified(|current| {
            let changed = *current != leader;
            *current = leader;
            changed
        });
        if leadership.changed().await.is_err() {
            // The election has ended and reports the reason; do not report a second one.
            std::future::pending::<()>().await;
        }
    }
}

/// Reads the leader from its identity, `<pod>/<address of the node API>`.
fn leader(leadership: &Leadership, identity: &str) -> Option<Leader> {
    let holder = leadership.holder.as_ref()?;
    let address: SocketAddr = holder.rsplit_once('/')?.1.parse().ok()?;
    Some(Leader {
        address,
        is_self: holder == identity,
    })
}
