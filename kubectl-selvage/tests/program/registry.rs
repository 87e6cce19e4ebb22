//! A registry that keeps blobs and manifests, and checks what it is sent as registries do.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;

/// `Authorization` of the user `me` with the password `hush`.
const LOGIN: &str = "Basic bWU6aHVzaA==";

#[derive(Clone, Default)]
pub(crate) struct Registry {
    pub(crate) host: String,
    content: Arc<Mutex<BTreeMap<String, Bytes>>>,
    requests: Arc<Mutex<Vec<String>>>,
    is_private: bool,
}

impl Registry {
    /// Starts a registry. A private one requires [`LOGIN`].
    pub(crate) async fn start(is_private: bool) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Self {
            host: listener.local_addr().unwrap().to_string(),
            is_private,
            ..Self::default()
        };
        let router = Router::new().fallback(serve).with_state(registry.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        registry
    }

    /// Returns methods and paths of the requests since the last call.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock())
    }

    pub(crate) fn manifest(&self, tag: &str) -> serde_json::Value {
        let content = self.content.lock();
        let path = format!("/v2/shop/app/manifests/{tag}");
        serde_json::from_slice(&content[&path]).unwrap()
    }

    pub(crate) fn blob(&self, digest: &str) -> Bytes {
        self.content.lock()[&format!("/v2/shop/app/blobs/{digest}")].clone()
    }

    fn put(&self, path: String, digest: &str, body: Bytes) -> Response {
        assert_eq!(oci::digest_of(&body), digest);
        self.content.lock().insert(path.clone(), body);
        (StatusCode::CREATED, [(header::LOCATION, path)]).into_response()
    }
}

async fn serve(
    Shared(registry): Shared<Registry>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path();
    registry.requests.lock().push(format!("{method} {path}"));
    let shown = headers.get(header::AUTHORIZATION);
    if registry.is_private && shown.is_none_or(|shown| shown != LOGIN) {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"r\"")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    let (folder, name) = path.rsplit_once('/').unwrap();
    match (method, folder) {
        (Method::GET, "/v2") => StatusCode::OK.into_response(),
        (Method::POST, "/v2/shop/app/blobs/uploads") => {
            let location = [(header::LOCATION, "/v2/shop/app/blobs/uploads/1")];
            (StatusCode::ACCEPTED, location).into_response()
        }
        (Method::PUT, "/v2/shop/app/blobs/uploads") => {
            let digest = uri.query().unwrap().strip_prefix("digest=").unwrap();
            let digest = digest.replace("%3A", ":");
            registry.put(format!("/v2/shop/app/blobs/{digest}"), &digest, body)
        }
        (Method::PUT, "/v2/shop/app/manifests") => {
            assert_eq!(
                headers[header::CONTENT_TYPE],
                "application/vnd.oci.image.manifest.v1+json"
            );
            let digest = oci::digest_of(&body);
            registry.put(format!("{folder}/{name}"), &digest, body.clone());
            registry.put(format!("{folder}/{digest}"), &digest, body)
        }
        (Method::GET | Method::HEAD, _) => match registry.content.lock().get(path) {
            Some(bytes) => bytes.clone().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}
