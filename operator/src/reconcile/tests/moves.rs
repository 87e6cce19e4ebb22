//! A function that moves to entirely other nodes: no moment without a node that serves it.

use node_api::v1::LoadState;

use super::*;

/// Adds a node with a node-shim, or gives it another label.
fn node(world: &World, name: &str, pool: &str) {
    let caches = &world.reconciler.caches;
    let node = json!({ "metadata": { "name": name, "labels": { "pool": pool } } });
    caches.nodes.put(serde_json::from_value(node).unwrap());
    let edge_node = json!({
        "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeNode", "metadata": { "name": name }, "spec": {},
    });
    caches
        .edge_nodes
        .put(serde_json::from_value(edge_node).unwrap());
}

const NODES: [(&str, &str); 4] = [("a-1", "a"), ("a-2", "a"), ("b-1", "b"), ("b-2", "b")];

/// A world with two nodes in each of the pools `a` and `b`, and a function at rest on those of `a`.
async fn at_rest() -> World {
    let world = World::new();
    for (name, pool) in NODES {
        node(&world, name, pool);
    }
    let placement = json!({ "placement": { "nodeSelector": { "pool": "a" } } });
    world.apply("f", "2026-01-01T00:00:00Z", &placement);
    reconciled(&world).await;
    for _ in 0..2 {
        for node in ["a-1", "a-2"] {
            world.follows(node, "f");
        }
        reconciled(&world).await;
    }
    assert_eq!(world.condition("f", "Distributed").0, "True");
    assert_eq!(serving(&world), ["a-1", "a-2"]);
    assert_eq!(placed(&world), ["a-1", "a-2"]);
    world
}

async fn reconciled(world: &World) {
    world.reconcile("f").await;
    world.catch_up();
}

/// Applies a change of the spec.
async fn edit(world: &World, change: &Value) {
    let path = format!("{FUNCTIONS}/f");
    let mut object = world.fake.get(&path).unwrap();
    let generation = object["metadata"]["generation"].as_i64().unwrap();
    object["metadata"]["generation"] = json!(generation + 1);
    for (key, value) in change.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    world.fake.put(&path, object);
    world.catch_up();
    // the status that the first one writes causes the second one
    for _ in 0..2 {
        reconciled(world).await;
    }
}

async fn move_to(world: &World, pool: &str) {
    let placement = json!({ "placement": { "nodeSelector": { "pool": pool } } });
    edit(world, &placement).await;
}

/// Nodes that the status remembers.
fn serving(world: &World) -> Vec<String> {
    world.status("f").nodes.unwrap().serving
}

/// Nodes that have the function in their tables. All others receive these names.
fn placed(world: &World) -> Vec<String> {
    world
        .tables
        .newest_placement(&FunctionKey::new("shop", "f"))
}

/// A node reports the state of the stable revision.
fn reports(world: &World, node: &str, state: LoadState) {
    let report = node_api::v1::Report {
        revisions: vec![node_api::v1::RevisionState {
            function: Some((&FunctionKey::new("shop", "f")).into()),
            revision: world.status("f").stable.unwrap().revision,
            state: state.into(),
            ..node_api::v1::RevisionState::default()
        }],
        revisions_complete: true,
        ..node_api::v1::Report::default()
    };
    world.reconciler.fleet.report_from(node, report);
}

#[tokio::test]
async fn the_former_nodes_serve_until_the_new_ones_have_loaded_the_function() {
    let world = at_rest().await;
    move_to(&world, "b").await;
    assert_eq!(placed(&world), ["a-1", "a-2", "b-1", "b-2"]);
    let (status, reason, message) = world.condition("f", "Distributed");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Moving"));
    let expected = "The function moves to 2 nodes; 2 nodes of the former placement keep serving it until they have loaded it";
    assert_eq!(message, expected);
    for (node, state) in [
        ("b-1", LoadState::Loading),
        ("b-2", LoadState::Loaded),
        ("b-2", LoadState::Loaded),
    ] {
        reports(&world, node, state);
        reconciled(&world).await;
        assert_eq!(placed(&world), ["a-1", "a-2", "b-1", "b-2"], "{node}");
    }
    reports(&world, "b-1", LoadState::Loaded);
    reconciled(&world).await;
    assert_eq!(serving(&world), ["b-1", "b-2"]);
    assert_eq!(placed(&world), ["b-1", "b-2"]);
    for node in ["b-1", "b-2"] {
        world.follows(node, "f");
    }
    reconciled(&world).await;
    assert_eq!(world.condition("f", "Distributed").0, "True");
}

/// A process that starts in the middle, before any node has reported, gives the nodes the same.
#[tokio::test]
async fn a_restart_in_the_middle_of_a_move_changes_nothing() {
    let world = at_rest().await;
    move_to(&world, "b").await;
    let mut successor = World::new();
    successor.fake = world.fake.clone();
    let reconciler = Arc::get_mut(&mut successor.reconciler).unwrap();
    reconciler.client = world.fake.client();
    for (name, pool) in NODES {
        node(&successor, name, pool);
    }
    successor.catch_up();
    let key = ObjectKey::new("shop", "f");
    successor.reconciler.projector.refresh(&key);
    assert_eq!(placed(&successor), ["a-1", "a-2", "b-1", "b-2"]);
    reconciled(&successor).await;
    assert_eq!(placed(&successor), ["a-1", "a-2", "b-1", "b-2"]);
    reports(&successor, "b-1", LoadState::Loaded);
    reconciled(&successor).await;
    assert_eq!(placed(&successor), ["b-1", "b-2"]);
}

/// The image is missing, or compilation fails: the former nodes go on, those that exist.
#[tokio::test]
async fn new_nodes_that_cannot_load_the_function_do_not_end_it() {
    let world = at_rest().await;
    move_to(&world, "b").await;
    for node in ["b-1", "b-2"] {
        reports(&world, node, LoadState::Failed);
    }
    reconciled(&world).await;
    assert_eq!(placed(&world), ["a-1", "a-2", "b-1", "b-2"]);
    assert_eq!(world.condition("f", "Distributed").1, "Moving");
    let gone = ObjectKey::new("", "a-1");
    world.reconciler.caches.nodes.take(&gone);
    world
        .reconciler
        .projector
        .refresh(&ObjectKey::new("shop", "f"));
    assert_eq!(placed(&world), ["a-2", "b-1", "b-2"]);
    // the user gives up
    move_to(&world, "a").await;
    assert_eq!(placed(&world), ["a-2"]);
    assert_ne!(world.condition("f", "Distributed").1, "Moving");
}

/// No object of the function changes then, and every replica derives the same.
#[tokio::test]
async fn labels_of_nodes_move_a_function_as_its_spec_does() {
    let world = at_rest().await;
    for (name, pool) in [("b-1", "a"), ("b-2", "a"), ("a-1", "c"), ("a-2", "c")] {
        node(&world, name, pool);
    }
    let key = ObjectKey::new("shop", "f");
    world.reconciler.projector.refresh(&key);
    assert_eq!(placed(&world), ["a-1", "a-2", "b-1", "b-2"]);
    for node in ["b-1", "b-2"] {
        reports(&world, node, LoadState::Loaded);
    }
    reconciled(&world).await;
    assert_eq!(placed(&world), ["b-1", "b-2"]);
    // no node matches any longer
    for (name, _) in NODES {
        node(&world, name, "d");
    }
    world.reconciler.projector.refresh(&key);
    assert_eq!(placed(&world), ["b-1", "b-2"]);
    edit(&world, &json!({ "placement": { "replicas": 0 } })).await;
    assert_eq!(placed(&world), Vec::<String>::new(), "wanted nowhere");
}

/// The former nodes take part in a rollout that starts with the move, and leave it when the new ones have the stable revision.
#[tokio::test]
async fn a_function_moves_while_a_rollout_runs() {
    let world = at_rest().await;
    let change = json!({
        "placement": { "nodeSelector": { "pool": "b" } },
        "env": [{ "name": "A", "value": "2" }],
    });
    edit(&world, &change).await;
    assert!(world.status("f").candidate.is_some());
    assert_eq!(placed(&world), ["a-1", "a-2", "b-1", "b-2"]);
    for node in ["b-1", "b-2"] {
        reports(&world, node, LoadState::Loaded);
    }
    reconciled(&world).await;
    assert!(world.status("f").candidate.is_some());
    assert_eq!(placed(&world), ["b-1", "b-2"]);
}
