//! The data path: one thread with one runtime that accepts, routes and runs. Two threads of one
//! process are slower than one, because every change of a guest's mappings stops the other.

mod state;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::counters::CounterTable;
use crate::engine::Engine;
use crate::guest_log::GuestLog;
use crate::listener;
use crate::node_counters::NodeCounters;
use crate::routing_table::RoutingTable;

pub use state::{DataPlaneOptions, LoadShedding};
pub(crate) use state::{DataPlaneState, DrainPhase};

/// Connections the kernel holds while none is accepted.
const BACKLOG: i32 = 4_096;
/// Descriptors for everything that is no connection: code, node API, admin, state.
const RESERVED_DESCRIPTORS: u64 = 1_024;

/// Connections that the process has descriptors for.
pub(crate) fn connection_descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // at least half of a small limit is for connections
    let left = limit.map_or(u64::MAX, |all| {
        all.saturating_sub(RESERVED_DESCRIPTORS).max(all / 2)
    });
    usize::try_from(left).unwrap_or(usize::MAX)
}

/// The handle of the data path. Dropping it leaves the path running; `drain` ends it.
pub struct DataPlane {
    state: Arc<DataPlaneState>,
    address: SocketAddr,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Tables that requests may still use.
    retired: Mutex<Vec<Arc<RoutingTable>>>,
}

impl DataPlane {
    /// Starts to accept on a bound listener. Until a table is published nothing has a route.
    ///
    /// # Errors
    /// The listener or the thread could not be set up.
    pub fn start(
        listener: TcpListener,
        engine: Engine,
        options: DataPlaneOptions,
        counters: Arc<CounterTable>,
        node: Arc<NodeCounters>,
        log: GuestLog,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        rustix::net::listen(&listener, BACKLOG)?;
        let mut options = options;
        options.max_connections = options.max_connections.min(connection_descriptors());
        let address = listener.local_addr()?;
        let plane = Arc::new(DataPlaneState::new(engine, options, counters, node, log));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let shared = plane.clone();
        let thread = std::thread::Builder::new()
            .name("data".into())
            .spawn(move || {
                runtime.block_on(listener::run(shared, listener));
            })?;
        Ok(Self {
            state: plane,
            address,
            thread: Mutex::new(Some(thread)),
            retired: Mutex::default(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the whole table at once. Requests under way keep the one they began with.
    pub fn publish(&self, table: Arc<RoutingTable>) {
        let old = self.state.publish(table);
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.push(old);
        // freeing a large table takes longer than a request may wait, so it is not left to the last
        // request that used it
        retired.retain(|table| Arc::strong_count(table) > 1);
    }

    /// The table requests are routed by now.
    pub fn table(&self) -> Arc<RoutingTable> {
        self.state.table()
    }

    /// What load balancers are told on the data port.
    pub fn set_ready(&self, ready: bool) {
        self.state.set_ready(ready);
    }

    /// What to refuse from now on for want of memory.
    pub fn set_load_shedding(&self, shed: LoadShedding) {
        self.state.set_load_shedding(shed);
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.state.engine
    }

    pub fn counters(&self) -> &Arc<CounterTable> {
        &self.state.counters
    }

    /// Counters of the node that belong to no revision.
    pub fn node_counters(&self) -> &Arc<NodeCounters> {
        &self.state.node_counters
    }

    /// Instance slots that are free at this moment.
    pub fn free_instance_slots(&self) -> usize {
        self.state.instance_slots.available_permits()
    }

    /// Connections that are open at this moment.
    pub fn open_connections(&self) -> usize {
        self.state.connections.len()
    }

    /// Whether the thread of the data path still turns its loop within `patience`.
    pub async fn responds_within(&self, patience: Duration) -> bool {
        let turned = self.state.node_counters.ping_event_loop();
        tokio::time::timeout(patience, turned).await.is_ok()
    }

    /// Goes on accepting for `propagation`, then lets what runs finish for at most `timeout`, then
    /// cuts what is left. Returns when the thread has ended.
    pub async fn drain(&self, propagation: Duration, timeout: Duration) {
        self.state.set_phase(DrainPhase::Announcing);
        tokio::time::sleep(propagation).await;
        self.state.set_phase(DrainPhase::Draining);
        self.state.connections.close();
        let finished = self.state.connections.wait();
        if tokio::time::timeout(timeout, finished).await.is_err() {
            tracing::warn!(
                connections = self.open_connections(),
                "drain timed out, cutting connections"
            );
        }
        self.state.set_phase(DrainPhase::Stopped);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // the thread leaves at most two epochs after its last guest was told to
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
