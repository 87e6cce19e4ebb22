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
