//! A data plane with one function that serves all requests.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use node_shim::ConnectionLimits;
use node_shim::config_value::ConfigValue;
use node_shim::counters::CounterTable;
use node_shim::data_plane::{DataPlane, DataPlaneOptions, Listeners};
use node_shim::egress::FunctionAuthorities;
use node_shim::engine::{Engine, EngineOptions};
use node_shim::guest_log::GuestLog;
use node_shim::key_value::{StoreKind, StoreSpec};
use node_shim::node_counters::NodeCounters;
use node_shim::revision::{Revision, RevisionSpec};
use node_shim::routing_table::{RevisionSlot, RoutingTable, ServedFunction};
use node_shim::tls::Certificates;
use node_shim_core::bounds_checks::BoundsChecks;
use node_shim_core::egress::{AllowList, EgressEntry};
use node_shim_core::instance_reuse::ReusePolicy;
use node_shim_core::table::{
    FunctionEntry, FunctionKey, Limits, RevisionName, Route, TrafficSplit,
};
use parking_lot::Mutex;

/// Engine shared by all tests of the program, because a process has one pool. Each node admits as many requests as the
/// whole pool holds, so the pool is large enough for all tests that run at a time.
pub(crate) static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    Engine::new(&EngineOptions {
        memory_limit: 8 << 30,
        max_slots: 512,
        ..EngineOptions::small()
    })
    .unwrap()
});

/// Limit on waiting for events that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Node {
    pub(crate) plane: DataPlane,
    log: Arc<Mutex<Vec<u8>>>,
}

/// Configuration of a node.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) options: DataPlaneOptions,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) config: Vec<(String, String)>,
    /// Labels of key-value stores in memory.
    pub(crate) key_value: Vec<&'static str>,
    /// Other key-value stores.
    pub(crate) stores: Vec<StoreSpec>,
    /// Entries of `egress.allow`.
    pub(crate) egress: Vec<String>,
    pub(crate) authorities: Option<Arc<FunctionAuthorities>>,
    pub(crate) reuse: ReusePolicy,
    pub(crate) routes: Vec<Route>,
    pub(crate) engine: Engine,
    pub(crate) checks: BoundsChecks,
    /// Certificates of a second port, with TLS.
    pub(crate) certificates: Option<Arc<Certificates>>,
}

impl Default for Setup {
    /// The default CPU limit is long, because unoptimised hosts are slow.
    fn default() -> Self {
        let limits = Limits {
            cpu: Duration::from_secs(5),
            ..Limits::default()
        };
        let routes = vec![Route {
            hosts: vec!["*".into()],
            ..Route::default()
        }];
        Self {
            limits,
            // whatever the number of cores, so that requests meet on several threads and on no machine on more
            options: DataPlaneOptions::with_threads(NonZeroUsize::new(2)),
            env: Vec::new(),
            config: Vec::new(),
            key_value: Vec::new(),
            stores: Vec::new(),
            egress: Vec::new(),
            authorities: None,
            reuse: ReusePolicy::default(),
            routes,
            engine: ENGINE.clone(),
            checks: BoundsChecks::default(),
            certificates: None,
        }
    }
}

impl Setup {
    pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> Self {
        let mut setup = Self::default();
        change(&mut setup.limits);
        setup
    }

    /// Returns the configuration of a node with one thread that serves requests.
    pub(crate) fn on_one_thread(mut self) -> Self {
        self.options.threads = NonZeroUsize::MIN;
        self
    }

    pub(crate) fn connections(change: impl FnOnce(&mut ConnectionLimits)) -> Self {
        let mut setup = Self::default();
        change(&mut setup.options.connections);
        setup
    }

    pub(crate) fn start(self, wasm: &[u8]) -> Node {
        let counters = CounterTable::new();
        let revision = self.revision("r1", wasm, &counters);
        let node = self.start_empty(counters);
        node.publish(vec![served(&revision, self.routes)]);
        node
    }

    pub(crate) fn revision(
        &self,
        name: &str,
        wasm: &[u8],
        counters: &CounterTable,
    ) -> Arc<Revision> {
        self.revision_of(FunctionKey::new("ns", "f"), name, wasm, counters)
    }

    pub(crate) fn revision_of(
        &self,
        function: FunctionKey,
        name: &str,
        wasm: &[u8],
        counters: &CounterTable,
    ) -> Arc<Revision> {
        let in_memory = self.key_value.iter().map(|label| memory(label));
        let key_value = in_memory.chain(self.stores.iter().cloned()).collect();
        let entries = self.egress.iter().map(|e| EgressEntry::parse(e).unwrap());
        let spec = RevisionSpec {
            function,
            name: RevisionName::new(name).unwrap(),
            limits: self.limits.clone(),
            env: values(&self.env),
            config: values(&self.config),
            key_value,
            egress: AllowList::new(entries.collect()),
            authorities: self.authorities.clone(),
            reuse: self.reuse,
        };
        let loaded = match self.checks {
            BoundsChecks::GuardPages => self.engine.compile_in_process(wasm),
            BoundsChecks::Explicit => self.engine.compile_explicit_in_process(wasm),
        };
        let loaded = loaded.unwrap_or_else(|error| panic!("{error:#}"));
        Revision::new(spec, loaded, counters).unwrap()
    }

    /// Starts a data plane without functions.
    pub(crate) fn start_empty(&self, counters: Arc<CounterTable>) -> Node {
        let node = self.start_unopened(counters, bind());
        node.plane.open().unwrap();
        node
    }

    /// Starts a data plane without functions that accepts no connections yet.
    pub(crate) fn start_unopened(&self, counters: Arc<CounterTable>, http: TcpListener) -> Node {
        let log: Arc<Mutex<Vec<u8>>> = Arc::default();
        let written = GuestLog::start("node-1", Box::new(Shared(log.clone()))).unwrap();
        let certificates = self.certificates.clone();
        let https = certificates.map(|certificates| (bind(), certificates));
        let listeners = Listeners { http, https };
        let plane = DataPlane::start(
            listeners,
            self.engine.clone(),
            self.options.clone(),
            counters,
            Arc::new(NodeCounters::default()),
            written,
        );
        let plane = plane.unwrap();
        Node { plane, log }
    }
}

fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// Returns a store in memory.
pub(crate) fn memory(label: &str) -> StoreSpec {
    StoreSpec {
        label: label.into(),
        kind: StoreKind::Memory,
    }
}

fn values(list: &[(String, String)]) -> Vec<(String, ConfigValue)> {
    list.iter()
        .map(|(name, value)| (name.clone(), ConfigValue::Plain(value.clone())))
        .collect()
}

pub(crate) fn served(revision: &Arc<Revision>, routes: Vec<Route>) -> ServedFunction {
    let entry = FunctionEntry {
        key: revision.function().clone(),
        created_ms: 0,
        routes,
        suspended: false,
        callers: Vec::new(),
        split: TrafficSplit {
            stable: Some(revision.name().clone()),
            ..TrafficSplit::default()
        },
    };
    ServedFunction {
        entry: Arc::new(entry),
        stable: RevisionSlot::Ready(revision.clone()),
        candidate: RevisionSlot::Absent,
    }
}

impl Node {
    pub(crate) fn serve(wasm: &[u8]) -> Self {
        Setup::default().start(wasm)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.plane.address()
    }

    pub(crate) fn publish(&self, functions: Vec<ServedFunction>) {
        self.plane
            .publish(Arc::new(RoutingTable::new(1, functions)));
        self.plane.set_ready(true);
    }

    /// Waits until `total` requests are counted. Returns `outcome code count` for every kind of request.
    pub(crate) fn outcomes(&self, total: u64) -> Vec<String> {
        let counted = || {
            let all = self.plane.counters().snapshot(|_| true);
            let requests = all
                .iter()
                .flat_map(|r| &r.populations)
                .flat_map(|p| &p.requests);
            requests.copied().collect::<Vec<_>>()
        };
        eventually("requests are counted", || {
            counted().iter().map(|r| r.count).sum::<u64>() >= total
        });
        counted()
            .iter()
            .map(|r| format!("{} {} {}", r.outcome.label(), r.code.label(), r.count))
            .collect()
    }

    /// Returns the labels and counts of the failure reasons.
    pub(crate) fn failures(&self) -> Vec<String> {
        let shown = self.plane.counters().shown();
        let reasons = shown.iter().flat_map(|c| c.failures().collect::<Vec<_>>());
        reasons
            .filter(|(_, n)| *n > 0)
            .map(|(reason, n)| format!("{} {n}", reason.label()))
            .collect()
    }

    pub(crate) fn slots(&self) -> usize {
        self.plane.node_counters().instance_slots() as usize
    }

    /// Waits until all instance slots are free.
    pub(crate) fn is_quiet(&self) {
        let all = self.slots();
        eventually("all slots are free", || {
            self.plane.free_instance_slots() == all
        });
    }

    /// Waits until the function has no running instances and this number of idle ones.
    pub(crate) fn has_idle(&self, number: usize) {
        eventually("idle instances", || {
            self.plane.idle_instances() == number
                && self.plane.free_instance_slots() + number == self.slots()
        });
    }

    /// Returns the causes for which instances were dropped, and their number.
    pub(crate) fn drops(&self) -> Vec<String> {
        let drops = self.plane.node_counters().instance_drops();
        let drops = drops.filter(|(_, count)| *count > 0);
        drops
            .map(|(cause, count)| format!("{} {count}", cause.label()))
            .collect()
    }

    /// Returns the guest log lines written so far.
    pub(crate) fn log(&self) -> Vec<serde_json::Value> {
        let bytes = self.log.lock().clone();
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }
}

/// Polls a condition that has no event to wait for.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
