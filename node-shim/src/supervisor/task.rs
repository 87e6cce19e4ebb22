//! The task that owns the node's state: it handles inputs, reconciles, and carries out the resulting actions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use node_shim_core::desired::Failure;
use node_shim_core::key_value::BucketId;
use node_shim_core::memory_pressure::MemoryPressure;
use node_shim_core::request_labels::Outcome;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::Instrument;

use super::admin_status::AdminStatus;
use super::node::{Node, RevisionKey};
use super::node_status::{DiskFailure, describe};
use super::state_writer::StateWriter;
use crate::clock::Now;
use crate::code_cache::{CodeCache, MappedCode};
use crate::counters::{CounterTable, RevisionSnapshot};
use crate::data_plane::LoadShedding;
use crate::disk::{DiskHealth, PersistedTable};
use crate::node_api::{Event, NodeStatus};
use crate::pull::ComponentRef;
use crate::routing_table::RoutingTable;

/// Interval of time-driven work.
const TICK: Duration = Duration::from_secs(1);
/// Maximum number of messages that are handled before each reconciliation.
const BURST: usize = 64;
/// Number of ticks between two observations of traffic.
const TRAFFIC_TICKS: u32 = 30;
/// Functions with traffic within this time are served even under memory pressure.
const RECENT: Duration = Duration::from_secs(600);
/// Minimum time between two snapshots for the disk.
const WRITE_GAP: Duration = Duration::from_secs(1);

/// Loads components: pulls, verifies, compiles and maps them.
pub(crate) trait Loader: Send + Sync {
    /// Attempts once to load a component.
    fn load(&self, component: ComponentRef) -> BoxFuture<'static, Result<MappedCode, Failure>>;
    /// Returns whether native code of the component is on disk, so that loading it needs no compilation.
    fn is_compiled(&self, digest: &str) -> bool;
}

/// Data path as seen by the supervisor.
pub(crate) trait Serve: Send + Sync {
    /// Replaces the routing table in effect.
    fn publish(&self, table: Arc<RoutingTable>);
    /// Removes the entries of all key-value stores in memory but these.
    fn retain_buckets(&self, kept: &BTreeSet<BucketId>);
    /// Drops the instances that wait for another request.
    fn drop_idle_instances(&self);
    /// Sets the readiness that the data port reports to load balancers.
    fn set_ready(&self, ready: bool);
    /// Sets the key of the header `selvage-hops`, unless it is empty.
    fn set_hop_key(&self, key: &[u8]);
    /// Sets which requests are rejected under memory pressure.
    fn shed(&self, shed: LoadShedding);
}

/// Parts of the process that the task uses.
pub(crate) struct Wiring {
    pub(crate) loader: Arc<dyn Loader>,
    pub(crate) serve: Arc<dyn Serve>,
    /// Writer of the state on disk; `None` if its thread could not be started.
    pub(crate) state_writer: Option<StateWriter>,
    pub(crate) health: Arc<DiskHealth>,
    pub(crate) counters: Arc<CounterTable>,
    pub(crate) node_status: watch::Sender<Arc<NodeStatus>>,
    pub(crate) admin_status: Arc<AdminStatus>,
    pub(crate) code_cache: Arc<CodeCache>,
    /// Returns the current memory pressure.
    pub(crate) memory: Box<dyn Fn() -> MemoryPressure + Send + Sync>,
    /// Returns random numbers in [0, 1).
    pub(crate) random: Box<dyn FnMut() -> f64 + Send + Sync>,
}

/// Inputs of the task.
pub(crate) struct Inputs {
    pub(crate) api: mpsc::Receiver<Event>,
    /// Table of the process that owned the disk before this one.
    pub(crate) inherited: mpsc::Receiver<PersistedTable>,
    /// Digests of components whose native code could not be mapped again.
    pub(crate) code_lost: mpsc::UnboundedReceiver<String>,
    /// Requests that the latest state is passed to the state writer; answered when that is done.
    pub(crate) stop: oneshot::Receiver<oneshot::Sender<()>>,
}

struct Task {
    node: Node,
    wiring: Wiring,
    finished: mpsc::Sender<(String, Result<MappedCode, Failure>)>,
    last_save: Option<Instant>,
    disk_failing_since: Option<u64>,
    ticks: u32,
}

/// Runs until `inputs.stop` receives a request or its sender is dropped.
pub(crate) async fn run(node: Node, wiring: Wiring, mut inputs: Inputs) {
    let (finished, mut results) = mpsc::channel(BURST);
    let mut task = Task {
        node,
        wiring,
        finished,
        last_save: None,
        disk_failing_since: None,
        ticks: 0,
    };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    task.update_memory_pressure();
    task.reconcile();
    loop {
        tokio::select! {
            // Without a configured operator this branch is never taken, and the table from disk is served.
            Some(event) = inputs.api.recv() => {
                task.handle(event);
                for _ in 0..BURST {
                    let Ok(event) = inputs.api.try_recv() else { break };
                    task.handle(event);
                }
            }
            Some(table) = inputs.inherited.recv() => task.node.inherit_table(table, Now::read()),
            Some((digest, outcome)) = results.recv() => {
                let random = (task.wiring.random)();
                task.node.load_finished(&digest, outcome, Now::read(), random);
            }
            Some(digest) = inputs.code_lost.recv() => task.node.code_lost(&digest),
            _ = tick.tick() => task.tick(),
            // A dropped sender ends the task too.
            done = &mut inputs.stop => {
                task.save_snapshot();
                let _ = done.map(|done| done.send(()));
                return;
            }
        }
        task.reconcile();
    }
}

impl Task {
    fn handle(&mut self, event: Event) {
        if let Event::Connected(welcome) = &event
            && let Some(key) = &welcome.hop_key
        {
            self.wiring.serve.set_hop_key(&key.key);
        }
        self.node.handle(event, Now::read());
    }

    fn tick(&mut self) {
        self.node.tick(Now::read());
        self.update_memory_pressure();
        let code_cache = Arc::clone(&self.wiring.code_cache);
        if code_cache.mapped() > code_cache.cap() {
            // idle instances use their code
            self.wiring.serve.drop_idle_instances();
            tokio::task::spawn_blocking(move || code_cache.trim());
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TRAFFIC_TICKS) {
            self.node
                .observe_traffic(totals(&self.wiring.counters), Now::read());
        }
    }

    fn update_memory_pressure(&mut self) {
        let pressure = (self.wiring.memory)();
        let before = std::mem::replace(&mut self.node.pressure, pressure);
        if pressure != before {
            tracing::warn!(?pressure, ?before, "memory pressure changed");
        }
        if pressure != before || pressure != MemoryPressure::None {
            let recent = self.node.recent_traffic.within(RECENT, Now::read().wall);
            self.wiring.serve.shed(LoadShedding {
                pressure,
                recent_traffic: recent,
            });
        }
    }

    fn reconcile(&mut self) {
        let at = Now::read();
        let loader = Arc::clone(&self.wiring.loader);
        let actions = self.node.reconcile(at, |digest| loader.is_compiled(digest));
        if let Some(table) = actions.publish {
            self.wiring.serve.publish(table);
            self.wiring.serve.retain_buckets(&self.node.buckets());
        }
        for component in actions.load {
            let (loader, finished) = (Arc::clone(&self.wiring.loader), self.finished.clone());
            let span = self.node.load_span(&component.digest);
            let load = async move {
                let digest = component.digest.clone();
                let outcome = loader.load(component).await;
                let _ = finished.send((digest, outcome)).await;
            };
            tokio::spawn(load.instrument(span));
        }
        self.publish_status(at);
        let early = self
            .last_save
            .is_some_and(|last| last.elapsed() < WRITE_GAP);
        if !early {
            self.save_snapshot();
        }
    }

    fn publish_status(&mut self, at: Now) {
        let disk_failure = self.wiring.health.trouble();
        self.disk_failing_since = disk_failure
            .as_ref()
            .map(|_| self.disk_failing_since.unwrap_or(at.wall));
        let shown = disk_failure.as_deref().zip(self.disk_failing_since);
        let shown = shown.map(|(message, since)| DiskFailure { message, since });
        let ready = self.node.ready(at);
        let status = describe(
            &self.node,
            shown,
            ready && !self.wiring.admin_status.is_draining(),
        );
        self.wiring.serve.set_ready(ready);
        self.wiring.admin_status.update(&self.node, ready);
        self.wiring.node_status.send_if_modified(|current| {
            let changed = **current != status;
            if changed {
                *current = Arc::new(status);
            }
            changed
        });
    }

    fn save_snapshot(&mut self) {
        let Some(state_writer) = &self.wiring.state_writer else {
            return;
        };
        if let Some(snapshot) = self.node.snapshot() {
            state_writer.save(snapshot);
            self.last_save = Some(Instant::now());
        }
    }
}

/// Returns the number of requests of each revision.
fn totals(counters: &CounterTable) -> BTreeMap<RevisionKey, u64> {
    let requests = |snapshot: &RevisionSnapshot| {
        snapshot
            .populations
            .iter()
            .flat_map(|population| &population.requests)
            // A function whose requests are all rejected needs no code.
            .filter(|one| one.outcome != Outcome::Overloaded)
            .map(|one| one.count)
            .sum()
    };
    let snapshots = counters.snapshot(|_| true).into_iter();
    snapshots
        .map(|one| {
            let requests = requests(&one);
            ((one.function, one.revision), requests)
        })
        .collect()
}
