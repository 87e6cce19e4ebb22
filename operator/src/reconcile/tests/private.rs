//! The way of an image behind a pull secret: refused, granted, resolved, and handed to a node that has no credential.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{Request, State as Held};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;

use super::*;
use crate::blobs::Components;
use crate::node_api::{BlobWanted, Blobs};
use crate::resolve::{Credentials, digest_of};

const TOKEN: &str = "Bearer of-the-day";

/// A registry with a token service of its own: basic credentials buy a token, only the token opens anything.
async fn registry() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(answer).with_state(host.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    host
}

/// A registry that never answers.
async fn silent_registry() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(std::future::pending::<StatusCode>);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    host
}

async fn answer(Held(host): Held<String>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let shown = request.headers().get(header::AUTHORIZATION).cloned();
    let shown = shown.as_ref().and_then(|value| value.to_str().ok());
    let basic = base64::engine::general_purpose::STANDARD.encode("me:hush");
    if path == "/token" {
        return if shown == Some(&format!("Basic {basic}")) {
            json!({ "token": TOKEN.trim_start_matches("Bearer ") })
                .to_string()
                .into_response()
        } else {
            StatusCode::UNAUTHORIZED.into_response()
        };
    }
    if shown != Some(TOKEN) {
        let ask = format!(
            r#"Bearer realm="http://{host}/token",service="{host}",scope="repository:shop/app:pull""#
        );
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, ask)]).into_response();
    }
    let component = bytes();
    if path.contains("/manifests/") {
        let layer = json!({ "mediaType": "application/wasm", "digest": digest_of(&component), "size": component.len() });
        json!({ "schemaVersion": 2, "config": layer, "layers": [layer] })
            .to_string()
            .into_response()
    } else {
        component.into_response()
    }
}

fn bytes() -> Vec<u8> {
    base64::engine::general_purpose::STANDARD
        .decode(component())
        .unwrap()
}

/// The Secret and what a watch of it lists.
fn grant(world: &World, host: &str) {
    let config = json!({ "auths": { host: { "username": "me", "password": "hush" } } });
    let data = base64::engine::general_purpose::STANDARD.encode(config.to_string());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "registry", "namespace": "shop", "uid": "uid-registry" },
        "type": "kubernetes.io/dockerconfigjson", "data": { ".dockerconfigjson": data },
    });
    world
        .fake
        .put("/api/v1/namespaces/shop/secrets/registry", secret);
}

#[tokio::test]
async fn a_private_image_waits_for_its_grant_and_then_reaches_a_node_by_the_operator() {
    let host = registry().await;
    let silent = silent_registry().await;
    let mut world = World::with(vec![host.clone(), silent.clone()]);
    let granted = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&granted);
    world.fake.fail(Box::new(move |_, path| {
        let secret = path.ends_with("/secrets");
        (secret && !asked.load(Ordering::SeqCst)).then_some(403)
    }));
    let image = format!("{host}/shop/app:1.0");
    let source =
        json!({ "source": { "image": image, "imagePullSecrets": [{ "name": "registry" }] } });
    world.apply("f", "2026-01-01T00:00:00Z", &source);
    world.reconcile("f").await;
    let secret = world.secrets.recv().await.unwrap();
    world.reconcile("f").await;
    world.is_stalled("f", "SecretsNotGranted");

    // The grant alone is enough: the function does not change.
    grant(&world, &host);
    granted.store(true, Ordering::SeqCst);
    tokio::time::pause();
    while !matches!(
        world.reconciler.secrets.get(&secret),
        crate::watch::SecretState::Present(_)
    ) {
        world.secrets.recv().await.unwrap();
    }
    tokio::time::resume();
    world.reconcile("f").await;
    // The registry is asked beside the reconcile, which pushes the function when it knows.
    let turn = world.reconciler.queue.take(false).await;
    assert_eq!(turn.key, ObjectKey::new("shop", "f"));
    world.reconcile("f").await;
    assert_eq!(world.condition("f", "Accepted").0, "True");
    assert_eq!(world.condition("f", "Resolved").0, "True");
    assert!(world.status("f").candidate.is_some());
    world.catch_up();

    // The registries of new versions do not delay what nodes ask for, not even in the same namespace.
    let reconciler = &world.reconciler;
    let image = format!("{silent}/shop/app:1.0");
    let anonymous = Credentials::default();
    let mut resolves: Vec<_> = (0..20)
        .map(|_| Box::pin(reconciler.resolver.resolve("shop", &image, &anonymous)))
        .collect();
    for one in &mut resolves {
        assert!(one.as_mut().now_or_never().is_none());
    }
    let blobs = Components::new(
        reconciler.caches.clone(),
        reconciler.secrets.clone(),
        Arc::clone(&reconciler.resolver),
    );
    let wanted = BlobWanted {
        digest: digest_of(&bytes()),
        functions: vec![FunctionKey::new("shop", "f")],
    };
    let fetched = tokio::time::timeout(Duration::from_secs(60), blobs.fetch(wanted)).await;
    assert_eq!(fetched.unwrap().unwrap(), bytes());
}
