//! State of the data plane that all connections and requests share.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use node_shim_core::key_value::MemoryLimits;
use node_shim_core::memory_pressure::MemoryPressure;
use node_shim_core::table::FunctionKey;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::cold_starts::ColdStarts;
use super::stop_flag::StopFlag;
use crate::access_log::AccessLogOptions;
use crate::connection::ConnectionLimits;
use crate::counters::CounterTable;
use crate::egress::{EgressClient, EgressOptions};
use crate::engine::Engine;
use crate::forward::Forwarder;
use crate::guest_log::GuestLog;
use crate::instance::IdleInstances;
use crate::instance_budget::{GiveWay, InstanceBudget};
use crate::key_value::{KeyValueStores, RedisNetwork};
use crate::node_counters::NodeCounters;
use crate::open_request::RequestReports;
use crate::routing_table::RoutingTable;
use crate::traces::Tracer;

/// Options of the data plane.
#[derive(Clone, Debug)]
pub struct DataPlaneOptions {
    /// Number of threads that serve requests. Default: the number of cores that affinity and CPU limit of the process
    /// grant, at most 4.
    pub threads: NonZeroUsize,
    /// Timeouts and limits of each connection.
    pub connections: ConnectionLimits,
    /// Maximum number of open connections. Default: 10,000.
    pub max_connections: usize,
    /// Maximum number of open connections per peer, except for trusted proxies. A peer is an IPv4 address or an IPv6
    /// network of 64 bits. Default: 256.
    pub max_per_peer: u32,
    /// Networks of proxies whose forwarding headers are trusted. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Memory of key-value stores. Default: 64 MiB, of which one namespace uses at most 16 MiB.
    pub key_value: MemoryLimits,
    /// Whether key-value stores may be in Redis servers on this host, as only a machine without a cluster wants.
    /// Default: no.
    pub loopback_stores: bool,
    /// Outbound requests of functions, and the network of key-value stores in Redis.
    pub egress: EgressOptions,
    /// Which requests are logged. Default: none.
    pub access_log: AccessLogOptions,
    /// Whether responses of functions have the header field `server-timing`. Default: no.
    pub server_timing: bool,
    /// Records requests for a collector of traces. Default: none.
    pub tracer: Option<Arc<Tracer>>,
}

/// Returns the number of cores that affinity and CPU limit of the process grant, but at most four.
///
/// A memory that grows changes the mappings of the process, which interrupts every core that runs one of its threads. Two
/// threads answer 1.2 times as many requests of a guest that grows as one, at 1.4 times the CPU time for each (`bench
/// threads`), and
/// 1.7 times as many of one that does not grow. What many threads do to each other has not been measured.
fn automatic_threads() -> NonZeroUsize {
    const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);
    let cores = std::thread::available_parallelism();
    cores.unwrap_or(NonZeroUsize::MIN).min(MOST)
}

impl Default for DataPlaneOptions {
    fn default() -> Self {
        Self {
            threads: automatic_threads(),
            connections: ConnectionLimits::default(),
            max_connections: 10_000,
            max_per_peer: 256,
            trusted_proxies: Vec::new(),
            key_value: MemoryLimits::default(),
            loopback_stores: false,
            egress: EgressOptions::default(),
            access_log: AccessLogOptions::default(),
            server_timing: false,
            tracer: None,
        }
    }
}

impl DataPlaneOptions {
    /// Returns the defaults with this number of threads; `None` is the default number.
    #[must_use]
    pub fn with_threads(threads: Option<NonZeroUsize>) -> Self {
        let default = Self::default();
        Self {
            threads: threads.unwrap_or(default.threads),
            ..default
        }
    }

    /// Returns whether the peer is a trusted proxy. An IPv4-mapped IPv6 address counts as IPv4.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let mut trusted = self.trusted_proxies.iter();
        trusted.any(|network| network.contains(&peer))
    }
}

/// Error returned when a string is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an address with an optional /prefix, like 10.0.0.0/8")]
pub struct NetworkError;

/// Parses a network in CIDR notation. An address without a prefix is a network of one address.
///
/// # Errors
/// Fails when the text is neither a network nor an address.
pub fn parse_network(text: &str) -> Result<IpNet, NetworkError> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| address())
        .map_err(|_| NetworkError)
}

/// Phase of the data plane, from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DataPlanePhase {
    /// Not accepting connections yet.
    Starting,
    /// Normal operation.
    Serving,
    /// Still accepting connections, because load balancers may not have noticed yet. Idle connections
    /// are closed.
    Announcing,
    /// No new connections; requests in progress may finish.
    Draining,
    /// All remaining connections are closed.
    Stopped,
}

/// Waits until the data plane has reached a phase.
pub(crate) async fn wait_for_phase(
    phases: &mut watch::Receiver<DataPlanePhase>,
    phase: DataPlanePhase,
) {
    // the sender lives as long as the data plane, which the caller holds
    let _ = phases.wait_for(|now| *now >= phase).await;
}

/// Which requests to reject because of memory pressure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadShedding {
    /// Current level of memory pressure.
    pub pressure: MemoryPressure,
    /// Functions with recent traffic, which are served while requests to others are rejected.
    pub recent_traffic: BTreeSet<FunctionKey>,
}

/// State shared by all connections and requests.
pub(crate) struct DataPlaneState {
    /// Held also for its epochs, which end with the last handle.
    pub(crate) engine: Engine,
    pub(crate) options: DataPlaneOptions,
    pub(crate) counters: Arc<CounterTable>,
    pub(crate) node_counters: Arc<NodeCounters>,
    pub(crate) log: GuestLog,
    /// `None` when single requests are not reported.
    pub(crate) reports: Option<RequestReports>,
    /// Has fewer slots than the pool, so that a full pool is detected before a store is created.
    pub(crate) budget: Arc<InstanceBudget>,
    pub(crate) key_value: Arc<KeyValueStores>,
    pub(crate) egress: Arc<EgressClient>,
    pub(crate) forwarder: Forwarder,
    pub(crate) cold_starts: ColdStarts,
    pub(crate) guests: TaskTracker,
    pub(crate) idle: Arc<IdleInstances>,
    pub(crate) connections: TaskTracker,
    pub(crate) stop_flag: StopFlag,
    table: ArcSwap<RoutingTable>,
    version: watch::Sender<u64>,
    phase: watch::Sender<DataPlanePhase>,
    ready: AtomicBool,
    /// Whether there is memory pressure. Without it, requests read only this flag.
    under_pressure: AtomicBool,
    shed: ArcSwap<LoadShedding>,
}

impl DataPlaneState {
    /// Returns the initial state: an empty routing table, not ready and not accepting connections.
    pub(crate) fn new(
        engine: Engine,
        options: DataPlaneOptions,
        counters: Arc<CounterTable>,
        node: Arc<NodeCounters>,
        log: GuestLog,
    ) -> Self {
        let slots = (u64::from(engine.instance_slots()) * 9 / 10).max(1);
        node.set_instance_slots(slots);
        let budget = InstanceBudget::new(slots, engine.guest_memory());
        let idle = IdleInstances::new(node.clone());
        let gives_way: Arc<dyn GiveWay> = idle.clone();
        budget.set_idle(Arc::downgrade(&gives_way));
        Self {
            budget,
            idle,
            key_value: Arc::new(KeyValueStores::new(
                options.key_value,
                RedisNetwork::new(options.egress.clone(), options.loopback_stores),
            )),
            egress: EgressClient::new(options.egress.clone()),
            forwarder: Forwarder::new(),
            reports: RequestReports::new(&log, options.access_log, options.tracer.clone()),
            engine,
            options,
            counters,
            node_counters: node,
            log,
            cold_starts: ColdStarts::new(),
            guests: TaskTracker::new(),
            connections: TaskTracker::new(),
            stop_flag: StopFlag::default(),
            table: ArcSwap::default(),
            version: watch::Sender::new(0),
            phase: watch::Sender::new(DataPlanePhase::Starting),
            ready: AtomicBool::new(false),
            under_pressure: AtomicBool::new(false),
            shed: ArcSwap::default(),
        }
    }

    /// Replaces the routing table atomically and returns the old one, which requests may still use.
    pub(crate) fn publish(&self, table: Arc<RoutingTable>) -> Arc<RoutingTable> {
        let old = self.table.swap(table.clone());
        self.idle.publish(&table);
        self.version.send_modify(|version| *version += 1);
        old
    }

    /// Ends the phase `Starting`.
    pub(crate) fn open(&self) {
        self.phase.send_if_modified(|phase| {
            let is_starting = *phase == DataPlanePhase::Starting;
            if is_starting {
                *phase = DataPlanePhase::Serving;
            }
            is_starting
        });
    }

    pub(crate) fn set_phase(&self, phase: DataPlanePhase) {
        if phase == DataPlanePhase::Stopped {
            // before any connection is closed
            self.stop_flag.set();
        }
        if phase != DataPlanePhase::Serving {
            self.idle.drain();
        }
        self.phase.send_replace(phase);
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    pub(crate) fn set_load_shedding(&self, shed: LoadShedding) {
        let pressed = shed.pressure != MemoryPressure::None;
        self.idle
            .set_pressure(!shed.pressure.allows_idle_instances());
        self.shed.store(Arc::new(shed));
        self.under_pressure.store(pressed, Ordering::Relaxed);
    }

    pub(crate) fn table(&self) -> Arc<RoutingTable> {
        self.table.load_full()
    }

    /// Returns a receiver that is notified of every new routing table.
    pub(crate) fn watch_table(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn phase(&self) -> DataPlanePhase {
        *self.phase.borrow()
    }

    pub(crate) fn watch_phase(&self) -> watch::Receiver<DataPlanePhase> {
        self.phase.subscribe()
    }

    /// Returns whether memory pressure allows a request to the function.
    pub(crate) fn allows_request(&self, function: &FunctionKey) -> bool {
        if !self.under_pressure.load(Ordering::Relaxed) {
            return true;
        }
        let shed = self.shed.load();
        shed.pressure
            .allows_request(shed.recent_traffic.contains(function))
    }

    /// Returns whether memory pressure allows candidates to serve requests.
    pub(crate) fn allows_candidate(&self) -> bool {
        !self.under_pressure.load(Ordering::Relaxed) || self.shed.load().pressure.allows_candidate()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && self.phase() == DataPlanePhase::Serving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_addresses_of_their_own_family() {
        let table = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("fd00::/8", "fd12::1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
        ];
        for (network, peer, expected) in table {
            let options = DataPlaneOptions {
                trusted_proxies: vec![parse_network(network).unwrap()],
                ..DataPlaneOptions::default()
            };
            let trusted = options.trusts(peer.parse().unwrap());
            assert_eq!(trusted, expected, "{network} {peer}");
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/x",
            "host/8",
        ] {
            assert_eq!(parse_network(bad), Err(NetworkError), "{bad}");
        }
    }
}
