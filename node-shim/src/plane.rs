//! What every connection and every request of the data path shares.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use node_shim_core::cidr::Cidr;
use node_shim_core::pressure::Pressure;
use node_shim_core::table::FunctionKey;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::conn::ConnLimits;
use crate::counters::Counters;
use crate::engine::Engine;
use crate::guest_log::GuestLog;
use crate::node_counters::NodeCounters;
use crate::table::RoutingTable;

/// Requests that wait for code at once.
const COLD: usize = 1_000;

/// How the data path treats connections.
#[derive(Clone, Debug)]
pub struct DataOptions {
    /// Limits of one connection.
    pub connections: ConnLimits,
    /// Most open connections at once. Default 10,000.
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
    /// Without a route and not ready.
    pub(crate) fn new(
        engine: Engine,
        options: DataOptions,
        counters: Arc<Counters>,
        node: Arc<NodeCounters>,
        log: GuestLog,
    ) -> Self {
        let slots = (engine.slots() as usize * 9 / 10).max(1);
        node.set_slots(slots as u64);
        Self {
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
        }
    }

    /// Replaces the whole table at once and returns the old one, which requests may still use.
    pub(crate) fn publish(&self, table: Arc<RoutingTable>) -> Arc<RoutingTable> {
        let old = self.table.swap(table);
        self.version.send_modify(|version| *version += 1);
        old
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    pub(crate) fn shed(&self, shed: Shed) {
        let pressed = shed.pressure != Pressure::None;
        self.shed.store(Arc::new(shed));
        self.pressed.store(pressed, Ordering::Relaxed);
    }

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
