//! Functions of other namespaces that may call a function.

use super::resting::at_rest;
use super::*;

fn edit(world: &World, change: impl FnOnce(&mut Value)) {
    let path = format!("{FUNCTIONS}/f");
    let mut object = world.fake.get(&path).unwrap();
    let generation = object["metadata"]["generation"].as_i64().unwrap();
    object["metadata"]["generation"] = json!(generation + 1);
    change(&mut object["spec"]);
    world.fake.put(&path, object);
    world.catch_up();
}

/// A grant, and its withdrawal, reach nodes with one reconcile and without a rollout. Each has a version of its own, so that no
/// node keeps the former one.
#[tokio::test(start_paused = true)]
async fn callers_take_effect_at_once() {
    let world = World::new();
    at_rest(&world).await;
    let stable = world.status("f").stable.unwrap().revision;
    let revisions = world.fake.under(REVISIONS).len();
    let key = FunctionKey::new("shop", "f");
    let mut last = world.status("f").accepted.unwrap().version.unwrap();
    for callers in [
        json!([{ "namespace": "blog" }]),
        json!([{ "namespace": "blog", "name": "front" }]),
        json!([]),
    ] {
        edit(&world, |spec| spec["callers"] = callers.clone());
        world.reconcile("f").await;
        world.catch_up();
        let function = ObjectKey::new("shop", "f");
        world.reconciler.projector.refresh(&function);
        let accepted = world.status("f").accepted.unwrap();
        let version = accepted.version.unwrap();
        assert!(version.serial > last.serial, "{version:?} {last:?}");
        last = version;
        assert_eq!(json!(accepted.callers), callers);
        let sent = world.tables.newest_record(&key).unwrap();
        let sent = sent.callers.iter().map(|caller| {
            let mut sent = json!({ "namespace": caller.namespace });
            if !caller.name.is_empty() {
                sent["name"] = json!(caller.name);
            }
            sent
        });
        assert_eq!(json!(sent.collect::<Vec<_>>()), callers);
    }
    assert_eq!(world.status("f").stable.unwrap().revision, stable);
    assert!(world.status("f").candidate.is_none());
    assert_eq!(world.fake.under(REVISIONS).len(), revisions);
}

/// Whether the function of the other namespace exists changes nothing for the caller.
#[tokio::test]
async fn a_call_into_a_namespace_that_is_not_there_is_accepted() {
    let world = World::new();
    let egress = json!({ "allow": ["function://nowhere/prices"] });
    world.apply("f", "2026-01-01T00:00:00Z", &json!({ "egress": egress }));
    world.reconcile("f").await;
    assert_eq!(world.condition("f", "Accepted").0, "True");
}
