//! Tests against a minimal registry on the loopback.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use futures::TryStreamExt;
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::parse_pull_secret;

/// Answers a request: `answer(path, authorization, own host)`.
type Answer = Arc<dyn Fn(&str, Option<&str>, &str) -> Response + Send + Sync>;

/// Paths of the requests, and their `Authorization` headers.
type Requests = Arc<Mutex<Vec<(String, Option<String>)>>>;

#[derive(Clone)]
struct Shared {
    answer: Answer,
    host: String,
    requests: Requests,
}

struct Registry {
    host: String,
    requests: Requests,
}

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn manifest(component: &[u8], size: usize) -> Vec<u8> {
    json!({
        "schemaVersion": 2,
        "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": digest_of(b"{}"), "size": 2 },
        "layers": [{ "mediaType": "application/wasm", "digest": digest_of(component), "size": size }],
    })
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

/// Redirects blobs to `location` and serves everything else.
fn moved(path: &str, location: String) -> Response {
    if path.contains("/blobs/") {
        let location = [(header::LOCATION, location)];
        (StatusCode::TEMPORARY_REDIRECT, location).into_response()
    } else {
        good(path)
    }
}

impl Registry {
    async fn start(
        answer: impl Fn(&str, Option<&str>, &str) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let shared = Shared {
            answer: Arc::new(answer),
            host: host.clone(),
            requests: Arc::default(),
        };
        let requests = Arc::clone(&shared.requests);
        let router = Router::new().fallback(serve).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { host, requests }
    }

    fn begin(&self, reference: &str, credentials: &Credentials) -> Pull {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::new([self.host.clone()]).unwrap();
        let image = format!("{}/shop/app{reference}", self.host).parse();
        client.pull(&image.unwrap(), credentials).unwrap()
    }

    /// Returns the image, its bytes, and whether credentials were used.
    async fn pull(
        &self,
        reference: &str,
        credentials: &Credentials,
    ) -> Result<(Image, Vec<u8>, bool), Error> {
        let mut pull = self.begin(reference, credentials);
        let image = pull.image().await?;
        let blob = pull.blob(&image.layer).await?;
        let pieces: Vec<Bytes> = blob.try_collect().await?;
        Ok((image, pieces.concat(), pull.used_credentials()))
    }

    fn requests(&self) -> Vec<(String, Option<String>)> {
        self.requests.lock().clone()
    }

    /// `Authorization` headers of requests for paths that contain `part`.
    fn shown(&self, part: &str) -> Vec<Option<String>> {
        let requests = self.requests().into_iter();
        let matching = requests.filter(|(path, _)| path.contains(part));
        matching.map(|(_, shown)| shown).collect()
    }

    fn login(&self, user: &str) -> Credentials {
        let config = json!({ "auths": { &self.host: { "username": user, "password": "hush" } } });
        let data = BTreeMap::from([(
            ".dockerconfigjson".to_owned(),
            config.to_string().into_bytes(),
        )]);
        parse_pull_secret("kubernetes.io/dockerconfigjson", &data).unwrap()
    }
}

async fn serve(State(shared): State<Shared>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let shown = request.headers().get(header::AUTHORIZATION);
    let shown = shown.map(|value| value.to_str().unwrap().to_owned());
    let mut requests = shared.requests.lock();
    requests.push((path.clone(), shown.clone()));
    (shared.answer)(&path, shown.as_deref(), &shared.host)
}

fn none() -> Credentials {
    Credentials::default()
}

fn basic(user: &str) -> String {
    let login = base64::engine::general_purpose::STANDARD.encode(format!("{user}:hush"));
    format!("Basic {login}")
}

fn challenge(text: String) -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, text)];
    (StatusCode::UNAUTHORIZED, challenge).into_response()
}

/// Requires a token for everything but the token service; `me` gets one.
fn guarded(path: &str, authorization: Option<&str>, host: &str) -> Response {
    match (path, authorization) {
        ("/token", Some(shown)) if shown == basic("me") => r#"{"token":"t0"}"#.into_response(),
        ("/token", _) => StatusCode::UNAUTHORIZED.into_response(),
        (path, Some("Bearer t0")) => good(path),
        _ => challenge(format!(
            r#"Bearer realm="http://{host}/token",service="registry",scope="repository:shop/app:pull""#
        )),
    }
}

#[tokio::test]
async fn a_tag_becomes_the_digest_of_its_manifest() {
    let registry = Registry::start(|path, _, _| good(path)).await;
    let (image, bytes, used) = registry.pull(":1.0", &none()).await.unwrap();
    let digest = digest_of(&manifest(COMPONENT, COMPONENT.len()));
    assert_eq!(image.manifest_digest, digest);
    assert_eq!(image.layer.digest, digest_of(COMPONENT));
    assert_eq!((bytes.as_slice(), used), (COMPONENT, false));
    let (again, ..) = registry.pull(&format!("@{digest}"), &none()).await.unwrap();
    assert_eq!(again, image);
    let paths = registry.requests().into_iter().map(|(path, _)| path);
    let manifests: Vec<_> = paths.filter(|path| path.contains("/manifests/")).collect();
    let by_digest = format!("/v2/shop/app/manifests/{digest}");
    assert_eq!(
        manifests,
        ["/v2/shop/app/manifests/1.0", by_digest.as_str()]
    );
}

#[test]
fn registries_are_called_at_their_own_address() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new(["plain.example:5000".to_owned()]).unwrap();
    for (image, base) in [
        ("busybox", "https://index.docker.io/v2/library/busybox/"),
        (
            "docker.io/team/app:1",
            "https://index.docker.io/v2/team/app/",
        ),
        ("r.example/a/b", "https://r.example/v2/a/b/"),
        ("plain.example:5000/a", "http://plain.example:5000/v2/a/"),
        ("plain.example/a", "https://plain.example/v2/a/"),
    ] {
        let pull = client.pull(&image.parse().unwrap(), &none()).unwrap();
        assert_eq!(pull.base.as_str(), base);
    }
}

/// HS-3: an index leads to one image, and an index inside an index is refused.
#[tokio::test]
async fn an_index_is_followed_once() {
    let index = |digest: String| {
        let entry = json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1 });
        json!({ "schemaVersion": 2, "manifests": [entry] }).to_string()
    };
    let inner = digest_of(&manifest(COMPONENT, COMPONENT.len()));
    let outer = index(inner.clone());
    let nested = index(digest_of(outer.as_bytes()));
    let registry = Registry::start(move |path, _, _| match path.rsplit('/').next().unwrap() {
        "1" => outer.clone().into_response(),
        "2" => nested.clone().into_response(),
        name if name == digest_of(outer.as_bytes()) => outer.clone().into_response(),
        _ => good(path),
    })
    .await;
    let (image, ..) = registry.pull(":1", &none()).await.unwrap();
    assert_eq!(image.manifest_digest, inner);
    let error = registry.pull(":2", &none()).await.unwrap_err();
    assert!(
        matches!(error, Error::Manifest(ManifestError::NestedIndex)),
        "{error}"
    );
}

/// HS-2: wrong, truncated and longer bytes, and a manifest of another digest.
#[tokio::test]
async fn hs_2_content_that_does_not_match_its_digest_is_refused() {
    for bytes in [
        &b"\0asm\x0d\0\x01\x01"[..],
        &COMPONENT[..4],
        b"\0asm\x0d\0\x01\0\0",
    ] {
        let registry = Registry::start(move |path, _, _| {
            if path.contains("/blobs/") {
                bytes.into_response()
            } else {
                good(path)
            }
        })
        .await;
        let error = registry.pull(":1", &none()).await.unwrap_err();
        let same_size = bytes.len() == COMPONENT.len();
        match error {
            Error::DigestMismatch { .. } if same_size => {}
            Error::SizeMismatch { .. } if !same_size => {}
            other => panic!("{bytes:?}: {other}"),
        }
    }
    let registry = Registry::start(|path, _, _| good(path)).await;
    let other = format!("@sha256:{}", "0".repeat(64));
    let error = registry.pull(&other, &none()).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

/// HS-2, HS-3: endless layers, manifests and tokens are not read beyond their limit.
#[tokio::test]
async fn hs_2_and_hs_3_answers_above_their_limit_are_not_read_to_the_end() {
    fn endless() -> Response {
        let chunks = futures::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 64 * 1024]))
        });
        Body::from_stream(chunks).into_response()
    }
    let registry = Registry::start(|path, authorization, host| match path {
        path if path.contains("/blobs/") => endless(),
        "/token" => endless(),
        path if path.contains("/manifests/guarded") => guarded(path, authorization, host),
        path if path.contains("/manifests/endless") => endless(),
        path => good(path),
    })
    .await;
    let error = registry.pull(":1", &none()).await.unwrap_err();
    assert!(
        matches!(error, Error::SizeMismatch { declared: 8, .. }),
        "{error}"
    );
    for (tag, what) in [(":endless", "the manifest"), (":guarded", "the token")] {
        match registry.pull(tag, &none()).await.unwrap_err() {
            Error::TooLarge { what: found, .. } => assert_eq!(found, what),
            other => panic!("{tag}: {other}"),
        }
    }
}

/// HS-9: 404, 403, 429 and 502 are distinguished and keep `Retry-After`, from the registry and its token service.
#[tokio::test]
async fn hs_9_errors_keep_status_and_retry_after() {
    for code in [404, 403, 429, 502] {
        for at in ["/v2/", "/token"] {
            let registry = Registry::start(move |path, authorization, host| {
                if path.starts_with(at) {
                    let status = StatusCode::from_u16(code).unwrap();
                    (status, [(header::RETRY_AFTER, "17")]).into_response()
                } else {
                    guarded(path, authorization, host)
                }
            })
            .await;
            let error = registry.pull(":1", &none()).await.unwrap_err();
            assert_eq!(error.retry_after(), Some(Duration::from_secs(17)));
            assert!(
                matches!(error, Error::Status { status, .. } if status == code),
                "{error}"
            );
            assert_eq!(error.is_unauthorized(), code == 403);
        }
    }
}

#[tokio::test]
async fn a_guarded_registry_gets_a_token_for_the_whole_pull() {
    let registry = Registry::start(guarded).await;
    let (.., used) = registry.pull(":1", &registry.login("me")).await.unwrap();
    assert!(used);
    assert_eq!(registry.shown("/token").len(), 1);
    let error = registry.pull(":1", &none()).await.unwrap_err();
    assert!(error.is_unauthorized(), "{error}");
    assert_eq!(registry.shown("/token"), [Some(basic("me")), None]);
}

#[tokio::test]
async fn a_token_may_be_anonymous() {
    let registry = Registry::start(|path, authorization, host| match path {
        "/token" => r#"{"access_token":"t0"}"#.into_response(),
        path => guarded(path, authorization, host),
    })
    .await;
    let (.., used) = registry.pull(":1", &none()).await.unwrap();
    assert!(!used);
    assert_eq!(registry.shown("/token"), [None]);
}

/// Some registries offer a password beside a token, some only a password.
#[tokio::test]
async fn a_password_is_sent_to_a_registry_that_wants_one() {
    let registry = Registry::start(|path, authorization, _| match authorization {
        Some(shown) if shown == basic("me") => good(path),
        _ => challenge("Basic realm=\"r\"".into()),
    })
    .await;
    let (.., used) = registry.pull(":1", &registry.login("me")).await.unwrap();
    assert!(used);
    let error = registry.pull(":1", &none()).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert!(!error.to_string().contains("hush"));
}

/// A Secret with an old password, and one for another team, come before the right one.
#[tokio::test]
async fn logins_are_tried_in_their_order_until_one_is_accepted() {
    let by_token = |path: &str, authorization: Option<&str>, host: &str| match (path, authorization)
    {
        // The token of this login is for another repository.
        ("/token", Some(shown)) if shown == basic("other") => r#"{"token":"t1"}"#.into_response(),
        (_, Some("Bearer t1")) => StatusCode::NOT_FOUND.into_response(),
        _ => guarded(path, authorization, host),
    };
    let by_password = |path: &str, authorization: Option<&str>, _: &str| match authorization {
        Some(shown) if shown == basic("me") => good(path),
        Some(shown) if shown == basic("other") => StatusCode::FORBIDDEN.into_response(),
        _ => challenge("Basic".into()),
    };
    for registry in [
        Registry::start(by_token).await,
        Registry::start(by_password).await,
    ] {
        let mut credentials = registry.login("old");
        credentials.merge(registry.login("other"));
        credentials.merge(registry.login("me"));
        credentials.merge(registry.login("never"));
        registry.pull(":1", &credentials).await.unwrap();
        let shown: Vec<_> = registry
            .requests()
            .into_iter()
            .filter_map(|(_, shown)| shown)
            .collect();
        let mut tried: Vec<_> = shown
            .into_iter()
            .filter(|shown| shown.starts_with("Basic"))
            .collect();
        tried.dedup();
        assert_eq!(tried, ["old", "other", "me"].map(basic));
        let error = registry
            .pull(":1", &registry.login("old"))
            .await
            .unwrap_err();
        assert!(error.is_unauthorized(), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_on_the_registry_itself_keeps_the_token() {
    let registry = Registry::start(|path, authorization, host| match path {
        path if path.starts_with("/store") => guarded("/v2/x/blobs/x", authorization, host),
        path if path.contains("/blobs/") => moved(path, "/store/1".into()),
        path => guarded(path, authorization, host),
    })
    .await;
    registry.pull(":1", &registry.login("me")).await.unwrap();
    assert_eq!(registry.shown("/store"), [Some("Bearer t0".to_owned())]);
}

/// HS-4: a redirect to another address of this machine is denied before it is requested.
#[tokio::test]
async fn hs_4_redirects_carry_no_credentials_and_reach_no_private_address() {
    let storage = Registry::start(|path, _, _| good(path)).await;
    for target in [
        format!("http://{}/store", storage.host),
        format!("https://{}/store", storage.host),
        format!(
            "https://localhost:{}/store",
            storage.host.rsplit(':').next().unwrap()
        ),
    ] {
        let registry = Registry::start(move |path, authorization, host| {
            let answer = guarded(path, authorization, host);
            if answer.status().is_success() && path.contains("/blobs/") {
                moved(path, target.clone())
            } else {
                answer
            }
        })
        .await;
        let error = registry
            .pull(":1", &registry.login("me"))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Denied { .. }), "{error}");
        assert!(error.to_string().contains(&registry.host), "{error}");
        assert!(
            registry
                .shown("/blobs/")
                .contains(&Some("Bearer t0".to_owned()))
        );
    }
    assert!(storage.requests().is_empty(), "{:?}", storage.requests());
}

#[tokio::test]
async fn redirects_are_limited() {
    let registry = Registry::start(|path, _, _| moved(path, path.to_owned())).await;
    let error = registry.pull(":1", &none()).await.unwrap_err();
    assert!(
        error.to_string().contains("one redirect too many"),
        "{error}"
    );
    assert_eq!(registry.shown("/blobs/").len(), 6);
}

/// HS-4: a token service on a private address is not called, so it gets no credentials either.
#[tokio::test]
async fn a_token_service_on_a_private_address_gets_no_credentials() {
    let inside = Registry::start(|_, _, _| r#"{"token":"t0"}"#.into_response()).await;
    let there = inside.host.clone();
    let registry = Registry::start(move |_, _, _| {
        challenge(format!(
            r#"Bearer realm="http://{there}/token",service="registry""#
        ))
    })
    .await;
    let error = registry
        .pull(":1", &registry.login("me"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert!(inside.requests().is_empty(), "{:?}", inside.requests());
}

/// HS-9: a registry that disconnects in the middle of a layer, and one that is unreachable, are reported as such.
#[tokio::test]
async fn a_registry_that_disconnects_or_is_unreachable_is_reported() {
    const DECLARED: usize = 8 << 20;
    let registry = Registry::start(|path, _, _| {
        if path.contains("/manifests/") {
            return manifest(COMPONENT, DECLARED).into_response();
        }
        let some = std::iter::repeat_n(Bytes::from(vec![0; 64 * 1024]), 32).map(Ok);
        let broken = some.chain([Err(std::io::Error::other("reset"))]);
        Body::from_stream(futures::stream::iter(broken)).into_response()
    })
    .await;
    let error = registry.pull(":1", &none()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("in the middle of the component layer"),
        "{error}"
    );

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let gone = Registry {
        host,
        requests: Arc::default(),
    };
    let error = gone.pull(":1", &none()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}
