//! The revisions of a function: whether nodes have loaded them, which object owns them, and that they are created again.

use super::resting::at_rest;
use super::*;

/// Name of the stable revision.
fn stable(world: &World) -> String {
    world.status("f").stable.unwrap().revision
}

fn revision(world: &World, name: &str) -> Value {
    world.fake.get(&format!("{REVISIONS}/{name}")).unwrap()
}

/// Status and reason of the condition `Loaded`, which the column LOADED shows.
fn loaded(world: &World, name: &str) -> (String, String) {
    let condition = revision(world, name)["status"]["conditions"][0].clone();
    assert_eq!(condition["type"], "Loaded");
    let text = |field: &str| condition[field].as_str().unwrap().to_owned();
    (text("status"), text("reason"))
}

fn says(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

/// Writes another value of the condition, as at a transition at which nodes were just restarting.
fn claim_loaded(world: &World, name: &str, status: &str) {
    let mut object = revision(world, name);
    object["status"]["conditions"] = json!([{
        "type": "Loaded", "status": status, "reason": "Loaded", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]);
    world.fake.put(&format!("{REVISIONS}/{name}"), object);
    world.catch_up();
}

/// The report of a node that has started again and loads its code.
fn restarts(world: &World, node: &str) {
    let report = node_api::v1::Report {
        revisions: vec![node_api::v1::RevisionState {
            function: Some((&FunctionKey::new("shop", "f")).into()),
            revision: stable(world),
            state: node_api::v1::LoadState::Loading.into(),
            ..Default::default()
        }],
        revisions_complete: true,
        ..Default::default()
    };
    world.reconciler.fleet.report_from(node, report);
}

#[tokio::test(start_paused = true)]
async fn loaded_follows_the_nodes_within_seconds_and_ignores_short_restarts() {
    let world = World::new();
    at_rest(&world).await;
    let name = stable(&world);
    assert_eq!(loaded(&world, &name), says("True", "Loaded"));
    claim_loaded(&world, &name, "False");
    world.reconcile("f").await;
    assert_eq!(loaded(&world, &name), says("True", "Loaded"));

    restarts(&world, "n-2");
    let wake = world.reconcile("f").await.wake.unwrap();
    assert_eq!(loaded(&world, &name), says("True", "Loaded"), "a moment");
    let spacing = operator_core::status_rate::SPACING;
    assert!(wake <= Instant::now() + spacing, "{wake:?}");
    world.follows("n-2", "f");
    world.reconcile("f").await;
    tokio::time::sleep(spacing).await;

    for (is_back, expected) in [
        (false, says("False", "Loading")),
        (true, says("True", "Loaded")),
    ] {
        for _ in 0..2 {
            world.follows("n-1", "f");
            if is_back {
                world.follows("n-2", "f");
            } else {
                restarts(&world, "n-2");
            }
            world.reconcile("f").await;
            tokio::time::sleep(spacing).await;
        }
        world.follows("n-1", "f");
        if is_back {
            world.follows("n-2", "f");
        } else {
            restarts(&world, "n-2");
        }
        world.reconcile("f").await;
        assert_eq!(loaded(&world, &name), expected);
    }
}

/// `kubectl get erev` said True of revisions that were rejected or replaced.
#[tokio::test]
async fn a_revision_that_is_not_served_is_not_loaded() {
    let world = World::new();
    at_rest(&world).await;
    let old = json!({
        "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeRevision",
        "metadata": { "name": "f-old", "namespace": "shop", "uid": "uid-old" },
        "spec": { "function": "f", "number": 0, "digest": "sha256:0" },
    });
    world.fake.put(&format!("{REVISIONS}/f-old"), old);
    claim_loaded(&world, "f-old", "True");
    world.reconcile("f").await;
    assert_eq!(loaded(&world, "f-old"), says("False", "NotServed"));
    assert_eq!(loaded(&world, &stable(&world)), says("True", "Loaded"));
}

/// The function as users apply it again after they deleted it.
fn created_again(world: &World, uid: &str) {
    world.apply("f", "2026-02-01T00:00:00Z", &json!({}));
    let mut object = world.fake.get(&format!("{FUNCTIONS}/f")).unwrap();
    object["metadata"]["uid"] = json!(uid);
    world.fake.put(&format!("{FUNCTIONS}/f"), object);
    world.catch_up();
}

/// After `kubectl delete --cascade=orphan`, another creation and another deletion, the revisions were never removed.
#[tokio::test]
async fn a_function_that_is_created_again_owns_the_revisions_that_were_orphaned() {
    let world = World::new();
    at_rest(&world).await;
    let name = stable(&world);
    let mut orphan = revision(&world, &name);
    orphan["metadata"]["ownerReferences"].take();
    world.fake.put(&format!("{REVISIONS}/{name}"), orphan);
    world.fake.remove(&format!("{FUNCTIONS}/f"));
    world
        .reconciler
        .caches
        .functions
        .take(&ObjectKey::new("shop", "f"));
    world.catch_up();
    world.reconcile("f").await;
    assert!(revision(&world, &name)["metadata"]["ownerReferences"].is_null());

    created_again(&world, "uid-2");
    // a permission that an older chart does not have is no reason to stop
    world.fake.fail(Box::new(|method, path| {
        let adopts = *method == Method::PATCH && !path.ends_with("/status");
        adopts.then_some(403)
    }));
    world.reconcile("f").await;
    world.catch_up();
    let successor = World::of(world.fake.clone(), world.fake.client(), Vec::new());
    world.fake.fail(Box::new(|_, _| None));
    successor.catch_up();
    successor.reconcile("f").await;
    let owners = revision(&world, &name)["metadata"]["ownerReferences"].clone();
    assert_eq!(owners.as_array().unwrap().len(), 1);
    assert_eq!(
        (&owners[0]["uid"], &owners[0]["controller"]),
        (&json!("uid-2"), &json!(true))
    );
}

/// `kubectl delete erev --all`: what is stable is created again under the same name.
#[tokio::test]
async fn revisions_that_were_deleted_are_created_again() {
    let world = World::new();
    at_rest(&world).await;
    let name = stable(&world);
    world.fake.remove(&format!("{REVISIONS}/{name}"));
    world
        .reconciler
        .caches
        .revisions
        .take(&ObjectKey::new("shop", &name));
    world.reconcile("f").await;
    let again = revision(&world, &name);
    assert_eq!(again["metadata"]["ownerReferences"][0]["uid"], "uid-f");
    assert_eq!(stable(&world), name);
}

/// Every function of that name starts above what nodes remember of the former one.
#[tokio::test]
async fn a_function_that_is_deleted_and_created_again_many_times_starts_over() {
    let world = World::new();
    at_rest(&world).await;
    let mut last = world.status("f").accepted.unwrap().version.unwrap();
    for n in 0..20 {
        for object in world.fake.under(REVISIONS) {
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            world.fake.remove(&format!("{REVISIONS}/{name}"));
            world
                .reconciler
                .caches
                .revisions
                .take(&ObjectKey::new("shop", &name));
        }
        created_again(&world, &format!("uid-{n}"));
        world.reconcile("f").await;
        world.catch_up();
        let status = world.status("f");
        let version = status.accepted.unwrap().version.unwrap();
        assert!(version.serial > last.serial, "{version:?} {last:?}");
        last = version;
        assert_eq!(world.condition("f", "Accepted").0, "True");
        let revisions = world.fake.under(REVISIONS);
        assert_eq!(revisions.len(), 1);
        let owner = &revisions[0]["metadata"]["ownerReferences"][0]["uid"];
        assert_eq!(*owner, format!("uid-{n}"));
    }
}

/// FC-8: what an operator that has just started cannot build a record of stays on the nodes as it was.
#[tokio::test]
async fn a_function_whose_record_cannot_be_built_after_a_restart_is_withheld_and_not_removed() {
    let world = World::new();
    at_rest(&world).await;
    let name = stable(&world);
    let restarted = || World::of(world.fake.clone(), world.fake.client(), Vec::new());
    let key = ObjectKey::new("shop", "f");
    let none = Vec::<String>::new();

    // The stable revision is missing.
    let present = revision(&world, &name);
    world.fake.remove(&format!("{REVISIONS}/{name}"));
    let next = restarted();
    next.catch_up();
    next.reconciler.projector.refresh_all();
    assert_eq!(
        (next.tables.len(), next.tables.withheld()),
        (0, vec!["f".to_owned()])
    );
    world.fake.put(&format!("{REVISIONS}/{name}"), present);
    next.catch_up();
    next.reconciler.projector.refresh(&key);
    assert_eq!(
        (next.tables.len(), next.tables.withheld()),
        (1, none.clone())
    );
    // It is missing again, with a record in the tables.
    next.reconciler
        .caches
        .revisions
        .take(&ObjectKey::new("shop", &name));
    next.reconciler.projector.refresh(&key);
    assert_eq!(
        (next.tables.len(), next.tables.withheld()),
        (1, none.clone())
    );

    // The object cannot be decoded.
    let next = restarted();
    next.reconciler
        .caches
        .functions
        .put_unreadable(&key, "of a later version");
    next.reconciler.projector.refresh_all();
    assert_eq!(
        (next.tables.len(), next.tables.withheld()),
        (0, vec!["f".to_owned()])
    );
    next.reconciler.projector.remove(&key, 99);
    assert_eq!(next.tables.withheld(), none);

    // Its status was lost.
    let next = restarted();
    let mut object = world.fake.get(&format!("{FUNCTIONS}/f")).unwrap();
    object["status"]["rollout"].take();
    object["status"]["stable"].take();
    world.fake.put(&format!("{FUNCTIONS}/f"), object);
    next.catch_up();
    next.reconciler.projector.refresh_all();
    assert_eq!(
        (next.tables.len(), next.tables.withheld()),
        (0, vec!["f".to_owned()])
    );
}
