//! `operator run`: starts caches, election, node API and reconciler, and waits until one of them ends.

mod args;
mod lead;

pub use args::{LogFormat, RunArgs};

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwapOption;
use crds::EdgeFunction;
use kube::api::ListParams;
use kube::{Api, Client, Config};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::blobs::Components;
use crate::certificate_secret::{self, CertificateSecret};
use crate::dispatch::{Dispatch, QueueAllReason};
use crate::lease::{Election, Leadership, LeaseConfig, LeaseHandle};
use crate::measure::{self, Prometheus};
use crate::metrics::Metrics;
use crate::node_api::{
    Fleet, KubeReviewer, Leader, Meter, Server, Settings as NodeApiSettings, Tables, tls,
};
use crate::queue::Queue;
use crate::reconcile::{self, Projector, Reporter, SampleSource, Settings, StatusWrites, api};
use crate::resolve::Resolver;
use crate::watch::{Caches, ObjectKey, SecretState, Secrets};

/// Maximum wait at start for the Secrets that were requested.
const SECRETS: Duration = Duration::from_secs(5);
/// Time that a new leader gives nodes to reconnect before it makes decisions about them.
const SETTLE: Duration = Duration::from_secs(1);

/// Runs until a signal arrives or an essential part ends.
///
/// # Errors
/// The API server cannot be configured, a port is in use, or the lease was lost.
#[expect(
    clippy::too_many_lines,
    reason = "starts every part in order; the parts share its local variables"
)]
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    start_logging(args.log_format)?;
    let unreachable = "no way to reach the API server";
    let config = Config::infer().await.context(unreachable)?;
    let client = Client::try_from(config.clone()).context(unreachable)?;
    let impatient = api::client(config).context(unreachable)?;
    let stop = CancellationToken::new();
    let metrics = Metrics::new().context("metrics")?;
    let meter = Meter::new(metrics.registry()).context("metrics of the node API")?;
    let mut parts: JoinSet<(&'static str, anyhow::Result<()>)> = JoinSet::new();

    let caches = Caches::default();
    let (changed, changes) = mpsc::unbounded_channel();
    for watch in caches.watch(&client, &changed) {
        parts.spawn(async move {
            watch.await;
            ("a watch", Ok(()))
        });
    }
    let (secret_changed, secret_changes) = mpsc::unbounded_channel();
    let secrets = Secrets::new(client.clone(), secret_changed);
    let own = CertificateSecret {
        tls: tls::Store::default(),
        hash_key: Arc::new(ArcSwapOption::empty()),
    };
    let tables = Tables::new();
    let settings = node_api_settings(&args);
    let fleet = Fleet::new(tables.clone(), settings.silence, settings.unsupervised_ttl);
    let projector = Projector::new(
        caches.clone(),
        secrets.clone(),
        tables.clone(),
        Arc::clone(&own.hash_key),
    );
    let dispatch = Dispatch {
        caches: caches.clone(),
        projector: projector.clone(),
        queue: Queue::default(),
        metrics: metrics.clone(),
    };

    let identity = format!(
        "{}/{}",
        args.pod_name,
        SocketAddr::new(
            args.pod_ip.parse().context("--pod-ip")?,
            args.node_api_addr.port()
        )
    );
    let (election, lease) = Election::new(client.clone(), lease_config(&args, &identity));
    let resolver = Arc::new(
        Resolver::new(args.insecure_registries.clone()).context("TLS client for registries")?,
    );
    let (reporter, events) = Reporter::new(client.clone(), metrics.clone(), &args.pod_name);
    let reconciler = Arc::new(reconcile::Context {
        client: impatient,
        caches: caches.clone(),
        secrets: secrets.clone(),
        resolver: Arc::clone(&resolver),
        fleet: fleet.clone(),
        projector: projector.clone(),
        source: sample_source(&args, &metrics)?,
        metrics: metrics.clone(),
        queue: dispatch.queue.clone(),
        reporter,
        hash_key: Arc::clone(&own.hash_key),
        settings: reconcile_settings(&args),
        contexts: Default::default(),
        slots: Default::default(),
        status_writes: StatusWrites::default(),
    });

    let serving = Arc::new(AtomicBool::new(false));
    let server = Server {
        settings,
        tables: tables.clone(),
        fleet: fleet.clone(),
        tls: own.tls.clone(),
        reviewer: Arc::new(KubeReviewer::new(client.clone())),
        blobs: Arc::new(Components::new(caches.clone(), secrets.clone(), resolver)),
        leader: leader_addresses(lease.leadership(), identity, &mut parts),
        meter,
    };

    let ready = readiness(caches.clone(), own.clone(), Arc::clone(&serving));
    let token = stop.clone();
    parts.spawn(async move {
        (
            "the admin endpoint",
            admin::run(args.admin_addr, metrics, ready, token)
                .await
                .map_err(Into::into),
        )
    });
    let token = stop.clone();
    parts.spawn(async move { ("the lease", election.run(token).await.map_err(Into::into)) });
    let token = stop.clone();
    parts.spawn(async move { ("the node API", server.run(token).await.map_err(Into::into)) });
    parts.spawn(async move {
        events.await;
        ("the Events", Ok(()))
    });
    let (follower, fleet_changes) = (dispatch.clone(), fleet.subscribe());
    parts.spawn(async move {
        follower.follow_fleet(fleet_changes).await;
        ("the fleet", Ok(()))
    });
    let start = Start {
        client,
        args_namespace: args.namespace.clone(),
        caches,
        secrets,
        own,
        tables,
        fleet,
        dispatch,
        lease,
        reconciler,
        serving,
    };
    parts.spawn(async move { ("the reconciler", start.run(changes, secret_changes).await) });

    let outcome = tokio::select! {
        signal = signalled() => signal,
        Some(ended) = parts.join_next() => match ended {
            Ok((_, Err(error))) => Err(error),
            Ok((part, Ok(()))) => Err(anyhow::anyhow!("{part} ended")),
            Err(error) => Err(anyhow::anyhow!("a part failed: {error}")),
        },
    };
    stop.cancel();
    // Releases the lease and lets streams end orderly; parts that need longer are cancelled.
    let _ = tokio::time::timeout(Duration::from_secs(3), async {
        while parts.join_next().await.is_some() {}
    })
    .await;
    outcome
}

/// Runs the stages in order: fill caches, project tables, serve, lead.
struct Start {
    client: Client,
    args_namespace: String,
    caches: Caches,
    secrets: Secrets,
    own: CertificateSecret,
    tables: Tables,
    fleet: Fleet,
    dispatch: Dispatch,
    lease: LeaseHandle,
    reconciler: Arc<reconcile::Context>,
    serving: Arc<AtomicBool>,
}

impl Start {
    async fn run(
        self,
        changes: mpsc::UnboundedReceiver<crate::watch::Changed>,
        secret_changes: mpsc::UnboundedReceiver<ObjectKey>,
    ) -> anyhow::Result<()> {
        let own_key = ObjectKey::new(&self.args_namespace, certificate_secret::NAME);
        let (own, secrets, watched) = (self.own.clone(), self.secrets.clone(), own_key.clone());
        let (loaded, is_loaded) = watch::channel(false);
        let dispatch = self.dispatch.clone();
        let load = move |changed: &ObjectKey| {
            if *changed != watched {
                return;
            }
            let SecretState::Present(secret) = secrets.get(&watched) else {
                return;
            };
            match own.load(&secret) {
                Ok(()) => {
                    loaded.send_replace(true);
                    dispatch.projector.refresh_all();
                    dispatch.queue_all(&QueueAllReason::OwnSecret);
                }
                Err(error) => tracing::error!(%error, "the operator's own Secret cannot be used"),
            }
        };
        let mut tasks = JoinSet::new();
        let follower = self.dispatch.clone();
        tasks.spawn(async move {
            follower.follow_secrets(secret_changes, load).await;
            "the watch of Secrets"
        });
        let _ = self.secrets.get(&own_key);
        self.caches.filled().await;
        tracing::info!(
            functions = self.caches.functions.len(),
            nodes = self.caches.nodes.len(),
            "caches are filled"
        );
        let follower = self.dispatch.clone();
        tasks.spawn(async move {
            follower.follow_caches(changes).await;
            "the watch of objects"
        });
        let (forget, secrets, own) = (self.dispatch.clone(), self.secrets.clone(), own_key.clone());
        tasks.spawn(async move {
            forget.forget_secrets(secrets, own).await;
            "the garbage collection of Secrets"
        });
        tokio::select! {
            () = self.own_secret(&own_key, is_loaded.clone()) => {}
            Some(ended) = tasks.join_next() => return Err(ended_early(ended)),
        }
        self.serve().await?;
        tasks.spawn(async move {
            lead::lead(self).await;
            "the leader's work"
        });
        match tasks.join_next().await {
            Some(ended) => Err(ended_early(ended)),
            None => Ok(()),
        }
    }

    /// Waits for the operator's own Secret, which the leader creates.
    async fn own_secret(&self, key: &ObjectKey, mut loaded: watch::Receiver<bool>) {
        loop {
            if *loaded.borrow_and_update() {
                return;
            }
            let leads = self.lease.leadership().borrow().epoch.is_some();
            if leads
                && matches!(self.secrets.get(key), SecretState::Missing)
                && let Err(error) = certificate_secret::create(&self.client, &key.namespace).await
            {
                tracing::error!(%error, "the operator's own Secret could not be created");
            }
            let _ = tokio::time::timeout(Duration::from_millis(500), loaded.changed()).await;
        }
    }

    /// Projects everything once, then opens the tables to the nodes.
    async fn serve(&self) -> anyhow::Result<()> {
        self.dispatch.projector.label_nodes(&mut Default::default());
        self.dispatch.projector.refresh_all();
        let known = async {
            while !self.dispatch.projector.secrets_known() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(SECRETS, known).await.is_err() {
            tracing::warn!(
                "some Secrets are not loaded yet; their functions answer 503 until then"
            );
        }
        let functions: Api<EdgeFunction> = Api::all(self.client.clone());
        let version = loop {
            // This version must be later than everything in the caches, because deletions before it are not recorded
            // here. Only metadata is read, so that an object that cannot be decoded does not prevent serving.
            match crate::reconcile::api::call(
                functions.list_metadata(&ListParams::default().limit(1)),
            )
            .await
            {
                Ok(list) => {
                    break list
                        .metadata
                        .resource_version
                        .and_then(|version| version.parse().ok())
                        .unwrap_or(0);
                }
                Err(error) => {
                    tracing::warn!(%error, "the API server returned no version; retrying")
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        self.tables.synced(version);
        self.serving.store(true, Ordering::Release);
        tracing::info!(version, functions = self.tables.len(), "serving nodes");
        Ok(())
    }
}

/// Describes the end of a part and its consequence. In a healthy process no part ends.
fn ended_early(ended: Result<&'static str, tokio::task::JoinError>) -> anyhow::Error {
    const NEXT: &str =
        "another replica takes over and nodes keep serving; this replica exits and is restarted";
    match ended {
        Ok(part) => anyhow::anyhow!("{part} ended, which is a bug in the operator; {NEXT}"),
        Err(error) => anyhow::anyhow!("a part of the operator failed ({error}); {NEXT}"),
    }
}

/// Address of the leader for the relay of the node API.
fn leader_addresses(
    mut leadership: watch::Receiver<Leadership>,
    identity: String,
    parts: &mut JoinSet<(&'static str, anyhow::Result<()>)>,
) -> watch::Receiver<Option<Leader>> {
    let (send, receive) = watch::channel(None);
    parts.spawn(async move {
        loop {
            let leader = leadership
                .borrow_and_update()
                .holder
                .as_ref()
                .and_then(|holder| {
                    let address = holder.rsplit_once('/')?.1.parse().ok()?;
                    Some(Leader {
                        address,
                        is_self: *holder == identity,
                    })
                });
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
    });
    receive
}

fn readiness(caches: Caches, own: CertificateSecret, serving: Arc<AtomicBool>) -> admin::Readiness {
    Arc::new(move || {
        if !caches.are_filled() {
            Some("the caches")
        } else if !own.tls.is_loaded() {
            Some("the Secret selvage-node-api")
        } else if !serving.load(Ordering::Acquire) {
            Some("the node tables")
        } else {
            None
        }
    })
}

fn node_api_settings(args: &RunArgs) -> NodeApiSettings {
    let user = |account: &str| format!("system:serviceaccount:{}:{account}", args.namespace);
    NodeApiSettings {
        audience: args.token_audience.clone(),
        shim_user: user(&args.shim_service_account),
        operator_user: user(&args.operator_service_account),
        operator_token: args.operator_token_file.clone(),
        unsupervised_ttl: args.unsupervised_ttl,
        ..NodeApiSettings::new(args.node_api_addr, &args.namespace)
    }
}

fn reconcile_settings(args: &RunArgs) -> Settings {
    Settings {
        service_account: format!("{}:{}", args.namespace, args.operator_service_account),
        unsupervised_ttl: args.unsupervised_ttl,
        max_rollouts: args.max_rollouts,
        scrape_interval: args.scrape_interval,
    }
}

fn lease_config(args: &RunArgs, identity: &str) -> LeaseConfig {
    LeaseConfig {
        namespace: args.namespace.clone(),
        name: args.lease_name.clone(),
        identity: identity.to_owned(),
        duration: args.lease_duration,
        renew_deadline: args.renew_deadline,
        retry_period: args.retry_period,
    }
}

fn sample_source(args: &RunArgs, metrics: &Metrics) -> anyhow::Result<SampleSource> {
    if args.prometheus_url.is_empty() {
        tracing::info!(
            "Prometheus is not configured: rollouts are evaluated with the nodes' own counters"
        );
        return Ok(SampleSource::default());
    }
    let meter = measure::Meter::new(metrics.registry()).context("metrics of sampling")?;
    let prometheus = Prometheus::new(&args.prometheus_url, args.scrape_interval, meter)
        .context("--prometheus-url")?;
    Ok(SampleSource::new(prometheus))
}

async fn signalled() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    tracing::info!("stopping");
    Ok(())
}

fn start_logging(format: LogFormat) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new("info,kube=warn,tower=warn,hyper=warn")
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.try_init(),
    }
    .map_err(|error| anyhow::anyhow!("logging: {error}"))
}
