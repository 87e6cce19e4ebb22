//! `operator run`: starts caches, election, node API and reconciler, and waits until one of them ends.

mod args;
mod lead;
mod prometheus_args;
mod settings;
mod shared;
mod start;
mod tasks;

pub(crate) use args::duration;
pub use args::{LogFormat, PageArgs, RunArgs};

use anyhow::Context;
use kube::{Client, Config};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::lease::Election;
use crate::page;
use crate::reconcile::api;
use shared::Shared;
use start::{Received, Start};
use tasks::Tasks;

/// Runs until a signal arrives or an essential part ends.
///
/// # Errors
/// The API server cannot be configured, a port is in use, or the lease was lost.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    start_logging(args.log_format)?;
    let unreachable = "no way to reach the API server";
    let config = Config::infer().await.context(unreachable)?;
    let client = Client::try_from(config.clone()).context(unreachable)?;
    let impatient = api::client(config).context(unreachable)?;

    // What the parts share.
    let (secret_changed, secret_changes) = mpsc::unbounded_channel();
    let (config_map_changed, config_map_changes) = mpsc::unbounded_channel();
    let shared = Shared::new(&args, client, secret_changed, config_map_changed)?;
    let (stop, mut tasks) = (CancellationToken::new(), Tasks::default());

    // The parts that every replica runs.
    let (changed, changes) = mpsc::unbounded_channel();
    for watch in shared.caches.watch(&shared.client, &changed) {
        tasks.follow("a watch", watch);
    }
    let (account, tables) = (args.shim_service_account.clone(), shared.tables.clone());
    let pods = shared.shim_pods.clone();
    let pods = pods.follow(
        shared.client.clone(),
        args.namespace.clone(),
        account,
        tables,
    );
    tasks.follow("the watch of the pods of node-shims", pods);
    let identity = args.identity()?;
    let (election, lease) = Election::new(shared.client.clone(), args.lease(&identity));
    let reconciler = shared.reconciler(&args, impatient, &mut tasks)?;
    let server = shared.server(&args, &lease, identity, &mut tasks)?;
    let (metrics, ready) = (shared.metrics.clone(), shared.readiness());
    let admin = admin::run(args.admin_addr, metrics, ready, stop.clone());
    tasks.spawn("the admin endpoint", admin);
    if let Some(settings) = args.page() {
        tasks.follow("the page", page::run(settings, shared.caches.clone()));
    }
    tasks.spawn("the lease", election.run(stop.clone()));
    tasks.spawn("the node API", server.run(stop.clone()));
    let reports = shared.fleet.subscribe();
    tasks.follow("the fleet", shared.dispatch.clone().follow_fleet(reports));

    // The stages of the start, of which the last is to lead.
    let start = Start {
        namespace: args.namespace,
        shared,
        lease,
        reconciler,
    };
    let received = Received {
        objects: changes,
        secrets: secret_changes,
        config_maps: config_map_changes,
    };
    tasks.spawn("the reconciler", start.run(received));

    let outcome = tokio::select! {
        signal = signalled() => signal,
        error = tasks.ended() => Err(error),
    };
    // Releases the lease, ends the streams of nodes in order, and reports that this replica is not ready.
    stop.cancel();
    tasks.wind_down().await;
    outcome
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
