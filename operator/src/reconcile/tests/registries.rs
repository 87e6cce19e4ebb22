//! What the status says while a registry fails or does not answer.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;

use super::*;

/// A registry that answers the first request with an error and no other one.
async fn failing_then_silent() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let asked = Arc::<AtomicUsize>::default();
    let router = Router::new().fallback(move || {
        let is_first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if !is_first {
                std::future::pending::<()>().await;
            }
            StatusCode::BAD_GATEWAY
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    host
}

/// With a registry that hangs, the error was shown for two seconds, and then only that the registry is asked.
#[tokio::test]
async fn the_last_error_of_a_registry_stays_with_its_time_until_something_else_is_known() {
    let host = failing_then_silent().await;
    let world = World::with(vec![host.clone()]);
    let source = |tag: &str| json!({ "source": { "image": format!("{host}/shop/app:{tag}") } });
    world.apply("f", "2026-01-01T00:00:00Z", &source("1"));
    world.reconcile("f").await;
    assert_eq!(world.condition("f", "Resolved").1, "Resolving");
    // The answer of the registry pushes the function.
    world.reconciler.queue.take(false).await;
    world.catch_up();
    let wake = world.reconcile("f").await.wake.unwrap();
    let failed = world.condition("f", "Resolved");
    assert_eq!(
        (failed.0.as_str(), failed.1.as_str()),
        ("False", "PullFailed")
    );
    assert!(
        failed.2.contains("answered 502 (last attempt at 20"),
        "{}",
        failed.2
    );

    tokio::time::pause();
    tokio::time::sleep_until(wake).await;
    tokio::time::resume();
    // The first pass asks again, and during the second one the question is open.
    for _ in 0..2 {
        world.catch_up();
        world.reconcile("f").await;
        assert_eq!(world.condition("f", "Resolved"), failed);
        assert_eq!(world.status("f").message.as_ref(), Some(&failed.2));
    }

    // Another leader has not asked yet and does not know better.
    let fake = world.fake.clone();
    let other = World::of(fake.clone(), fake.client(), vec![host.clone()]);
    other.catch_up();
    other.reconcile("f").await;
    assert_eq!(other.condition("f", "Resolved"), failed);

    // Another image is another question.
    let mut object = other.fake.get(&format!("{FUNCTIONS}/f")).unwrap();
    object["metadata"]["generation"] = json!(2);
    object["spec"]["source"] = source("2")["source"].clone();
    other.fake.put(&format!("{FUNCTIONS}/f"), object);
    other.catch_up();
    other.reconcile("f").await;
    assert_eq!(other.condition("f", "Resolved").1, "Resolving");
}
