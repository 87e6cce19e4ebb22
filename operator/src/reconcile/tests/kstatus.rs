//! The conditions that other tools read, for every reason why a spec is refused.

use axum::Router;
use axum::http::StatusCode;
use crds::conditions::reasons;

use super::*;

/// A registry that answers everything alike.
async fn registry(status: StatusCode) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(move || async move { (status, "{}") });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    host
}

/// With the function `f` of this spec, reconciled.
async fn with(more: Value) -> World {
    let world = World::new();
    world.apply("f", "2026-01-02T00:00:00Z", &more);
    world.reconcile("f").await;
    world
}

/// With an image of a registry that was asked and gave this answer.
async fn asked(status: StatusCode, reference: &str) -> World {
    let host = registry(status).await;
    let world = World::with(vec![host.clone()]);
    let image = format!("{host}/shop/app{reference}");
    let source = json!({ "source": { "image": image } });
    world.apply("f", "2026-01-02T00:00:00Z", &source);
    world.reconcile("f").await;
    world.reconciler.queue.take(false).await;
    world.reconcile("f").await;
    world
}

/// A world with a function `f` that is not taken for this reason.
async fn not_taken(reason: &str) -> World {
    let from = |kind: &str| json!({ "env": [{ "name": "A", "valueFrom": { kind: { "name": "s", "key": "k" } } }] });
    let inline = |bytes: &[u8]| {
        let bytes = base64::engine::general_purpose::STANDARD.encode(bytes);
        json!({ "source": { "inline": bytes } })
    };
    match reason {
        reasons::INVALID_ROUTE => with(json!({ "routes": [] })).await,
        reasons::INVALID_SPEC => with(json!({ "limits": { "memory": "lots" } })).await,
        reasons::POLICY_VIOLATION => with(json!({ "routes": [{ "hosts": ["*"] }] })).await,
        reasons::NOT_YET_SUPPORTED => with(json!({ "rollout": { "strategy": "BlueGreen" } })).await,
        reasons::MISSING_REFERENCE => {
            let mut world = with(from("configMapKeyRef")).await;
            world.config_maps.recv().await.unwrap();
            world.reconcile("f").await;
            world
        }
        reasons::NOT_A_COMPONENT => with(inline(b"\x7fELF")).await,
        reasons::UNKNOWN_IMPORT => with(inline(b"\0asm\x0d\0\x01\0")).await,
        reasons::PULL_FAILED => asked(StatusCode::BAD_GATEWAY, ":1").await,
        reasons::NOT_FOUND => asked(StatusCode::NOT_FOUND, ":1").await,
        reasons::UNAUTHORIZED => asked(StatusCode::FORBIDDEN, ":1").await,
        reasons::DIGEST_MISMATCH => {
            asked(StatusCode::OK, &format!("@sha256:{}", "0".repeat(64))).await
        }
        reasons::RESOLVING => {
            let image = format!("{}/a:1", registry(StatusCode::OK).await);
            with(json!({ "source": { "image": image } })).await
        }
        _ => not_taken_with_others(reason, from).await,
    }
}

/// The same for reasons that lie in other objects, in the API server or in the operator.
async fn not_taken_with_others(reason: &str, from: impl Fn(&str) -> Value) -> World {
    match reason {
        reasons::ROUTE_CONFLICT => {
            let world = World::new();
            let same = json!({ "routes": [{ "hosts": ["f.example"] }] });
            world.apply("older", "2026-01-01T00:00:00Z", &same);
            world.apply("f", "2026-01-02T00:00:00Z", &same);
            world.reconcile("f").await;
            world
        }
        reasons::HOST_CONFLICT => {
            let world = World::new();
            let spec = json!({ "host": "f.example", "namespace": "blog" });
            let claim = claim("f.example", &spec);
            world.fake.put(&format!("{CLAIMS}/f.example"), claim);
            world.apply("f", "2026-01-02T00:00:00Z", &json!({}));
            world.reconcile("f").await;
            world
        }
        reasons::WRITE_REFUSED => {
            let world = World::new();
            world.fake.fail(Box::new(|method, path| {
                let creates = *method == Method::POST && path.ends_with("edgerevisions");
                creates.then_some(422)
            }));
            world.apply("f", "2026-01-02T00:00:00Z", &json!({}));
            world.reconcile("f").await;
            world
        }
        reasons::SECRETS_NOT_GRANTED => {
            let mut world = World::new();
            world.fake.fail(Box::new(|_, path| {
                path.ends_with("/secrets").then_some(403)
            }));
            world.apply("f", "2026-01-02T00:00:00Z", &from("secretKeyRef"));
            world.reconcile("f").await;
            world.secrets.recv().await.unwrap();
            world.reconcile("f").await;
            world
        }
        reasons::UNREADABLE => {
            let world = with(json!({})).await;
            let key = ObjectKey::new("shop", "f");
            let said = unreadable::report_function(&world.reconciler, &key, "why").await;
            said.unwrap();
            world
        }
        reasons::INTERNAL_ERROR => {
            let world = World::new();
            world.apply("f", "2026-01-02T00:00:00Z", &json!({}));
            world.fake.fail(Box::new(|method, path| {
                let makes = *method == Method::POST && path.ends_with("edgerevisions");
                assert!(!makes, "a bug of the operator");
                None
            }));
            world.reconciler.queue.push(&ObjectKey::new("shop", "f"));
            let worker = tokio::spawn(worker::work(Arc::clone(&world.reconciler), 3));
            let reported = || !world.events(reasons::INTERNAL_ERROR).is_empty();
            world.fake.until(reported).await;
            worker.abort();
            world
        }
        _ => panic!("{reason} is missing in this table"),
    }
}

#[tokio::test]
async fn every_reason_why_a_spec_is_not_taken_is_stalled_or_on_its_way() {
    let good = [
        reasons::ACCEPTED,
        reasons::RESOLVED,
        reasons::COMPATIBLE,
        reasons::LOADING,
    ];
    // tried again by itself: a registry heals, an image is pushed late, a tool applies a reference after the function
    let on_their_way = [
        reasons::RESOLVING,
        reasons::MISSING_REFERENCE,
        reasons::PULL_FAILED,
        reasons::NOT_FOUND,
        reasons::UNAUTHORIZED,
        reasons::DIGEST_MISMATCH,
    ];
    for reason in reasons::ALL.iter().filter(|reason| !good.contains(reason)) {
        let world = not_taken(reason).await;
        let says = if on_their_way.contains(reason) {
            "Reconciling"
        } else {
            "Stalled"
        };
        for kind in ["Ready", "Reconciling", "Stalled"] {
            let expected = if kind == says { "True" } else { "False" };
            let (status, why, message) = world.condition("f", kind);
            assert_eq!(
                (status.as_str(), why.as_str()),
                (expected, *reason),
                "{kind}: {message}"
            );
        }
        world.is_reported_once(reason).await;
    }
}
