//! The data plane: a thread that accepts connections, and threads that route requests and run guests.
//! The threads share everything but their event loops, so limits and counters are those of the node.

mod cold_starts;
mod event_loop;
mod state;
mod stop_flag;

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::counters::CounterTable;
use crate::descriptors;
use crate::engine::Engine;
use crate::guest_log::GuestLog;
use crate::key_value::KeyValueUsage;
use crate::listener;
use crate::node_counters::NodeCounters;
use crate::routing_table::RoutingTable;
use crate::tls::Certificates;
use crate::traces::Tracer;
use futures::future::try_join_all;
use node_shim_core::key_value::BucketId;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub(crate) use event_loop::{EventLoop, EventLoops};
pub use state::{DataPlaneOptions, LoadShedding, NetworkError, parse_network};
pub(crate) use state::{DataPlanePhase, DataPlaneState, wait_for_phase};
pub(crate) use stop_flag::StopFlag;

/// Length of the kernel's backlog of connections.
const BACKLOG: i32 = 4_096;
/// File descriptors reserved for everything but connections: code, node API, admin port, state.
const RESERVED_DESCRIPTORS: u64 = 1_024;
/// Time after which a guest that waits for a thread shows that all of them are stuck. A turn takes milliseconds.
const GUEST_PATIENCE: Duration = Duration::from_secs(30);

/// Returns the number of connections that the process has file descriptors for.
pub(crate) fn connection_descriptors() -> usize {
    let all = descriptors::limit();
    // with a small limit, half of it is for connections
    let left = all.saturating_sub(RESERVED_DESCRIPTORS).max(all / 2);
    usize::try_from(left).unwrap_or(usize::MAX)
}

/// Bound sockets of the data plane. They need not listen yet.
pub struct Listeners {
    /// Port for HTTP/1.1 and h2c.
    pub http: TcpListener,
    /// Port for HTTP/1.1 and HTTP/2 over TLS, with its certificates.
    pub https: Option<(TcpListener, Arc<Certificates>)>,
}

impl From<TcpListener> for Listeners {
    fn from(http: TcpListener) -> Self {
        Self { http, https: None }
    }
}

/// Addresses of the ports, and the certificates of the second one.
struct Ports {
    http: SocketAddr,
    https: Option<(SocketAddr, Arc<Certificates>)>,
}

impl Listeners {
    fn prepare(&self) -> io::Result<Ports> {
        let prepare = |listener: &TcpListener| {
            listener.set_nonblocking(true)?;
            listener.local_addr()
        };
        let https = match &self.https {
            Some((listener, certificates)) => Some((prepare(listener)?, certificates.clone())),
            None => None,
        };
        Ok(Ports {
            http: prepare(&self.http)?,
            https,
        })
    }

    /// Returns further handles of the sockets.
    fn handles(&self) -> io::Result<Vec<TcpListener>> {
        let https = self.https.iter().map(|(listener, _)| listener);
        https
            .chain([&self.http])
            .map(TcpListener::try_clone)
            .collect()
    }
}

/// The thread that accepts connections.
struct Acceptor {
    runtime: Handle,
    /// Resolves when the listeners are closed.
    closed: Mutex<Option<oneshot::Receiver<()>>>,
}

/// Handle of the data plane. Dropping it does not stop the data plane; [`drain`](Self::drain) does.
pub struct DataPlane {
    state: Arc<DataPlaneState>,
    ports: Ports,
    /// Handles of the sockets until [`open`](Self::open).
    unopened: Mutex<Vec<TcpListener>>,
    event_loops: Vec<Arc<EventLoop>>,
    acceptor: Acceptor,
    /// The threads of the event loops and of the acceptor.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Replaced tables that requests may still use.
    retired: Mutex<Vec<Arc<RoutingTable>>>,
}

impl DataPlane {
    /// Starts the data plane on bound listeners, with an empty routing table and not ready. It accepts connections from
    /// [`open`](Self::open) on.
    ///
    /// # Errors
    /// Returns an error when a listener or a thread cannot be set up.
    pub fn start(
        listeners: impl Into<Listeners>,
        engine: Engine,
        options: DataPlaneOptions,
        counters: Arc<CounterTable>,
        node: Arc<NodeCounters>,
        log: GuestLog,
    ) -> io::Result<Self> {
        let listeners = listeners.into();
        let (ports, unopened) = (listeners.prepare()?, listeners.handles()?);
        let mut options = options;
        options.max_connections = options.max_connections.min(connection_descriptors());
        let state = Arc::new(DataPlaneState::new(engine, options, counters, node, log));
        let Threads {
            event_loops,
            acceptor,
            threads,
        } = start_threads(&state, listeners).inspect_err(|_| {
            // ends the threads that were started
            state.set_phase(DataPlanePhase::Stopped);
        })?;
        Ok(Self {
            state,
            ports,
            unopened: Mutex::new(unopened),
            event_loops,
            acceptor,
            threads: Mutex::new(threads),
            retired: Mutex::default(),
        })
    }

    /// Listens, and begins to accept connections. It can be called again after an error. Until then, connections to the
    /// ports that already listen wait.
    ///
    /// # Errors
    /// Returns an error when another process listens on an address.
    pub fn open(&self) -> io::Result<()> {
        let mut unopened = self.unopened.lock();
        for listener in unopened.iter() {
            rustix::net::listen(listener, BACKLOG)?;
        }
        unopened.clear();
        self.state.open();
        Ok(())
    }

    /// Returns the address that the data plane listens on without TLS.
    pub fn address(&self) -> SocketAddr {
        self.ports.http
    }

    /// Returns the address that the data plane listens on with TLS.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.ports.https.as_ref().map(|(address, _)| *address)
    }

    /// Returns the certificates of the port with TLS.
    pub(crate) fn certificates(&self) -> Option<&Arc<Certificates>> {
        let https = self.ports.https.as_ref();
        https.map(|(_, certificates)| certificates)
    }

    /// Replaces the routing table atomically. Requests in progress keep the table they started with.
    pub fn publish(&self, table: Arc<RoutingTable>) {
        let old = self.state.publish(table);
        let mut retired = self.retired.lock();
        retired.push(old);
        // a large table takes long to free, so it is freed here and not by the last request that uses it
        retired.retain(|table| Arc::strong_count(table) > 1);
    }

    /// Returns the current routing table.
    pub fn table(&self) -> Arc<RoutingTable> {
        self.state.table()
    }

    /// Sets the readiness that the data port reports to load balancers.
    pub fn set_ready(&self, ready: bool) {
        self.state.set_ready(ready);
    }

    /// Sets which requests to reject because of memory pressure.
    pub fn set_load_shedding(&self, shed: LoadShedding) {
        self.state.set_load_shedding(shed);
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.state.engine
    }

    /// Returns the request counters of the revisions.
    pub fn counters(&self) -> &Arc<CounterTable> {
        &self.state.counters
    }

    /// Returns the counters of the node.
    pub fn node_counters(&self) -> &Arc<NodeCounters> {
        &self.state.node_counters
    }

    /// Returns the number of free instance slots.
    pub fn free_instance_slots(&self) -> usize {
        usize::try_from(self.state.budget.free_slots()).unwrap_or(usize::MAX)
    }

    /// Returns the number of instances that wait for another request.
    pub fn idle_instances(&self) -> usize {
        self.state.idle.len()
    }

    /// Drops the instances that wait for another request, so that their code can be unmapped.
    pub fn drop_idle_instances(&self) {
        self.state.idle.clear();
    }

    /// Returns the guest memory that is free, in bytes.
    pub fn free_guest_memory(&self) -> u64 {
        self.state.budget.free_memory()
    }

    /// Returns what the key-value stores contain and did.
    pub fn key_value_usage(&self) -> KeyValueUsage {
        self.state.key_value.usage()
    }

    /// Removes the entries of all key-value stores in memory but these.
    pub fn retain_buckets(&self, kept: &BTreeSet<BucketId>) {
        self.state.key_value.retain(kept);
    }

    /// Sets the key with which this node and the other nodes of the cluster sign the header `selvage-hops`. An empty key
    /// changes nothing.
    pub fn set_hop_key(&self, key: &[u8]) {
        self.state.egress.hop_key.set(key);
    }

    /// Returns the number of lines of the access log that were dropped.
    pub fn access_log_dropped(&self) -> u64 {
        self.state.log.access_dropped()
    }

    /// Returns what records requests for a collector of traces, if there is one.
    pub fn tracer(&self) -> Option<&Arc<Tracer>> {
        self.state.options.tracer.as_ref()
    }

    /// Returns the number of open connections.
    pub fn open_connections(&self) -> usize {
        self.state.connections.len()
    }

    /// Returns the number of open connections of each thread that serves requests.
    pub fn connections_by_thread(&self) -> Vec<usize> {
        let event_loops = self.event_loops.iter();
        event_loops.map(|one| one.connections()).collect()
    }

    /// Returns whether all event loops of the data plane respond within `timeout`, and the threads for guests that compute take
    /// one after another.
    pub async fn responds_within(&self, timeout: Duration) -> bool {
        // all loops have the same threads
        let mut preempted = self.event_loops.iter().map(|one| &one.preempted);
        if preempted
            .next()
            .is_some_and(|guests| guests.are_stuck(GUEST_PATIENCE))
        {
            return false;
        }
        let serving = self.event_loops.iter().map(|one| one.runtime());
        let turns = serving
            .chain([&self.acceptor.runtime])
            // fails when the thread has ended
            .map(|runtime| runtime.spawn(async {}));
        let responded = tokio::time::timeout(timeout, try_join_all(turns)).await;
        matches!(responded, Ok(Ok(_)))
    }

    /// Shuts the data plane down: keeps accepting connections for `propagation`, waits for requests in
    /// progress for at most `timeout`, and closes the remaining connections. Returns when the threads have
    /// ended.
    pub async fn drain(&self, propagation: Duration, timeout: Duration) {
        // a handle would keep its socket open
        self.unopened.lock().clear();
        self.state.set_phase(DataPlanePhase::Announcing);
        tokio::time::sleep(propagation).await;
        self.state.set_phase(DataPlanePhase::Draining);
        let closed = self.acceptor.closed.lock().take();
        if let Some(closed) = closed {
            // an error: the sender is dropped when the listeners are closed
            let _ = closed.await;
        }
        self.state.connections.close();
        let finished = self.state.connections.wait();
        if tokio::time::timeout(timeout, finished).await.is_err() {
            tracing::warn!(
                connections = self.open_connections(),
                "drain timed out; closing the remaining connections"
            );
        }
        self.state.set_phase(DataPlanePhase::Stopped);
        let threads = std::mem::take(&mut *self.threads.lock());
        // the event loops end at most two epochs after the last guest was stopped
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        let _ = tokio::task::spawn_blocking(join).await;
    }
}

/// What the data plane keeps of its threads.
struct Threads {
    event_loops: Vec<Arc<EventLoop>>,
    acceptor: Acceptor,
    threads: Vec<JoinHandle<()>>,
}

fn start_threads(state: &Arc<DataPlaneState>, listeners: Listeners) -> io::Result<Threads> {
    let (count, preempted) = (state.options.threads.get(), Arc::default());
    let started = (0..count).map(|number| EventLoop::start(state, &preempted, number));
    let started: Vec<_> = started.collect::<io::Result<_>>()?;
    let (event_loops, mut threads): (Vec<_>, Vec<_>) = started.into_iter().unzip();
    preempted.start_threads(count)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (sender, closed) = oneshot::channel();
    let acceptor = Acceptor {
        runtime: runtime.handle().clone(),
        closed: Mutex::new(Some(closed)),
    };
    let (state, loops) = (state.clone(), EventLoops::new(event_loops.clone()));
    let accept = move || runtime.block_on(listener::run(state, loops, listeners, sender));
    threads.push(
        std::thread::Builder::new()
            .name("accept".into())
            .spawn(accept)?,
    );
    Ok(Threads {
        event_loops,
        acceptor,
        threads,
    })
}
