//! What nodes do to a function at rest, on its status.

use super::*;

/// Loaded everywhere and promoted.
pub(super) async fn at_rest(world: &World) {
    for node in ["n-1", "n-2"] {
        world.node(node);
    }
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    world.reconcile("f").await;
    world.catch_up();
    for node in ["n-1", "n-2"] {
        world.follows(node, "f");
    }
    world.reconcile("f").await;
    world.catch_up();
    assert_eq!(world.condition("f", "Ready").0, "True");
    world.writes();
}

fn nodes(world: &World) -> (u32, u32) {
    let nodes = world.status("f").nodes.unwrap();
    (nodes.applied, nodes.desired)
}

#[tokio::test]
async fn a_share_that_all_nodes_follow_is_written_without_delay_and_its_way_there_is_not() {
    let world = World::new();
    at_rest(&world).await;
    assert_eq!(nodes(&world), (0, 2), "promoted a moment ago");
    world.follows("n-1", "f");
    let outcome = world.reconcile("f").await;
    assert_eq!(
        world.writes(),
        Vec::<String>::new(),
        "the other one is a moment away"
    );
    assert!(outcome.wake.is_some(), "or it is written all the same");
    world.follows("n-2", "f");
    world.reconcile("f").await;
    assert_eq!(nodes(&world), (2, 2));
    assert_eq!(world.condition("f", "Distributed").0, "True");
    assert_eq!(world.writes().len(), 1);
}

/// FD-8: a node that returned with an empty disk cannot load what the registry no longer has. Its first report may say only that
/// it loads.
#[tokio::test(start_paused = true)]
async fn fd_8_a_node_that_cannot_load_stable_is_named_with_its_reason() {
    for reports_twice in [false, true] {
        let world = World::new();
        at_rest(&world).await;
        for node in ["n-1", "n-2"] {
            world.follows(node, "f");
        }
        world.reconcile("f").await;
        assert_eq!(nodes(&world), (2, 2));
        if reports_twice {
            let mut loading = without_code(&world);
            loading.exceptions.clear();
            written_with(&world, &loading).await;
            assert_eq!(nodes(&world), (1, 2));
        }
        written_with(&world, &without_code(&world)).await;
        assert_eq!(nodes(&world), (1, 2));
        let (status, reason, message) = world.condition("f", "Distributed");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "NodesBehind"));
        assert_eq!(
            message,
            "1 of 2 nodes serve the current weight, first n-2 (PullFailed: registry.example has no shop/f with this tag or digest (404))"
        );
        written_with(&world, &without_code(&world)).await;
        world.writes();
        written_with(&world, &without_code(&world)).await;
        assert_eq!(world.writes(), [""; 0], "nothing has changed");
    }
}

/// Report of a node that cannot pull the stable revision.
fn without_code(world: &World) -> node_api::v1::Report {
    let status = world.status("f");
    let token = status.rollout.unwrap().version.unwrap();
    let function = Some((&FunctionKey::new("shop", "f")).into());
    let revision = status.stable.unwrap().revision;
    node_api::v1::Report {
        revisions: vec![node_api::v1::RevisionState {
            function: function.clone(),
            revision: revision.clone(),
            state: node_api::v1::LoadState::Failed.into(),
            permanent: false,
            applied: Some(node_api::v1::FencingToken {
                epoch: token.epoch,
                serial: token.serial,
            }),
        }],
        revisions_complete: true,
        exceptions: vec![node_api::v1::NodeException {
            function,
            revision,
            reason: node_api::ExceptionReason::PullFailed.name().into(),
            message: "registry.example has no shop/f with this tag or digest (404)".into(),
            since: 1,
        }],
        ..node_api::v1::Report::default()
    }
}

/// Reconciles after a report of `n-2`. What nodes do is written at a limited rate.
async fn written_with(world: &World, report: &node_api::v1::Report) {
    world.reconciler.fleet.report_from("n-2", report.clone());
    if let Some(wake) = world.reconcile("f").await.wake {
        tokio::time::sleep_until(wake).await;
        world.follows("n-1", "f");
        world.reconciler.fleet.report_from("n-2", report.clone());
        world.reconcile("f").await;
    }
}

#[tokio::test(start_paused = true)]
async fn writes_for_nodes_share_a_rate() {
    let world = World::new();
    at_rest(&world).await;
    for _ in 0..100 {
        use operator_core::status_rate::{FunctionLimit, NodeStatusChange};
        let mut other = FunctionLimit::default();
        let limiter = &world.reconciler.status_rate_limit;
        limiter.admit(&mut other, NodeStatusChange::Settled);
    }
    for node in ["n-1", "n-2"] {
        world.follows(node, "f");
    }
    let outcome = world.reconcile("f").await;
    assert_eq!(world.writes(), Vec::<String>::new());
    let wake = outcome.wake.expect("at its own time");
    assert!(wake > Instant::now() + Duration::from_secs(15), "{wake:?}");
    // Whatever happens before that time, the function keeps it.
    let again = world.reconcile("f").await;
    assert_eq!(again.wake, outcome.wake);
    tokio::time::sleep_until(wake).await;
    for node in ["n-1", "n-2"] {
        world.follows(node, "f");
    }
    world.reconcile("f").await;
    assert_eq!(nodes(&world), (2, 2));
}
