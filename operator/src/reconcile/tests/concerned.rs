//! Which functions an event concerns: those, and no others.

use crate::dispatch::Dispatch;
use crate::node_liveness;
use crate::watch::{CacheChange, Indexed};

use super::*;

/// A dispatch with an empty queue of its own.
fn dispatch(world: &World) -> Dispatch {
    Dispatch {
        caches: world.reconciler.caches.clone(),
        projector: world.reconciler.projector.clone(),
        queue: Queue::default(),
        metrics: world.reconciler.metrics.clone(),
    }
}

/// Events that have all come.
fn all<T>(events: impl IntoIterator<Item = T>) -> mpsc::UnboundedReceiver<T> {
    let (send, receive) = mpsc::unbounded_channel();
    for event in events {
        assert!(send.send(event).is_ok());
    }
    receive
}

/// The functions that are queued by these events, in order of their names.
async fn queued(world: &World, events: impl IntoIterator<Item = CacheChange>) -> Vec<String> {
    let dispatch = dispatch(world);
    let queue = dispatch.queue.clone();
    dispatch.follow_caches(all(events)).await;
    waiting(&queue).await
}

async fn waiting(queue: &Queue) -> Vec<String> {
    let mut found = Vec::new();
    let wait = Duration::from_millis(1);
    while let Ok(turn) = tokio::time::timeout(wait, queue.take(false)).await {
        found.push(turn.key.name.to_string());
    }
    found.sort();
    found
}

fn shop(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

#[tokio::test(start_paused = true)]
async fn a_function_refused_for_a_route_is_queued_when_that_route_is_given_up() {
    let world = World::new();
    let shared = json!({ "routes": [{ "hosts": ["old.example"] }] });
    world.apply("old", "2026-01-01T00:00:00Z", &json!({}));
    world.apply("young", "2026-01-02T00:00:00Z", &shared);
    world.apply("other", "2026-01-02T00:00:00Z", &json!({}));
    for name in ["old", "young", "other"] {
        world.reconcile(name).await;
        world.catch_up();
    }
    world.is_stalled("young", "RouteConflict");
    let written = |name: &str| CacheChange::Function(shop(name), Vec::new());
    let found = queued(&world, [written("old"), written("other")]).await;
    assert_eq!(found, ["old", "other"], "nothing was given up");
    let functions = &world.reconciler.caches.functions;
    let terms = |name: &str| functions.get(&shop(name)).unwrap().terms().into_iter();
    let gone = |name: &str| CacheChange::FunctionGone(shop(name), 99, terms(name).collect());
    assert_eq!(queued(&world, [gone("other")]).await, ["other"]);
    assert_eq!(queued(&world, [gone("old")]).await, ["old", "young"]);
}

#[tokio::test(start_paused = true)]
async fn a_function_refused_for_a_host_is_queued_when_a_claim_that_overlaps_changes() {
    let world = World::new();
    let spec = json!({ "host": "*.example", "namespace": "blog" });
    let claim = claim("example.0", &spec);
    world.fake.put(&format!("{CLAIMS}/example.0"), claim);
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    world.reconcile("f").await;
    world.catch_up();
    world.is_stalled("f", "HostConflict");
    let changed = |host: &str| [CacheChange::Claim(host.to_owned())];
    assert_eq!(queued(&world, changed("*.example")).await, ["f"]);
    assert_eq!(queued(&world, changed("f.example")).await, ["f"]);
    assert!(queued(&world, changed("g.example")).await.is_empty());
    assert!(queued(&world, changed("*.other")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_accepted_function_is_queued_when_another_namespace_claims_a_host_that_overlaps() {
    let world = World::new();
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    world.reconcile("f").await;
    world.catch_up();
    assert_eq!(world.condition("f", "Accepted").0, "True");
    let changed = |host: &str| [CacheChange::Claim(host.to_owned())];
    assert!(queued(&world, changed("*.example")).await.is_empty());
    for (namespace, expected) in [("shop", &[][..]), ("blog", &["f"])] {
        let spec = json!({ "host": "*.example", "namespace": namespace });
        let claim = claim("example.0", &spec);
        world.fake.put(&format!("{CLAIMS}/example.0"), claim);
        world.catch_up();
        let found = queued(&world, changed("*.example")).await;
        assert_eq!(found, expected, "{namespace}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reference_that_changes_queues_the_functions_that_have_it() {
    let world = World::new();
    let env = |kind: &str| json!({ "env": [{ "name": "A", "valueFrom": { kind: { "name": "c", "key": "k" } } }] });
    world.apply("map", "2026-01-01T00:00:00Z", &env("configMapKeyRef"));
    world.apply("plain", "2026-01-01T00:00:00Z", &json!({}));
    let policy = json!({ "rollout": { "policyRef": { "name": "c" } } });
    world.apply("policy", "2026-01-01T00:00:00Z", &policy);
    let policy = CacheChange::Policy(shop("c"));
    assert_eq!(queued(&world, [policy]).await, ["policy"]);
    for (namespace, expected) in [("shop", &["map"][..]), ("blog", &[])] {
        let dispatch = dispatch(&world);
        let queue = dispatch.queue.clone();
        let map = ObjectKey::new(namespace, "c");
        dispatch.follow_config_maps(all([map])).await;
        assert_eq!(waiting(&queue).await, expected, "{namespace}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_changes_queues_the_functions_that_have_it() {
    let world = World::new();
    let env = json!({ "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }] });
    world.apply("value", "2026-01-01T00:00:00Z", &env);
    let pull =
        json!({ "source": { "image": "r.example/a:1", "imagePullSecrets": [{ "name": "s" }] } });
    world.apply("pull", "2026-01-01T00:00:00Z", &pull);
    world.apply("plain", "2026-01-01T00:00:00Z", &json!({}));
    for (namespace, expected) in [("shop", &["pull", "value"][..]), ("blog", &[])] {
        let dispatch = dispatch(&world);
        let queue = dispatch.queue.clone();
        let secret = ObjectKey::new(namespace, "s");
        dispatch.follow_secrets(all([secret]), |_| ()).await;
        assert_eq!(waiting(&queue).await, expected, "{namespace}");
    }
}

fn counted(world: &World, reason: &str) -> bool {
    let text = String::from_utf8(world.reconciler.metrics.render()).unwrap();
    text.contains(&format!(
        "selvage_queue_all_total{{reason=\"{reason}\"}} 1\n"
    ))
}

#[tokio::test(start_paused = true)]
async fn nodes_that_change_queue_all_functions_once_and_are_counted() {
    let world = World::new();
    for name in ["f", "g"] {
        world.apply(name, "2026-01-01T00:00:00Z", &json!({}));
    }
    let dispatch = dispatch(&world);
    let queue = dispatch.queue.clone();
    let (send, changes) = mpsc::unbounded_channel();
    for node in ["n-1", "n-2"] {
        send.send(CacheChange::Node(node.to_owned())).unwrap();
    }
    let follow = tokio::spawn(dispatch.follow_caches(changes));
    let mut first = [queue.take(false).await, queue.take(false).await].map(|item| item.key);
    first.sort();
    assert_eq!(first, [shop("f"), shop("g")]);
    assert!(counted(&world, "nodes"));
    follow.abort();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_falls_silent_queues_all_functions_and_is_counted() {
    let world = World::new();
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    let fleet = world.reconciler.fleet.clone();
    let report = node_api::v1::Report {
        revisions_complete: true,
        ..Default::default()
    };
    fleet.report_from("n-1", report);
    let dispatch = dispatch(&world);
    let queue = dispatch.queue.clone();
    let follow = tokio::spawn(node_liveness::follow(dispatch, fleet));
    assert_eq!(queue.take(false).await.key, shop("f"));
    assert!(counted(&world, "live_nodes"));
    follow.abort();
}

#[tokio::test(start_paused = true)]
async fn other_changes_do_not_postpone_those_of_nodes() {
    let world = World::new();
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    let dispatch = dispatch(&world);
    let queue = dispatch.queue.clone();
    let (send, receive) = mpsc::unbounded_channel();
    let follow = tokio::spawn(dispatch.follow_caches(receive));
    send.send(CacheChange::Node("n1".to_owned())).unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        send.send(CacheChange::Policy(shop("patched-all-the-time")))
            .unwrap();
    }
    assert_eq!(waiting(&queue).await, ["f"]);
    follow.abort();
}
