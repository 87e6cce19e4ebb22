//! CustomResourceDefinitions that are deleted, together with all objects, and put back.

use super::logs::Log;
use super::many::{NODES, Running};
use super::*;

const GROUP: &str = "/apis/selvage.dev/";
const EDGE_NODES: &str = "/apis/selvage.dev/v1alpha1/edgenodes";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const KINDS: [&str; 5] = [
    "edgefunctions",
    "edgenodes",
    "edgerevisions",
    "hostclaims",
    "rolloutpolicies",
];
/// A guard keeps functions of which more than a fifth, and at least ten, disappear at once.
const FUNCTIONS_AT_REST: usize = 40;
/// Deletions that are applied before the guard sees that they are many.
const BELIEVED: usize = 9;

fn define(world: &World, created: &str) {
    for kind in KINDS {
        let name = format!("{kind}.selvage.dev");
        let object = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": name, "creationTimestamp": created },
        });
        world.fake.put(&format!("{DEFINITIONS}/{name}"), object);
    }
}

/// `kubectl delete crd edgefunctions.selvage.dev …`
fn delete_definitions(world: &World) {
    world.fake.remove_under(GROUP);
    world.fake.remove_under(DEFINITIONS);
    world
        .fake
        .fail(Box::new(|_, path| path.starts_with(GROUP).then_some(404)));
    world.fake.end_watches();
}

fn put_definitions_back(world: &World) {
    world.fake.fail(Box::new(|_, _| None));
    define(world, "2026-06-01T00:00:00Z");
}

fn put_edge_nodes(world: &World) {
    for node in NODES {
        let object = json!({
            "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeNode", "metadata": { "name": node }, "spec": {},
        });
        world.fake.put(&format!("{EDGE_NODES}/{node}"), object);
    }
}

/// Applies functions on all three nodes.
fn apply(world: &World, functions: usize, uid: &str, created: &str) {
    for n in 0..functions {
        let object = json!({
            "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction",
            "metadata": {
                "name": format!("f-{n}"), "namespace": "shop", "uid": format!("{uid}-{n}"), "generation": 1,
                "creationTimestamp": created,
            },
            "spec": {
                "source": { "inline": component() },
                "routes": [{ "hosts": [format!("f-{n}.example")] }],
                "placement": { "replicas": NODES.len() },
            },
        });
        world.fake.put(&format!("{FUNCTIONS}/f-{n}"), object);
    }
}

async fn at_rest(functions: usize) -> Running {
    let running = Running::start().await;
    define(&running.world, "2025-01-01T00:00:00Z");
    put_edge_nodes(&running.world);
    apply(&running.world, functions, "uid", "2026-01-01T00:00:00Z");
    running.settle(functions).await;
    assert_eq!(running.distributed(), functions);
    running
}

/// FC-19: nodes serve what the guard keeps, the log stays short, and after the definitions and functions are applied again
/// everything works without a restart of the operator.
#[tokio::test(start_paused = true)]
async fn fc_19_definitions_that_are_deleted_and_put_back_need_no_restart() {
    let (log, _guard) = Log::start("warn");
    let mut running = at_rest(FUNCTIONS_AT_REST).await;
    let world = &running.world;
    let before = log.lines("").len();
    delete_definitions(world);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.tables.len(), FUNCTIONS_AT_REST - BELIEVED);
    let caches = &world.reconciler.caches;
    for (key, function) in caches.functions.all() {
        let placed = world.reconciler.projector.placed(&key, &function);
        assert_eq!(placed.nodes.len(), NODES.len(), "{key}");
    }
    let lines = log.lines("");
    assert!(lines.len() - before <= 40, "{lines:#?}");

    put_definitions_back(world);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.tables.len(), FUNCTIONS_AT_REST - BELIEVED);
    apply(world, FUNCTIONS_AT_REST, "again", "2026-07-01T00:00:00Z");
    put_edge_nodes(world);
    running.settle(FUNCTIONS_AT_REST).await;
    assert_eq!(running.distributed(), FUNCTIONS_AT_REST);
    for n in 0..FUNCTIONS_AT_REST {
        let status = world.status(&format!("f-{n}"));
        let stable = status.stable.unwrap().revision;
        let stable = world.fake.get(&format!("{REVISIONS}/{stable}"));
        let owner = &stable.unwrap()["metadata"]["ownerReferences"][0]["uid"];
        assert_eq!(*owner, format!("again-{n}"));
    }
    assert_eq!(world.fake.under(CLAIMS).len(), FUNCTIONS_AT_REST);

    // when the guard drops what it kept, the new functions keep everything
    tokio::time::sleep(Duration::from_secs(1200)).await;
    assert_eq!(running.distributed(), FUNCTIONS_AT_REST);
    assert_eq!(world.tables.len(), FUNCTIONS_AT_REST);
    let reconciles = running.counts().reconciles;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(running.counts().reconciles, reconciles, "at rest");
    running.tasks.shutdown().await;
}

/// FC-19: few functions are gone from the nodes within seconds, and return.
#[tokio::test(start_paused = true)]
async fn fc_19_few_functions_are_removed_with_their_definition_and_return() {
    let mut running = at_rest(3).await;
    let world = &running.world;
    delete_definitions(world);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.tables.len(), 0);
    put_definitions_back(world);
    apply(world, 3, "again", "2026-07-01T00:00:00Z");
    running.settle(3).await;
    assert_eq!((running.distributed(), world.tables.len()), (3, 3));
    running.tasks.shutdown().await;
}

/// The leader creates an EdgeNode again. Until then its functions stay where they are.
#[tokio::test(start_paused = true)]
async fn a_deleted_edge_node_moves_no_function() {
    let mut running = at_rest(1).await;
    let world = &running.world;
    world.fake.remove_under(EDGE_NODES);
    running.settle(1).await;
    let nodes = world.status("f-0").nodes.unwrap();
    assert_eq!((nodes.desired, nodes.applied), (3, 3));
    // a node that is gone does not count
    world.fake.remove(&format!("/api/v1/nodes/{}", NODES[0]));
    running.settle(1).await;
    assert_eq!(world.status("f-0").nodes.unwrap().desired, 2);
    running.tasks.shutdown().await;
}

/// FC-19: an API server that does not serve the kind does not report a deleted function.
#[tokio::test]
async fn fc_19_a_function_whose_kind_is_not_served_is_not_forgotten() {
    let world = World::new();
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    world.fake.fail(Box::new(|_, path| {
        path.contains("/edgefunctions").then_some(404)
    }));
    let key = ObjectKey::new("shop", "f");
    let failed = reconcile(&world.reconciler, &key, 3).await;
    assert!(matches!(failed, Err(ReconcileError::Call(_))), "{failed:?}");
    world.fake.fail(Box::new(|_, _| None));
    world.fake.remove(&format!("{FUNCTIONS}/f"));
    let other = World::of(world.fake.clone(), world.fake.client(), Vec::new());
    other
        .reconciler
        .caches
        .functions
        .put((*world.reconciler.caches.functions.get(&key).unwrap()).clone());
    let gone = reconcile(&other.reconciler, &key, 3).await.unwrap();
    assert!(gone.wake.is_none(), "nothing is left to do");
}
