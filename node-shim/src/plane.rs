//! The data path: one thread with one runtime that accepts, routes and runs. Two threads of one
//! process are slower than one, because every change of a guest's mappings stops the other.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use node_shim_core::cidr::Cidr;
use node_shim_core::pressure::Pressure;
use node_shim_core::table::FunctionKey;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::accept;
use crate::conn::ConnLimits;
use crate::counters::Counters;
use crate::engine::Engine;
use crate::guest_log::GuestLog;
use crate::node_counters::NodeCounters;
use crate::table::RoutingTable;

/// Requests that wait for code at once.
const COLD: usize = 1_000;

/// Connections the kernel holds while none is accepted.
const BACKLOG: i32 = 4_096;
/// Descriptors for everything that is no connection: code, node API, admin, state.
const RESERVED: u64 = 1_024;

/// Connections that the process has descriptors for.
pub(crate) fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // at least half of a small limit is for connections
    let left = limit.map_or(u64::MAX, |all| all.saturating_sub(RESERVED).max(all / 2));
    usize::try_from(left).unwrap_or(usize::MAX)
}

/// How the data path treats connections.
#[derive(Clone, Debug)]
pub struct DataOptions {
    pub connections: ConnLimits,
    pub max_connections: usize,
    /// From one address, unless it is a trusted proxy.
    pub max_per_peer: u32,
    /// Peers whose word about their clients is taken.
    pub trusted_proxies: Vec<Cidr>,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            connections: ConnLimits::default(),
            max_connections: 10_000,
            max_per_peer: 256,
            trusted_proxies: Vec::new(),
        }
    }
}

impl DataOptions {
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|cidr| cidr.contains(peer))
    }
}

/// How far the data path is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Still accepting, because not everybody knows yet; connections close as they fall idle.
    Leaving,
    /// No new connections; what runs may finish.
    Finishing,
    /// Whatever is left is cut.
    Over,
}

/// What is given up for want of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shed {
    /// How short memory is.
    pub pressure: Pressure,
    /// Functions with recent traffic; looked at when others are refused.
    pub recent: BTreeSet<FunctionKey>,
}

/// What every connection and every request shares.
pub(crate) struct Plane {
    pub(crate) engine: Engine,
    pub(crate) options: DataOptions,
    pub(crate) counters: Arc<Counters>,
    pub(crate) node: Arc<NodeCounters>,
    pub(crate) log: GuestLog,
    /// Below the pool's slots, so that a full pool is noticed before a store is made.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) cold: Semaphore,
    pub(crate) guests: TaskTracker,
    pub(crate) connections: TaskTracker,
    table: ArcSwap<RoutingTable>,
    version: watch::Sender<u64>,
    phase: watch::Sender<Phase>,
    ready: AtomicBool,
    /// Whether `shed` says anything: all that a request looks at in good times.
    pressed: AtomicBool,
    shed: ArcSwap<Shed>,
}

impl Plane {
    pub(crate) fn table(&self) -> Arc<RoutingTable> {
        self.table.load_full()
    }

    /// Changes with every table.
    pub(crate) fn published(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether memory is left for a request of this function.
    pub(crate) fn may_run(&self, function: &FunctionKey) -> bool {
        if !self.pressed.load(Ordering::Relaxed) {
            return true;
        }
        let shed = self.shed.load();
        shed.pressure.may_run(shed.recent.contains(function))
    }

    /// Whether memory is left for candidates.
    pub(crate) fn may_try(&self) -> bool {
        !self.pressed.load(Ordering::Relaxed) || self.shed.load().pressure.may_try()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && self.phase() == Phase::Serving
    }
}

/// The handle of the data path. Dropping it leaves the path running; `drain` ends it.
pub struct DataPlane {
    plane: Arc<Plane>,
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
        options: DataOptions,
        counters: Arc<Counters>,
        node: Arc<NodeCounters>,
        log: GuestLog,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        rustix::net::listen(&listener, BACKLOG)?;
        let mut options = options;
        options.max_connections = options.max_connections.min(descriptors());
        let address = listener.local_addr()?;
        let slots = (engine.slots() as usize * 9 / 10).max(1);
        node.set_slots(slots as u64);
        let plane = Arc::new(Plane {
            engine,
            options,
            counters,
            node,
            log,
            slots: Arc::new(Semaphore::new(slots)),
            cold: Semaphore::new(COLD),
            guests: TaskTracker::new(),
            connections: TaskTracker::new(),
            table: ArcSwap::default(),
            version: watch::Sender::new(0),
            phase: watch::Sender::new(Phase::Serving),
            ready: AtomicBool::new(false),
            pressed: AtomicBool::new(false),
            shed: ArcSwap::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let shared = plane.clone();
        let thread = std::thread::Builder::new()
            .name("data".into())
            .spawn(move || {
                runtime.block_on(accept::run(shared, listener));
            })?;
        Ok(Self {
            plane,
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
        let old = self.plane.table.swap(table);
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.push(old);
        // freeing a large table takes longer than a request may wait, so it is not left to the last
        // request that used it
        retired.retain(|table| Arc::strong_count(table) > 1);
        drop(retired);
        self.plane.version.send_modify(|version| *version += 1);
    }

    /// The table requests are routed by now.
    pub fn table(&self) -> Arc<RoutingTable> {
        self.plane.table()
    }

    /// What load balancers are told on the data port.
    pub fn set_ready(&self, ready: bool) {
        self.plane.ready.store(ready, Ordering::Relaxed);
    }

    /// What to refuse from now on for want of memory.
    pub fn shed(&self, shed: Shed) {
        let pressed = shed.pressure != Pressure::None;
        self.plane.shed.store(Arc::new(shed));
        self.plane.pressed.store(pressed, Ordering::Relaxed);
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.plane.engine
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.plane.counters
    }

    pub fn node_counters(&self) -> &Arc<NodeCounters> {
        &self.plane.node
    }

    /// Instance slots that are free at this moment.
    pub fn free_slots(&self) -> usize {
        self.plane.slots.available_permits()
    }

    /// Connections that are open at this moment.
    pub fn connections(&self) -> usize {
        self.plane.connections.len()
    }

    /// Whether the thread of the data path still turns its loop within `patience`.
    pub async fn answers_within(&self, patience: Duration) -> bool {
        let turned = self.plane.node.ask_turn();
        tokio::time::timeout(patience, turned).await.is_ok()
    }

    /// Goes on accepting for `propagation`, then lets what runs finish for at most `timeout`, then
    /// cuts what is left. Returns when the thread has ended.
    pub async fn drain(&self, propagation: Duration, timeout: Duration) {
        self.plane.phase.send_replace(Phase::Leaving);
        tokio::time::sleep(propagation).await;
        self.plane.phase.send_replace(Phase::Finishing);
        self.plane.connections.close();
        let finished = self.plane.connections.wait();
        if tokio::time::timeout(timeout, finished).await.is_err() {
            tracing::warn!(
                connections = self.connections(),
                "drain timed out, cutting connections"
            );
        }
        self.plane.phase.send_replace(Phase::Over);
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
