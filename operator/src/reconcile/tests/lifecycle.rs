//! Functions that are scaled to nothing or deleted with their namespace while a rollout runs.

use super::many::{NODES, Running};
use super::*;

const NAMESPACE: &str = "/apis/selvage.dev/v1alpha1/namespaces/shop/";
const EDGE_NODES: &str = "/apis/selvage.dev/v1alpha1/edgenodes";

/// A control plane with the functions `names` at rest on all nodes.
async fn at_rest(names: &[&str]) -> Running {
    let running = Running::start().await;
    for node in NODES {
        let object = json!({
            "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeNode", "metadata": { "name": node }, "spec": {},
        });
        running
            .world
            .fake
            .put(&format!("{EDGE_NODES}/{node}"), object);
    }
    for name in names {
        let object = json!({
            "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction",
            "metadata": {
                "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "source": { "inline": component() },
                "routes": [{ "hosts": [format!("{name}.example")] }],
                "placement": { "replicas": 10_000 },
                "rollout": { "canary": { "steps": [{ "weight": "5%" }] } },
            },
        });
        running
            .world
            .fake
            .put(&format!("{FUNCTIONS}/{name}"), object);
    }
    running.settle(names.len()).await;
    for name in names {
        assert_eq!(running.world.condition(name, "Ready").0, "True");
    }
    running
}

/// Applies an edit of the spec as a user would, and waits.
async fn edit(running: &Running, name: &str, change: impl FnOnce(&mut Value)) {
    let path = format!("{FUNCTIONS}/{name}");
    let mut object = running.world.fake.get(&path).unwrap();
    let generation = object["metadata"]["generation"].as_i64().unwrap();
    object["metadata"]["generation"] = json!(generation + 1);
    change(&mut object["spec"]);
    running.world.fake.put(&path, object);
    running.settle(1).await;
}

async fn scale(running: &Running, replicas: u32) {
    edit(running, "f", |spec| {
        spec["placement"]["replicas"] = json!(replicas)
    })
    .await;
}

async fn next_version(running: &Running, name: &str) {
    let env = json!([{ "name": "A", "value": "2" }]);
    edit(running, name, |spec| spec["env"] = env).await;
}

fn state(running: &Running, name: &str) -> Value {
    let object = running
        .world
        .fake
        .get(&format!("{FUNCTIONS}/{name}"))
        .unwrap();
    object["status"]["rollout"]["state"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_applied_while_the_function_is_scaled_to_nothing_rolls_out_later() {
    let mut running = at_rest(&["f"]).await;
    let first = running.world.status("f").stable.unwrap().revision;
    scale(&running, 0).await;
    assert_eq!(running.world.status("f").nodes.unwrap().desired, 0);
    assert_eq!(running.world.condition("f", "Ready").1, "NoNodes");

    next_version(&running, "f").await;
    let status = running.world.status("f");
    assert_eq!(status.stable.unwrap().revision, first, "nothing proves it");
    assert_eq!(status.observed_generation, Some(3));
    let second = status.candidate.unwrap().revision;
    assert_ne!(second, first);

    scale(&running, 10_000).await;
    assert_eq!(state(&running, "f"), "Stepping");
    let status = running.world.status("f");
    assert_eq!(status.stable.unwrap().revision, first);
    assert_eq!(status.candidate.unwrap().revision, second);
    for action in ["promote-full", "promote"] {
        let path = format!("{FUNCTIONS}/f");
        let mut object = running.world.fake.get(&path).unwrap();
        object["metadata"]["annotations"] = json!({ format!("selvage.dev/{action}"): second });
        running.world.fake.put(&path, object);
        running.settle(1).await;
    }
    let status = running.world.status("f");
    assert_eq!(status.stable.unwrap().revision, second);
    assert_eq!(running.world.condition("f", "Ready").0, "True");
    assert_eq!(status.nodes.unwrap().applied as usize, NODES.len());
    running.tasks.shutdown().await;
}

/// The namespace controller deletes the kinds in any order, and the API server refuses new objects meanwhile.
#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_deleted_in_mid_rollout_leaves_nothing() {
    for kinds in [
        ["edgerevisions", "edgefunctions"],
        ["edgefunctions", "edgerevisions"],
    ] {
        let mut running = at_rest(&["f", "g"]).await;
        next_version(&running, "f").await;
        assert_eq!(state(&running, "f"), "Stepping");
        let world = &running.world;
        assert_eq!(world.reconciler.slots.lock().len(), 1, "a place is taken");
        assert_eq!((world.tables.len(), world.fake.under(CLAIMS).len()), (2, 2));
        world.fake.fail(Box::new(|method, path| {
            (*method == Method::POST && path.contains("/namespaces/shop/")).then_some(403)
        }));
        for kind in kinds {
            let prefix = format!("{NAMESPACE}{kind}");
            for object in world.fake.under(&prefix) {
                let name = object["metadata"]["name"].as_str().unwrap();
                world.fake.remove(&format!("{prefix}/{name}"));
            }
            running.settle(2).await;
        }
        assert_eq!(world.fake.under(NAMESPACE), Vec::<Value>::new());
        assert_eq!(world.fake.under(CLAIMS), Vec::<Value>::new());
        assert_eq!(world.tables.len(), 0, "nodes remove the functions");
        assert!(world.reconciler.slots.lock().is_empty());
        let before = running.counts().reconciles;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(running.counts().reconciles, before, "nothing goes on");
        running.tasks.shutdown().await;
    }
}
