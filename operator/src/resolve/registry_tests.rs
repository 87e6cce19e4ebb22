//! Against a registry of a few lines on the loopback.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::*;

type Answer = Arc<dyn Fn(&str, Option<&str>, &str) -> Response + Send + Sync>;

#[derive(Clone)]
struct Shared {
    answer: Answer,
    host: String,
    asked: Arc<Mutex<Vec<(String, bool)>>>,
}

struct Registry {
    host: String,
    asked: Arc<Mutex<Vec<(String, bool)>>>,
}

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn manifest(component: &[u8], size: usize) -> Vec<u8> {
    json!({ "schemaVersion": 2, "layers": [{ "mediaType": "application/wasm", "digest": digest_of(component), "size": size }] })
        .to_string()
        .into_bytes()
}

/// Serves a component under every name and tag.
fn good(path: &str) -> Response {
    if path.contains("/manifests/") {
        manifest(COMPONENT, COMPONENT.len()).into_response()
    } else {
        COMPONENT.into_response()
    }
}

impl Registry {
    /// `answer(path, authorization, own host)`.
    async fn start(
        answer: impl Fn(&str, Option<&str>, &str) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let shared = Shared {
            answer: Arc::new(answer),
            host: host.clone(),
            asked: Arc::default(),
        };
        let asked = Arc::clone(&shared.asked);
        let router = Router::new().fallback(serve).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { host, asked }
    }

    async fn resolve(
        &self,
        reference: &str,
        credentials: &Credentials,
    ) -> Result<Artifact, ResolveError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let resolver = Resolver::new([self.host.clone()]).unwrap();
        resolver
            .resolve(&format!("{}/shop/app{reference}", self.host), credentials)
            .await
    }

    fn asked(&self) -> Vec<(String, bool)> {
        self.asked.lock().unwrap().clone()
    }

    fn credentials(&self) -> Credentials {
        let config = json!({ "auths": { &self.host: { "username": "me", "password": "hush" } } });
        let data = BTreeMap::from([(
            ".dockerconfigjson".to_owned(),
            config.to_string().into_bytes(),
        )]);
        parse_pull_secret("kubernetes.io/dockerconfigjson", &data).unwrap()
    }
}

async fn serve(State(shared): State<Shared>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let authorization = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .map(ToOwned::to_owned);
    shared
        .asked
        .lock()
        .unwrap()
        .push((path.clone(), authorization.is_some()));
    (shared.answer)(&path, authorization.as_deref(), &shared.host)
}

fn none() -> Credentials {
    Credentials::default()
}

#[tokio::test]
async fn a_tag_becomes_the_digest_of_its_manifest() {
    let registry = Registry::start(|path, _, _| good(path)).await;
    let artifact = registry.resolve(":1.0", &none()).await.unwrap();
    assert_eq!(
        artifact.manifest_digest,
        digest_of(&manifest(COMPONENT, COMPONENT.len()))
    );
    assert_eq!(artifact.component_digest, digest_of(COMPONENT));
    assert_eq!(artifact.repository, format!("{}/shop/app", registry.host));
    assert!(!artifact.private);
}

/// HS-2: wrong or truncated bytes, and a manifest of another digest, are a `DigestMismatch`.
#[tokio::test]
async fn hs_2_other_bytes_than_declared_are_refused() {
    let lying: [(&str, Answer); 3] = [
        (
            "wrong bytes",
            Arc::new(|path, _, _| {
                if path.contains("/blobs/") {
                    b"\0asm\x0d\0\x01\x01".into_response()
                } else {
                    good(path)
                }
            }),
        ),
        (
            "cut off",
            Arc::new(|path, _, _| {
                if path.contains("/blobs/") {
                    COMPONENT[..4].into_response()
                } else {
                    good(path)
                }
            }),
        ),
        ("wrong manifest", Arc::new(|path, _, _| good(path))),
    ];
    for (what, answer) in lying {
        let registry =
            Registry::start(move |path, authorization, host| answer(path, authorization, host))
                .await;
        let reference = if what == "wrong manifest" {
            format!("@sha256:{}", "0".repeat(64))
        } else {
            ":1".to_owned()
        };
        let error = registry.resolve(&reference, &none()).await.unwrap_err();
        assert_eq!(error.failure, Failure::DigestMismatch, "{what}: {error}");
    }
}

/// HS-2, HS-3: endless layers and manifests are given up, not read.
#[tokio::test]
async fn hs_2_and_hs_3_what_is_longer_than_allowed_is_not_read_to_its_end() {
    let endless = || {
        let chunks = futures::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 64 * 1024]))
        });
        Body::from_stream(chunks).into_response()
    };
    let registry = Registry::start(move |path, _, _| {
        if path.contains("/blobs/") {
            endless()
        } else {
            good(path)
        }
    })
    .await;
    assert_eq!(
        registry.resolve(":1", &none()).await.unwrap_err().failure,
        Failure::PullFailed
    );
    let registry = Registry::start(move |_, _, _| endless()).await;
    assert_eq!(
        registry.resolve(":1", &none()).await.unwrap_err().failure,
        Failure::PullFailed
    );
}

/// HS-9: 404, 403, 429 and 502 have their reason and keep `Retry-After`.
#[tokio::test]
async fn hs_9_answers_have_their_class_and_retry_after_is_kept() {
    for (status, failure) in [
        (StatusCode::NOT_FOUND, Failure::NotFound),
        (StatusCode::FORBIDDEN, Failure::Unauthorized),
        (StatusCode::TOO_MANY_REQUESTS, Failure::PullFailed),
        (StatusCode::BAD_GATEWAY, Failure::PullFailed),
    ] {
        let registry =
            Registry::start(move |_, _, _| (status, [(header::RETRY_AFTER, "17")]).into_response())
                .await;
        let error = registry.resolve(":1", &none()).await.unwrap_err();
        assert_eq!(
            (error.failure, error.retry_after),
            (failure, Some(Duration::from_secs(17))),
            "{status}"
        );
    }
}

/// Everything but the token service wants a token.
fn guarded(path: &str, authorization: Option<&str>, host: &str) -> Response {
    match (path, authorization) {
        ("/token", Some(basic)) if basic.starts_with("Basic ") => {
            r#"{"token":"t0"}"#.into_response()
        }
        ("/token", _) => StatusCode::UNAUTHORIZED.into_response(),
        (path, Some("Bearer t0")) => good(path),
        _ => {
            let challenge = format!(
                r#"Bearer realm="http://{host}/token",service="registry",scope="repository:shop/app:pull""#
            );
            (
                StatusCode::UNAUTHORIZED,
                [(header::WWW_AUTHENTICATE, challenge)],
            )
                .into_response()
        }
    }
}

#[tokio::test]
async fn a_guarded_registry_gets_a_token_and_makes_the_artifact_private() {
    let registry = Registry::start(guarded).await;
    assert!(
        registry
            .resolve(":1", &registry.credentials())
            .await
            .unwrap()
            .private
    );
    let error = registry.resolve(":1", &none()).await.unwrap_err();
    assert_eq!(error.failure, Failure::Unauthorized);
    assert!(!error.message.contains("hush"));
}

/// HS-4: a redirect to another address of this machine is refused before it is asked.
#[tokio::test]
async fn hs_4_redirects_do_not_carry_credentials_and_do_not_lead_inside() {
    let storage = Registry::start(|path, _, _| good(path)).await;
    let there = storage.host.clone();
    let registry = Registry::start(move |path, authorization, host| {
        match guarded(path, authorization, host) {
            answer if answer.status().is_success() && path.contains("/blobs/") => (
                StatusCode::TEMPORARY_REDIRECT,
                [(header::LOCATION, format!("http://{there}/store"))],
            )
                .into_response(),
            answer => answer,
        }
    })
    .await;
    // Another address of this machine, over plain HTTP and not configured: refused before it is asked.
    let error = registry
        .resolve(":1", &registry.credentials())
        .await
        .unwrap_err();
    assert_eq!(error.failure, Failure::PullFailed);
    assert!(storage.asked().is_empty(), "{:?}", storage.asked());
    assert!(
        registry
            .asked()
            .iter()
            .any(|(path, shown)| path.contains("/blobs/") && *shown)
    );
}

/// HS-4: a token service inside is not asked, so it gets no credentials either.
#[tokio::test]
async fn a_token_service_inside_gets_no_credentials() {
    let inside = Registry::start(|_, _, _| r#"{"token":"t0"}"#.into_response()).await;
    let there = inside.host.clone();
    let registry = Registry::start(move |_, _, _| {
        let challenge = format!(r#"Bearer realm="http://{there}/token",service="registry""#);
        let ask = [(header::WWW_AUTHENTICATE, challenge)];
        (StatusCode::UNAUTHORIZED, ask).into_response()
    })
    .await;
    let credentials = registry.credentials();
    let error = registry.resolve(":1", &credentials).await.unwrap_err();
    assert_eq!(error.failure, Failure::PullFailed);
    assert!(error.message.contains("not allowed"), "{error}");
    assert!(inside.asked().is_empty(), "{:?}", inside.asked());
}

/// HS-9: a registry that breaks off in the middle of a layer, and one that is gone, are named as such.
#[tokio::test]
async fn a_registry_that_breaks_off_or_is_gone_is_named() {
    const DECLARED: usize = 8 << 20;
    let registry = Registry::start(|path, _, _| {
        if path.contains("/manifests/") {
            return manifest(COMPONENT, DECLARED).into_response();
        }
        let some = std::iter::repeat_n(bytes::Bytes::from(vec![0; 64 * 1024]), 32).map(Ok);
        let broken = some.chain([Err(std::io::Error::other("reset"))]);
        Body::from_stream(futures::stream::iter(broken)).into_response()
    })
    .await;
    let error = registry.resolve(":1", &none()).await.unwrap_err();
    assert_eq!(error.failure, Failure::PullFailed);
    assert!(error.message.contains("in the middle of"), "{error}");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let gone = Registry {
        host,
        asked: Arc::default(),
    };
    let error = gone.resolve(":1", &none()).await.unwrap_err();
    assert_eq!(error.failure, Failure::PullFailed);
    assert!(error.message.contains("cannot be reached"), "{error}");
}
