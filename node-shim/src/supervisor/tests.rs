//! Tests of the node's task with paused time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use node_api::v1::env_var::Kind;
use node_api::v1::{Batch, EnvVar, FunctionRecord, SecretValue, SnapshotPhase, Welcome};
use node_shim_core::desired::{Failure, LoadFailure};
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::memory_pressure::MemoryPressure;
use node_shim_core::request_labels::{Outcome, Population, StartKind, StatusClass};
use node_shim_core::table::{FunctionKey, RevisionName};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::admin_status::AdminStatus;
use super::node::Node;
use super::parse_record::tests::record;
use super::recent_traffic::RecentTraffic;
use super::removed_functions::COUNTER_RETENTION;
use super::task::{self, Inputs, Loader, Serve, Wiring};
use crate::clock::{Now, unix_ms};
use crate::code_cache::tests::{Gated, unmap, waiting, within};
use crate::code_cache::{CodeCache, MappedCode};
use crate::counters::{CounterTable, FinishedRequest, RevisionCounters};
use crate::disk::{PersistedTable, TableHeader};
use crate::node_api::{Event, NodeStatus};
use crate::pull::ComponentRef;
use crate::routing_table::{RevisionSlot, RoutingTable};
use crate::test_support::logged;

const TTL: Duration = Duration::from_secs(600);

/// Loader whose attempts all fail, and which records when they were made.
#[derive(Default)]
struct UnreachableLoader(Mutex<BTreeMap<String, Vec<tokio::time::Instant>>>);

impl Loader for UnreachableLoader {
    fn load(&self, component: ComponentRef) -> BoxFuture<'static, Result<MappedCode, Failure>> {
        let mut asked = self.0.lock();
        asked
            .entry(component.digest)
            .or_default()
            .push(tokio::time::Instant::now());
        async { Err(Failure::new(LoadFailure::Pull, "unreachable")) }.boxed()
    }

    fn is_compiled(&self, digest: &str) -> bool {
        digest == super::parse_record::tests::digest('a')
    }
}

/// Records tables, and the last key for `selvage-hops`.
struct TableRecorder(watch::Sender<Arc<RoutingTable>>, watch::Sender<Vec<u8>>);

impl Serve for TableRecorder {
    fn publish(&self, table: Arc<RoutingTable>) {
        self.0.send_replace(table);
    }

    fn drop_idle_instances(&self) {}

    fn retain_buckets(&self, _: &BTreeSet<node_shim_core::key_value::BucketId>) {}

    fn set_ready(&self, _: bool) {}

    fn set_hop_key(&self, key: &[u8]) {
        self.1.send_replace(key.to_vec());
    }

    fn shed(&self, _: crate::data_plane::LoadShedding) {}
}

struct Harness {
    events: mpsc::Sender<Event>,
    tables: watch::Receiver<Arc<RoutingTable>>,
    hop_key: watch::Receiver<Vec<u8>>,
    loader: Arc<UnreachableLoader>,
    counters: Arc<CounterTable>,
    node_status: watch::Receiver<Arc<NodeStatus>>,
    _found: mpsc::Sender<PersistedTable>,
    stop: oneshot::Sender<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Harness {
    fn start(table: Option<PersistedTable>) -> Self {
        Self::start_under(table, MemoryPressure::None)
    }

    fn start_under(table: Option<PersistedTable>, pressure: MemoryPressure) -> Self {
        let (events, api) = mpsc::channel(16);
        let (inherited_sender, inherited) = mpsc::channel(1);
        let (stop_sender, stop) = oneshot::channel();
        let (tables, seen) = watch::channel(Arc::default());
        let (hop_keys, hop_key) = watch::channel(Vec::new());
        let counters = CounterTable::new();
        let (node_status, status_receiver) = watch::channel(Arc::new(NodeStatus::default()));
        let loader = Arc::new(UnreachableLoader::default());
        let (code_cache, code_lost) = CodeCache::new(1);
        let wiring = Wiring {
            loader: loader.clone(),
            serve: Arc::new(TableRecorder(tables, hop_keys)),
            state_writer: None,
            health: Arc::default(),
            counters: Arc::clone(&counters),
            node_status,
            admin_status: Arc::new(AdminStatus::default()),
            code_cache,
            memory: Box::new(move || pressure),
            random: Box::new(|| 1.0),
        };
        let now = Now::read();
        let node = Node::new(
            table,
            RecentTraffic::default(),
            Arc::clone(&counters),
            TTL,
            now,
        );
        let inputs = Inputs {
            api,
            inherited,
            code_lost,
            stop,
        };
        Self {
            events,
            tables: seen,
            hop_key,
            loader,
            counters,
            node_status: status_receiver,
            _found: inherited_sender,
            stop: stop_sender,
            task: tokio::spawn(task::run(node, wiring, inputs)),
        }
    }

    async fn connect(&self, resumed: bool) {
        let welcome = Welcome {
            protocol_version: 1,
            unsupervised_ttl: TTL.as_millis() as u64,
            resumed,
            hop_key: Some(node_api::v1::HopKey {
                key: b"key".to_vec(),
            }),
            ..Welcome::default()
        };
        self.events.send(Event::Connected(welcome)).await.unwrap();
    }

    async fn snapshot(&self, functions: Vec<FunctionRecord>) {
        self.snapshot_at(20, functions).await;
    }

    async fn snapshot_at(&self, version: u64, functions: Vec<FunctionRecord>) {
        let batch = Batch {
            version,
            snapshot: SnapshotPhase::Whole.into(),
            functions,
            ..Batch::default()
        };
        self.events.send(Event::Batch(batch)).await.unwrap();
    }

    /// Waits until the candidate of the only function has this weight.
    async fn weight(&mut self, weight: u32) {
        let reached = |table: &Arc<RoutingTable>| {
            table
                .functions()
                .first()
                .is_some_and(|served| served.entry.split.weight == weight)
        };
        let waited = tokio::time::timeout(TTL * 3, self.tables.wait_for(reached)).await;
        assert!(waited.is_ok(), "the weight never became {weight}");
    }
}

/// Returns the number of requests of each revision with counters, and whether its metrics are shown.
fn counted(counters: &CounterTable) -> Vec<(u64, bool)> {
    let all = counters.all();
    let requests = |one: &RevisionCounters| {
        let live = &one.snapshot().populations[0];
        live.requests.iter().map(|r| r.count).sum()
    };
    all.iter()
        .map(|one| (requests(one), one.is_shown()))
        .collect()
}

fn on_disk(alone_for: Duration) -> PersistedTable {
    let contact = unix_ms() - alone_for.as_millis() as u64;
    let ttl = TTL.as_millis() as u64;
    PersistedTable {
        header: TableHeader {
            version: 10,
            last_contact_ms: contact,
            unsupervised_ttl_ms: ttl,
            ..TableHeader::default()
        },
        functions: vec![record("f", 1)],
        ..PersistedTable::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_data_plane_receives_the_key_of_the_operator() {
    let mut node = Harness::start(None);
    node.connect(true).await;
    let received = node.hop_key.wait_for(|key| key == b"key");
    let received = tokio::time::timeout(TTL, received).await;
    assert!(received.is_ok_and(|key| key.is_ok()));
}

/// FD-4: a node without contact with an operator stops the traffic of its candidates by itself.
#[tokio::test(start_paused = true)]
async fn a_candidate_loses_its_traffic_after_the_ttl_until_the_table_is_confirmed() {
    let mut node = Harness::start(None);
    node.connect(false).await;
    node.snapshot(vec![record("f", 1)]).await;
    node.weight(1000).await;
    tokio::time::sleep(TTL * 2).await;
    node.weight(1000).await;

    let cut = tokio::time::Instant::now();
    node.events.send(Event::Disconnected).await.unwrap();
    node.weight(0).await;
    let took = cut.elapsed();
    assert!(
        took >= TTL && took <= TTL + Duration::from_secs(2),
        "{took:?}"
    );

    node.connect(false).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    node.weight(0).await;
    node.snapshot(vec![record("f", 1)]).await;
    node.weight(1000).await;
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_when_the_supervisor_is_dropped() {
    let Harness { stop, task, .. } = Harness::start(None);
    drop(stop);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_code_that_is_rebuilt() {
    let now = Now::read();
    let table = Some(on_disk(Duration::ZERO));
    let mut node = Node::new(
        table,
        RecentTraffic::default(),
        CounterTable::new(),
        TTL,
        now,
    );
    let (code_cache, mut code_lost) = CodeCache::new(2);
    let map = Gated::new(&code_cache, false);
    let digest = super::parse_record::tests::digest('a');
    let asked = |node: &mut Node| {
        let loads = node.reconcile(now, |_| true).load;
        loads.iter().any(|component| component.digest == digest)
    };
    assert!(asked(&mut node));
    node.load_finished(&digest, Ok(map.resident(true)), now, 1.0);
    assert!(!asked(&mut node));
    let code = Arc::clone(&node.codes[&digest]);
    unmap(&code);
    let request = waiting(&code);
    map.let_end(1);
    assert_eq!(within(code_lost.recv()).await.as_ref(), Some(&digest));
    node.code_lost(&digest);
    assert!(asked(&mut node), "the component is loaded again");
    node.load_finished(&digest, Ok(map.resident(true)), now, 1.0);
    within(request).await;
    assert!(Arc::ptr_eq(&code, &node.codes[&digest]));
}

#[test]
fn requests_do_not_wait_while_a_failed_load_is_repeated() {
    let start = Now::read();
    let mut node = Node::new(
        Some(on_disk(Duration::ZERO)),
        RecentTraffic::default(),
        CounterTable::new(),
        TTL,
        start,
    );
    let [stable, candidate] = ['a', 'b'].map(super::parse_record::tests::digest);
    assert_eq!(node.reconcile(start, |_| true).load.len(), 2);
    let fail = |node: &mut Node, digest: &str| {
        let unreachable = Failure::new(LoadFailure::Pull, "unreachable");
        node.load_finished(digest, Err(unreachable), start, 1.0);
    };
    let has_failed = |table: Option<Arc<RoutingTable>>| {
        let table = table.unwrap();
        let stable = &table.functions()[0].stable;
        matches!(stable, RevisionSlot::Failed(FailureReason::Unloadable))
    };
    fail(&mut node, &stable);
    assert!(has_failed(node.reconcile(start, |_| true).publish));
    let later = Now {
        at: start.at + Duration::from_secs(301),
        ..start
    };
    let again = node.reconcile(later, |_| true).load;
    assert_eq!(again[0].digest, stable);
    fail(&mut node, &candidate);
    assert!(has_failed(node.reconcile(later, |_| true).publish));
}

#[test]
fn log_lines_of_a_load_name_the_first_revision_that_needs_it_at_debug() {
    let node = Node::new(
        Some(on_disk(Duration::ZERO)),
        RecentTraffic::default(),
        CounterTable::new(),
        TTL,
        Now::read(),
    );
    let digest = super::parse_record::tests::digest('b');
    let act = || {
        node.load_span(&digest)
            .in_scope(|| tracing::warn!("inside"))
    };
    let span = &logged("debug", act)["span"];
    assert_eq!(span["digest"], digest.as_str());
    assert_eq!(span["function"], "ns/f");
    assert_eq!(span["revision"], "r2");
    assert_eq!(logged("info", act).get("span"), None);
}

/// Readiness waits for values of Secrets, but without a reachable operator the node still serves all other functions.
#[tokio::test(start_paused = true)]
async fn readiness_waits_ten_seconds_for_secret_values_and_not_once_an_operator_lacks_them() {
    let start = Now::read();
    let after = |seconds| Now {
        at: start.at + Duration::from_secs(seconds),
        ..start
    };
    let mut table = on_disk(Duration::ZERO);
    table.functions[0].definitions[0].env = vec![EnvVar {
        name: "DB_URL".into(),
        kind: Some(Kind::Secret(SecretValue {
            reference: "db/url".into(),
            value: None,
        })),
    }];
    let record = table.functions[0].clone();
    let mut node = Node::new(
        Some(table),
        RecentTraffic::default(),
        CounterTable::new(),
        TTL,
        start,
    );
    for component in node.reconcile(start, |_| true).load {
        let gone = Failure::new(LoadFailure::InvalidSource, "gone");
        node.load_finished(&component.digest, Err(gone), start, 1.0);
    }
    assert!(!node.ready(after(9)));
    assert!(node.ready(after(10)));
    let snapshot = Batch {
        version: 20,
        snapshot: SnapshotPhase::Whole.into(),
        functions: vec![record],
        ..Batch::default()
    };
    node.handle(Event::Batch(snapshot), start);
    assert!(
        node.ready(start),
        "the operator does not have the value either"
    );
}

/// All nodes receive a new function at the same time, so none would be left for the functions that are served already.
#[tokio::test(start_paused = true)]
async fn a_function_that_arrives_after_the_start_leaves_the_node_ready() {
    let start = Now::read();
    let recent = RecentTraffic::default();
    let mut node = Node::new(None, recent, CounterTable::new(), TTL, start);
    assert!(!node.ready(start), "there is no table yet");
    let batch = |version, functions| Batch {
        version,
        snapshot: SnapshotPhase::Whole.into(),
        functions,
        ..Batch::default()
    };
    node.handle(Event::Batch(batch(1, Vec::new())), start);
    assert!(node.ready(start));
    let functions = on_disk(Duration::ZERO).functions;
    node.handle(Event::Batch(batch(2, functions)), start);
    let loads = node.reconcile(start, |_| true).load;
    assert!(!loads.is_empty());
    assert!(node.ready(start));
}

/// FD-4: after a reconnection a rollback must arrive before the old weight takes effect again.
#[tokio::test(start_paused = true)]
async fn a_resumed_stream_restores_a_candidate_only_after_the_grace_period() {
    let mut node = Harness::start(Some(on_disk(TTL)));
    node.weight(0).await;
    node.connect(true).await;
    let connected = tokio::time::Instant::now();
    node.weight(1000).await;
    assert!(connected.elapsed() >= Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn time_without_contact_before_a_restart_counts() {
    let started = tokio::time::Instant::now();
    let mut node = Harness::start(Some(on_disk(TTL - Duration::from_secs(30))));
    node.weight(1000).await;
    node.weight(0).await;
    let took = started.elapsed();
    assert!(took <= Duration::from_secs(33), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn load_attempts_back_off_up_to_five_minutes() {
    let node = Harness::start(Some(on_disk(Duration::ZERO)));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let asked = node.loader.0.lock().clone();
    assert_eq!(asked.len(), 2, "both components");
    for times in asked.values() {
        let gaps: Vec<u64> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs())
            .collect();
        assert!(gaps.is_sorted(), "{gaps:?}");
        assert!(gaps.iter().all(|gap| *gap <= 301), "{gaps:?}");
        assert!((12..25).contains(&times.len()), "{gaps:?}");
    }
}

/// FN-7: compilation is the first work that stops under memory pressure.
#[tokio::test(start_paused = true)]
async fn fn_7_nothing_is_compiled_under_memory_pressure() {
    let node = Harness::start_under(Some(on_disk(Duration::ZERO)), MemoryPressure::High);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = node.loader.0.lock().clone();
    let digests: Vec<&String> = asked.keys().collect();
    assert_eq!(digests, [&super::parse_record::tests::digest('a')]);
}

#[tokio::test(start_paused = true)]
async fn counters_of_a_deleted_function_are_hidden_then_reported_and_then_dropped() {
    let mut node = Harness::start(None);
    let key = FunctionKey::new("ns", "f");
    let counters = Arc::clone(&node.counters);
    let count = || {
        let revision = RevisionName::new("r1").unwrap();
        counters.revision(&key, &revision).record(&FinishedRequest {
            population: Population::Live,
            outcome: Outcome::Ok,
            reason: None,
            code: StatusClass::C2xx,
            start: StartKind::Warm,
            head: None,
            duration: Duration::from_millis(1),
        });
    };
    let reported = |node_status: &Arc<NodeStatus>| node_status.in_rollout.contains(&key);
    node.connect(false).await;
    node.snapshot_at(20, vec![record("f", 1)]).await;
    node.weight(1000).await;
    count();
    node.snapshot_at(30, vec![]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(counted(&counters), [(1, false)], "hidden but not lost");
    assert!(
        reported(&node.node_status.borrow()),
        "operators receive the final counts"
    );

    // Created again within the retention, the function continues its counters.
    node.snapshot_at(40, vec![record("f", 1)]).await;
    node.weight(1000).await;
    count();
    tokio::time::sleep(COUNTER_RETENTION * 2).await;
    assert_eq!(counted(&counters), [(2, true)]);
    assert_eq!(node.node_status.borrow().counter_generation, 0);

    node.snapshot_at(50, vec![]).await;
    tokio::time::sleep(COUNTER_RETENTION - Duration::from_secs(5)).await;
    assert_eq!(counted(&counters), [(2, false)]);
    assert!(reported(&node.node_status.borrow()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(counted(&counters), []);
    assert!(!reported(&node.node_status.borrow()));
    assert_eq!(node.node_status.borrow().counter_generation, 1);
}
