//! Faults of one object, and what others notice of them: nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[tokio::test]
async fn a_panic_is_said_on_its_object_and_ends_no_other_reconcile() {
    let world = World::new();
    for name in ["f", "g"] {
        world.apply(name, "2026-01-01T00:00:00Z", &json!({}));
    }
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    world.fake.fail(Box::new(move |method, path| {
        let makes = *method == Method::POST && path.ends_with("edgerevisions");
        assert!(
            !(makes && is_broken.load(Ordering::SeqCst)),
            "a fault of ours"
        );
        None
    }));
    let queue = world.reconciler.queue.clone();
    let worker = tokio::spawn(Arc::clone(&world.reconciler).work(3));
    queue.push(&ObjectKey::new("shop", "f"));
    let status = |name: &str| {
        let object = world.fake.get(&format!("{FUNCTIONS}/{name}")).unwrap();
        object["status"].clone()
    };
    let is_said = || {
        status("f")["conditions"]
            .to_string()
            .contains("InternalError")
    };
    world.fake.until(is_said).await;
    world.is_stalled("f", "InternalError");
    broken.store(false, Ordering::SeqCst);
    queue.push(&ObjectKey::new("shop", "g"));
    let is_tried = || status("g")["candidate"].is_object();
    world.fake.until(is_tried).await;
    worker.abort();
    let text = String::from_utf8(world.reconciler.metrics.render()).unwrap();
    assert!(
        text.contains("selvage_reconcile_failures_total{step=\"panic\"}"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_is_counted_told_and_keeps_its_hosts() {
    let world = World::new();
    world.apply("g", "2026-01-01T00:00:00Z", &json!({}));
    world.reconcile("g").await;
    world.catch_up();
    // Of a later version: this operator never had anything of it in its cache.
    let strange = json!({
        "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction",
        "metadata": { "name": "f", "namespace": "shop", "uid": "uid-f", "generation": 4 },
        "spec": { "source": 7 },
    });
    world.fake.put(&format!("{FUNCTIONS}/f"), strange);
    let claim = json!({
        "apiVersion": "selvage.dev/v1alpha1", "kind": "HostClaim",
        "metadata": { "name": "f.example", "creationTimestamp": "2025-01-01T00:00:00Z" },
        "spec": { "host": "f.example", "namespace": "shop" },
    });
    let claim: crds::HostClaim = serde_json::from_value(claim).unwrap();
    world.reconciler.caches.claims.put(claim);
    let key = ObjectKey::new("shop", "f");
    let functions = &world.reconciler.caches.functions;
    functions.put_unreadable(&key, "invalid type: integer `7`");
    let told = tokio::spawn(Arc::clone(&world.reconciler).tell_unreadable());
    let swept = tokio::spawn(Arc::clone(&world.reconciler).sweep_claims());
    tokio::time::sleep(Duration::from_secs(60)).await;
    told.abort();
    swept.abort();
    world.is_stalled("f", "Unreadable");
    let text = String::from_utf8(world.reconciler.metrics.render()).unwrap();
    assert!(
        text.contains("selvage_unreadable_objects{kind=\"EdgeFunction\"} 1"),
        "{text}"
    );
    let writes = world.fake.writes();
    let count = |what: &str| writes.iter().filter(|write| write.contains(what)).count();
    assert_eq!(count("/edgefunctions/f/status"), 1, "said once: {writes:?}");
    assert_eq!(count("DELETE"), 0, "its hosts are not given to others");
    let events = world.fake.under("/apis/events.k8s.io");
    let events: Vec<&Value> = events
        .iter()
        .filter(|event| event["reason"] == "Unreadable")
        .collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["regarding"]["name"], "f");
}
