//! The supervisor runs everything of a node except the request path. It receives the table from an operator,
//! stores it on disk, loads components and publishes routing tables to the data plane, which consists of threads
//! of the same process and is behind the trait `task::Serve`.
//!
//! ```text
//! node_api ──events──▶ task ──tables──▶ data plane
//!     ▲                 │ │ ──loads───▶ pipeline (pull, verify, compile, cache, load)
//!     └───node status───┘ └─snapshots─▶ state_writer (disk)
//! ```

mod admin_status;
mod certificates;
mod metrics;
mod node;
mod node_status;
mod parse_authorities;
mod parse_key_value;
mod parse_limits;
pub(crate) mod parse_record;
mod parse_remote;
mod parse_reuse;
mod recent_traffic;
mod records;
mod removed_functions;
mod retired_revisions;
mod secret_values;
mod shared;
mod state_writer;
mod table_builder;
mod task;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use node_api::v1::RevisionCounters;
use node_shim_core::desired::Failure;
use node_shim_core::key_value::BucketId;
use node_shim_core::table::FunctionKey;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{self, NotReady, SocketFile};
use crate::clock::{Now, unix_ms};
use crate::code_cache::{self, CodeCache, MappedCode};
use crate::compile::CompilerPool;
use crate::counters::CounterTable;
use crate::data_plane::{DataPlane, Listeners, connection_descriptors};
use crate::data_plane::{DataPlaneOptions, LoadShedding};
use crate::disk::{Blobs, DiskHealth, PersistedTable, StateDir, StateLock, TableFile};
use crate::engine::{Engine, EngineOptions};
use crate::function_cache::FunctionCache;
use crate::guest_log::GuestLog;
use crate::load::{CompileAttempts, KnownFailures, LoadPipeline};
use crate::metrics::{Metrics, NodeIdentity};
use crate::native_cache::NativeCache;
use crate::node_api::{self as api, BlobClient, Client, CounterSource, NodeStatus, frame_of};
use crate::node_counters::NodeCounters;
use crate::pull::{ComponentRef, Puller, sha256_hex};
use crate::routing_table::RoutingTable;
use crate::tls::Certificates;
use crate::traces::{TraceOptions, Tracer};

use node::Node;
use recent_traffic::RecentTraffic;
use shared::Shared;
use state_writer::{DiskUsage, StateWriter};
use task::{Inputs, Loader, Serve, Wiring};

/// Time without contact after which candidates lose their traffic, until an operator sends another value.
const DEFAULT_UNSUPERVISED_TTL: Duration = Duration::from_secs(600);
/// Maximum time that a terminating process waits for each step of writing its state.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings of a node. Each field corresponds to flags of `node-shim run`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connection to the operators.
    pub api: api::Settings,
    /// Directory for the table, components and native code.
    pub state_dir: PathBuf,
    /// Address of the data port.
    pub data_addr: SocketAddr,
    /// Address of the data port with TLS.
    pub tls_addr: SocketAddr,
    /// Whether to open that port also without `tls_certificates`, for the certificates of functions.
    pub tls: bool,
    /// Directories with certificates for it; see [`Certificates::open`].
    pub tls_certificates: Vec<PathBuf>,
    /// Address of the admin port.
    pub admin_addr: SocketAddr,
    /// Path of the Unix socket of the debug pages; `None` disables them.
    pub debug_socket: Option<PathBuf>,
    /// Registries (`host:port`) that are contacted over plain HTTP.
    pub insecure_registries: Vec<String>,
    /// Time for which a draining node continues to accept connections.
    pub drain_propagation: Duration,
    /// Time that running requests then have to finish.
    pub drain_timeout: Duration,
    /// Limits of the data plane's connections.
    pub data: DataPlaneOptions,
    /// Settings of the Wasm engine.
    pub engine: EngineOptions,
    /// Traces of requests.
    pub traces: TraceOptions,
    /// Maximum number of components with mapped code; components in use are kept mapped beyond it. `None`
    /// derives it from the limits of process and kernel.
    pub max_loaded: Option<usize>,
    /// Path of this program, which runs again as the compile child process.
    pub program: PathBuf,
}

/// A running node.
pub struct Supervisor {
    shared: Arc<Shared>,
    state_writer: Option<StateWriter>,
    admin: SocketAddr,
    stop: oneshot::Sender<oneshot::Sender<()>>,
    _debug: Option<SocketFile>,
}

/// State found on disk at startup, and the lock that permits changing it.
struct Disk {
    dir: StateDir,
    lock: Option<StateLock>,
    health: Arc<DiskHealth>,
    disk_usage: Arc<DiskUsage>,
    table: Option<PersistedTable>,
    recent_traffic: RecentTraffic,
}

impl Supervisor {
    /// Starts a node from the state on disk and then connects to an operator.
    ///
    /// # Errors
    /// Fails when the engine, a port or a thread cannot be created. A disk that cannot be used is not an error.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let Disk {
            dir,
            lock,
            health,
            disk_usage,
            table,
            recent_traffic,
        } = open_disk(&options.state_dir);
        let engine = Engine::new(&options.engine).context("engine")?;
        let listeners = data_listeners(&options)?;
        let admin_listener = bind(options.admin_addr)
            .with_context(|| format!("admin port {}", options.admin_addr))?;
        let plane = start_data_plane(&options, listeners, &engine)?;
        let (events, from_api) = mpsc::channel(64);
        let (node_status, status_receiver) = watch::channel(Arc::new(NodeStatus::default()));
        let (client, blobs) = Client::new(
            options.api.clone(),
            events,
            status_receiver.clone(),
            Arc::new(RolloutCounters(Arc::clone(plane.counters()))),
            Box::new(fastrand::f64),
        );
        let (code_cache, code_lost) = CodeCache::new(max_loaded(&options, &engine));
        let hash = format!("{:016x}", engine.compatibility());
        let cache = NativeCache::open(&dir, &hash, Arc::clone(&health)).context("cache")?;
        let functions = FunctionCache::open(&dir, cache.engine(), Arc::clone(&health));
        let metrics = Metrics::new(NodeIdentity {
            node_name: options.api.node.clone(),
            started_ms: options.api.boot_id,
        });
        let shared = Arc::new(Shared {
            options,
            engine,
            code_cache,
            cache: Arc::new(cache),
            functions: Arc::new(functions.context("cache of functions")?),
            plane,
            admin_status: Arc::default(),
            disk_usage: Arc::clone(&disk_usage),
            health: Arc::clone(&health),
            metrics,
            node_status: status_receiver,
        });
        let loader = pipeline(&shared, &dir, blobs)?;
        let (inherited, inherited_tables) = mpsc::channel(1);
        let cache = Arc::clone(&shared.cache);
        let state_writer =
            StateWriter::start(&dir, lock, cache, health, disk_usage, inherited).ok();
        let (stop, stopped) = oneshot::channel();
        let inputs = Inputs {
            api: from_api,
            inherited: inherited_tables,
            code_lost,
            stop: stopped,
        };
        let wiring = wiring(&shared, loader, state_writer.clone(), node_status);
        start_task(table, recent_traffic, wiring, inputs);
        let admin = admin::serve(admin_listener, shared.clone()).context("admin port")?;
        let debug = open_debug_socket(&shared);
        tokio::spawn(client.run());
        let threads = shared.options.data.threads;
        tracing::info!(data = %shared.plane.address(), %admin, threads, "serving");
        Ok(Self {
            shared,
            state_writer,
            admin,
            stop,
            _debug: debug,
        })
    }

    /// Returns the address on which the data port listens.
    #[must_use]
    pub fn data_address(&self) -> SocketAddr {
        self.shared.plane.address()
    }

    /// Returns the address on which the data port with TLS listens, if it is open.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.shared.plane.tls_address()
    }

    /// Returns the address on which the admin port listens.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Returns `Ok` when load balancers may send traffic to this node.
    ///
    /// # Errors
    /// Returns the reason when the node is not ready.
    pub fn readiness(&self) -> Result<(), NotReady> {
        self.shared.admin_status.readiness()
    }

    /// Shuts the node down gracefully: reports that it is not ready, continues to accept connections for the
    /// propagation time, waits for running requests, writes the state and releases the lock.
    pub async fn drain(self) {
        self.shared.admin_status.drain();
        let (propagation, timeout) = {
            let options = &self.shared.options;
            (options.drain_propagation, options.drain_timeout)
        };
        tracing::info!(?propagation, ?timeout, "draining");
        self.shared.plane.drain(propagation, timeout).await;
        if let Some(tracer) = self.shared.plane.tracer() {
            tracer.flush(FLUSH_TIMEOUT).await;
        }
        self.flush().await;
    }

    /// Writes the latest state and releases the lock without waiting for running requests.
    pub async fn flush(self) {
        let (done, handed_over) = oneshot::channel();
        if self.stop.send(done).is_ok() {
            let _ = tokio::time::timeout(FLUSH_TIMEOUT, handed_over).await;
        }
        if let Some(state_writer) = self.state_writer {
            state_writer.stop(FLUSH_TIMEOUT).await;
        }
    }
}

/// Binds the ports of the data plane and reads the certificates of the second one.
fn data_listeners(options: &Options) -> anyhow::Result<Listeners> {
    let bound = |address| bind(address).with_context(|| format!("data port {address}"));
    let https = if !options.tls && options.tls_certificates.is_empty() {
        None
    } else {
        let certificates = Certificates::open(&options.tls_certificates)?;
        tokio::spawn(certificates.clone().watch());
        Some((bound(options.tls_addr)?, certificates))
    };
    Ok(Listeners {
        http: bound(options.data_addr)?,
        https,
    })
}

/// Starts the data plane on its listeners, with an empty routing table.
fn start_data_plane(
    options: &Options,
    listeners: Listeners,
    engine: &Engine,
) -> anyhow::Result<Arc<DataPlane>> {
    let log =
        GuestLog::start(&options.api.node, Box::new(std::io::stdout())).context("guest log")?;
    let data = DataPlaneOptions {
        tracer: Tracer::start(&options.traces, &options.api.node)?,
        ..options.data.clone()
    };
    let plane = DataPlane::start(
        listeners,
        engine.clone(),
        data,
        CounterTable::new(),
        Arc::new(NodeCounters::default()),
        log,
    );
    let plane = plane.context("data plane")?;
    plane.open().context("data port")?;
    Ok(Arc::new(plane))
}

/// Connects the node's task with the other parts of the process.
fn wiring(
    shared: &Shared,
    loader: LoadPipeline,
    state_writer: Option<StateWriter>,
    node_status: watch::Sender<Arc<NodeStatus>>,
) -> Wiring {
    Wiring {
        loader: Arc::new(loader),
        serve: shared.plane.clone(),
        state_writer,
        health: Arc::clone(&shared.health),
        counters: Arc::clone(shared.plane.counters()),
        node_status,
        admin_status: Arc::clone(&shared.admin_status),
        code_cache: Arc::clone(&shared.code_cache),
        memory: Box::new(|| crate::memory_pressure::current_pressure(Path::new("/"))),
        random: Box::new(fastrand::f64),
    }
}

/// Starts the node's task with the state found on disk.
fn start_task(
    table: Option<PersistedTable>,
    recent_traffic: RecentTraffic,
    wiring: Wiring,
    inputs: Inputs,
) {
    let node = Node::new(
        table,
        recent_traffic,
        Arc::clone(&wiring.counters),
        DEFAULT_UNSUPERVISED_TTL,
        Now::read(),
    );
    // The client may send its Hello before the task has run once, so the status from disk is published here.
    let first = node_status::describe(&node, None, false);
    wiring.node_status.send_replace(Arc::new(first));
    tokio::spawn(task::run(node, wiring, inputs));
}

fn open_debug_socket(shared: &Arc<Shared>) -> Option<SocketFile> {
    let path = shared.options.debug_socket.as_ref()?;
    admin::serve_debug(path, shared.clone())
        .inspect_err(|error| tracing::warn!(%error, "cannot open the debug socket"))
        .ok()
}

/// Binds a TCP listener. On a host without IPv6, `[::]` falls back to `0.0.0.0`.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).or_else(|error| match address {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, v6.port())).map_err(|_| error)
        }
        _ => Err(error),
    })
}

fn open_disk(path: &Path) -> Disk {
    let dir = StateDir::new(path);
    let health = Arc::new(DiskHealth::default());
    let disk_usage = Arc::new(DiskUsage::default());
    let lock = dir
        .create()
        .and_then(|()| StateLock::try_take(&dir))
        .unwrap_or_else(|error| {
            health.failed(&error);
            None
        });
    let (table, damaged) = TableFile::new(&dir).load(lock.as_ref());
    disk_usage.damaged_tables.store(damaged, Ordering::Relaxed);
    let recent_traffic = std::fs::read_to_string(dir.state().join("hot")).unwrap_or_default();
    let recent_traffic = RecentTraffic::from_text(&recent_traffic, unix_ms());
    match &table {
        Some(table) => tracing::info!(
            version = table.header.version,
            functions = table.functions.len(),
            "table read from disk"
        ),
        None => tracing::info!("no table found on disk"),
    }
    Disk {
        dir,
        lock,
        health,
        disk_usage,
        table,
        recent_traffic,
    }
}

fn max_loaded(options: &Options, engine: &Engine) -> usize {
    let connections = options.data.max_connections.min(connection_descriptors());
    let limited = || code_cache::max_mapped(connections, engine.instance_slots());
    options.max_loaded.unwrap_or_else(limited)
}

fn pipeline(shared: &Shared, dir: &StateDir, operator: BlobClient) -> anyhow::Result<LoadPipeline> {
    let (options, engine) = (&shared.options, &shared.engine);
    let health = || Arc::clone(&shared.health);
    let blobs = Blobs::new(dir, health());
    let insecure: BTreeSet<String> = options.insecure_registries.iter().cloned().collect();
    let observed = Arc::clone(&shared.admin_status);
    Ok(LoadPipeline {
        cache: Arc::clone(&shared.cache),
        functions: Arc::clone(&shared.functions),
        puller: Puller::new(insecure, blobs.clone(), Arc::new(operator)).context("puller")?,
        blobs,
        compiler: CompilerPool::new(options.program.clone()).with_backtraces(engine.backtraces()),
        engine: engine.clone(),
        code_cache: Arc::clone(&shared.code_cache),
        attempts: Arc::new(CompileAttempts::open(dir, health())),
        known_failures: Arc::new(KnownFailures::open(dir, health())),
        observe: Arc::new(move |stage, took| observed.observe(stage, took)),
    })
}

/// Reads the counters that are reported to operators from the counter table.
struct RolloutCounters(Arc<CounterTable>);

impl CounterSource for RolloutCounters {
    fn read(&self, functions: &BTreeSet<FunctionKey>) -> Vec<RevisionCounters> {
        if functions.is_empty() {
            return Vec::new();
        }
        frame_of(&self.0.snapshot(|key| functions.contains(key)))
    }
}

impl Loader for LoadPipeline {
    fn load(&self, component: ComponentRef) -> BoxFuture<'static, Result<MappedCode, Failure>> {
        let pipeline = self.clone();
        async move { pipeline.run(&component).await }.boxed()
    }

    fn is_compiled(&self, digest: &str) -> bool {
        sha256_hex(digest).is_some_and(|hex| self.cache.has(hex))
    }
}

impl Serve for DataPlane {
    fn publish(&self, table: Arc<RoutingTable>) {
        Self::publish(self, table);
    }

    fn drop_idle_instances(&self) {
        Self::drop_idle_instances(self);
    }

    fn retain_buckets(&self, kept: &BTreeSet<BucketId>) {
        Self::retain_buckets(self, kept);
    }

    fn set_ready(&self, ready: bool) {
        Self::set_ready(self, ready);
    }

    fn set_hop_key(&self, key: &[u8]) {
        Self::set_hop_key(self, key);
    }

    fn shed(&self, shed: LoadShedding) {
        Self::set_load_shedding(self, shed);
    }
}
