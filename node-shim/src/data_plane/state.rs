//! What every connection and every request of the data path shares.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use node_shim_core::cidr::Cidr;
use node_shim_core::memory_pressure::MemoryPressure;
use node_shim_core::table::FunctionKey;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::connection::ConnectionLimits;
use crate::counters::CounterTable;
use crate::engine::Engine;
use crate::guest_log::GuestLog;
use crate::node_counters::NodeCounters;
use crate::routing_table::RoutingTable;

/// Requests that wait for code at once.
const MAX_COLD_STARTS: usize = 1_000;

/// How the data path treats connections.
#[derive(Clone, Debug)]
pub struct DataPlaneOptions {
    pub connections: ConnectionLimits,
    pub max_connections: usize,
    /// From one address, unless it is a trusted proxy.
    pub max_per_peer: u32,
    /// Peers whose word about their clients is taken.
    pub trusted_proxies: Vec<Cidr>,
}

impl Default for DataPlaneOptions {
    fn default() -> Self {
        Self {
            connections: ConnectionLimits::default(),
            max_connections: 10_000,
            max_per_peer: 256,
            trusted_proxies: Vec::new(),
        }
    }
}

impl DataPlaneOptions {
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|cidr| cidr.contains(peer))
    }
}

/// How far the data path is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DrainPhase {
    Serving,
    /// Still accepting, because not everybody knows yet; connections close as they fall idle.
    Announcing,
    /// No new connections; what runs may finish.
    Draining,
    /// Whatever is left is cut.
    Stopped,
}

/// What is given up for want of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadShedding {
    /// How short memory is.
    pub pressure: MemoryPressure,
    /// Functions with recent traffic; looked at when others are refused.
    pub recent_traffic: BTreeSet<FunctionKey>,
}

/// What every connection and every request shares.
pub(crate) struct DataPlaneState {
    pub(crate) engine: Engine,
    pub(crate) options: DataPlaneOptions,
    pub(crate) counters: Arc<CounterTable>,
    pub(crate) node_counters: Arc<NodeCounters>,
    pub(crate) log: GuestLog,
    /// Below the pool's slots, so that a full pool is noticed before a store is made.
    pub(crate) instance_slots: Arc<Semaphore>,
    pub(crate) cold_starts: Semaphore,
    pub(crate) guests: TaskTracker,
    pub(crate) connections: TaskTracker,
    table: ArcSwap<RoutingTable>,
    version: watch::Sender<u64>,
    phase: watch::Sender<DrainPhase>,
    ready: AtomicBool,
    /// Whether `shed` says anything: all that a request looks at in good times.
    under_pressure: AtomicBool,
    shed: ArcSwap<LoadShedding>,
}

impl DataPlaneState {
    /// Without a route and not ready.
    pub(crate) fn new(
        engine: Engine,
        options: DataPlaneOptions,
        counters: Arc<CounterTable>,
        node: Arc<NodeCounters>,
        log: GuestLog,
    ) -> Self {
        let slots = (engine.instance_slots() as usize * 9 / 10).max(1);
        node.set_instance_slots(slots as u64);
        Self {
            engine,
            options,
            counters,
            node_counters: node,
            log,
            instance_slots: Arc::new(Semaphore::new(slots)),
            cold_starts: Semaphore::new(MAX_COLD_STARTS),
            guests: TaskTracker::new(),
            connections: TaskTracker::new(),
            table: ArcSwap::default(),
            version: watch::Sender::new(0),
            phase: watch::Sender::new(DrainPhase::Serving),
            ready: AtomicBool::new(false),
            under_pressure: AtomicBool::new(false),
            shed: ArcSwap::default(),
        }
    }

    /// Replaces the whole table at once and returns the old one, which requests may still use.
    pub(crate) fn publish(&self, table: Arc<RoutingTable>) -> Arc<RoutingTable> {
        let old = self.table.swap(table);
        self.version.send_modify(|version| *version += 1);
        old
    }

    pub(crate) fn set_phase(&self, phase: DrainPhase) {
        self.phase.send_replace(phase);
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    pub(crate) fn set_load_shedding(&self, shed: LoadShedding) {
        let pressed = shed.pressure != MemoryPressure::None;
        self.shed.store(Arc::new(shed));
        self.under_pressure.store(pressed, Ordering::Relaxed);
    }

    pub(crate) fn table(&self) -> Arc<RoutingTable> {
        self.table.load_full()
    }

    /// Changes with every table.
    pub(crate) fn watch_table(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn phase(&self) -> DrainPhase {
        *self.phase.borrow()
    }

    pub(crate) fn watch_phase(&self) -> watch::Receiver<DrainPhase> {
        self.phase.subscribe()
    }

    /// Whether memory is left for a request of this function.
    pub(crate) fn allows_request(&self, function: &FunctionKey) -> bool {
        if !self.under_pressure.load(Ordering::Relaxed) {
            return true;
        }
        let shed = self.shed.load();
        shed.pressure
            .allows_request(shed.recent_traffic.contains(function))
    }

    /// Whether memory is left for candidates.
    pub(crate) fn allows_candidate(&self) -> bool {
        !self.under_pressure.load(Ordering::Relaxed) || self.shed.load().pressure.allows_candidate()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && self.phase() == DrainPhase::Serving
    }
}
