//! Many functions at once: what they cost is counted, from watch to status, with everything but the network.

use std::collections::BTreeMap;

use crate::dispatch::Dispatch;
use crate::node_api::SimulatedNode;
use crate::node_liveness;

use super::*;

pub(super) const NODES: [&str; 3] = ["n-1", "n-2", "n-3"];

/// A control plane that runs: caches that follow the API server, workers, three nodes that load at once.
pub(super) struct Running {
    pub(super) world: World,
    pub(super) tasks: tokio::task::JoinSet<()>,
}

/// What was done so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) reconciles: f64,
    status_writes: f64,
    claim_lists: usize,
}

impl Running {
    pub(super) async fn start() -> Self {
        let mut world = World::new();
        let reconciler = Arc::clone(&world.reconciler);
        for node in NODES {
            let object =
                json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node } });
            world.fake.put(&format!("/api/v1/nodes/{node}"), object);
        }
        let mut tasks = tokio::task::JoinSet::new();
        let (changed, changes) = mpsc::unbounded_channel();
        for watch in reconciler.caches.watch(&world.fake.client(), &changed) {
            tasks.spawn(watch);
        }
        reconciler.caches.filled().await;
        world.tables.synced(1);
        for node in NODES {
            let node = SimulatedNode::connect(node, &world.tables, &reconciler.fleet);
            tasks.spawn(node.run());
        }
        let dispatch = Dispatch {
            caches: reconciler.caches.clone(),
            projector: reconciler.projector.clone(),
            queue: reconciler.queue.clone(),
            metrics: reconciler.metrics.clone(),
        };
        let secrets = std::mem::replace(&mut world.secrets, mpsc::unbounded_channel().1);
        tasks.spawn(dispatch.clone().follow_secrets(secrets, |_| ()));
        let maps = std::mem::replace(&mut world.config_maps, mpsc::unbounded_channel().1);
        tasks.spawn(dispatch.clone().follow_config_maps(maps));
        tasks.spawn(dispatch.clone().follow_fleet(reconciler.fleet.subscribe()));
        let fleet = reconciler.fleet.clone();
        tasks.spawn(node_liveness::follow(dispatch.clone(), fleet));
        tasks.spawn(dispatch.follow_caches(changes));
        tasks.spawn(run(reconciler, 3));
        Self { world, tasks }
    }

    /// Applies functions `from..to`, each with a host of its own, as fast as the API server takes them.
    fn apply(&self, from: usize, to: usize) {
        for n in from..to {
            let object = json!({
                "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction",
                "metadata": {
                    "name": format!("f-{n}"), "namespace": "shop", "uid": format!("uid-{n}"), "generation": 1,
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                },
                "spec": { "source": { "inline": component() }, "routes": [{ "hosts": [format!("f-{n}.example")] }] },
            });
            self.world.fake.put(&format!("{FUNCTIONS}/f-{n}"), object);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let text = String::from_utf8(self.world.reconciler.metrics.render()).unwrap();
        let sum = |series: &str| {
            let lines = text.lines().filter(|line| line.starts_with(series));
            lines
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum()
        };
        Counts {
            reconciles: sum("selvage_reconcile_seconds_count"),
            status_writes: sum("selvage_status_writes_total"),
            claim_lists: self.world.fake.lists(CLAIMS),
        }
    }

    /// Number of functions of which the status reports that all nodes follow.
    pub(super) fn distributed(&self) -> usize {
        let all = self.world.fake.under(FUNCTIONS);
        let settled = |object: &&Value| {
            object["status"]["nodes"]["applied"] == json!(NODES.len())
                && object["status"]["phase"] == "Ready"
        };
        all.iter().filter(settled).count()
    }

    /// Time enough for the writes of so many functions at their common rate, and some more.
    pub(super) async fn settle(&self, functions: usize) {
        let line = Duration::from_secs(functions as u64 / 5);
        tokio::time::sleep(line + Duration::from_secs(60)).await;
    }
}

/// The work for one function does not depend on how many there are, and functions at rest cost nothing.
#[tokio::test(start_paused = true)]
async fn many_functions_at_once_cost_each_a_few_reconciles_and_at_rest_none() {
    let mut running = Running::start().await;
    let mut before = running.counts();
    let mut cost = BTreeMap::new();
    for (from, to) in [(0, 20), (20, 60)] {
        running.apply(from, to);
        running.settle(to - from).await;
        assert_eq!(running.distributed(), to);
        let after = running.counts();
        let new = (to - from) as f64;
        println!("{new} more: {before:?} to {after:?}");
        let reconciles = (after.reconciles - before.reconciles) / new;
        let writes = (after.status_writes - before.status_writes) / new;
        assert!(reconciles <= 12.0, "{reconciles} reconciles a function");
        assert!(writes <= 3.0, "{writes} status writes a function");
        assert_eq!(after.claim_lists, before.claim_lists, "lists of all claims");
        cost.insert(to, reconciles);
        before = after;
    }
    assert!(cost[&60] <= cost[&20] + 1.0, "{cost:?}");
    tokio::time::sleep(Duration::from_secs(600)).await;
    let after = running.counts();
    assert_eq!(after.reconciles, before.reconciles, "reconciles at rest");
    running.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_that_is_given_up_goes_to_the_function_that_was_refused_for_it() {
    let mut running = Running::start().await;
    let function = |name: &str, host: &str, generation: u32| {
        let object = json!({
            "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction",
            "metadata": {
                "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": generation,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": { "source": { "inline": component() }, "routes": [{ "hosts": [host] }] },
        });
        let path = format!("{FUNCTIONS}/{name}");
        let mut there = running.world.fake.get(&path).unwrap_or_default();
        for part in ["apiVersion", "kind", "metadata", "spec"] {
            there[part] = object[part].clone();
        }
        running.world.fake.put(&path, there);
    };
    function("a", "shared.example", 1);
    running.settle(1).await;
    function("b", "shared.example", 1);
    running.settle(1).await;
    running.world.is_stalled("b", "RouteConflict");
    function("a", "moved.example", 2);
    running.settle(2).await;
    assert_eq!(running.world.condition("b", "Accepted").0, "True");
    assert_eq!(running.world.condition("b", "Ready").0, "True");
    running.tasks.shutdown().await;
}
