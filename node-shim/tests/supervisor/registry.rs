//! A registry with scripted responses that records all requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use node_api::v1::Source;
use parking_lot::Mutex;

use crate::operator::digest;

/// Response to requests for one path.
#[derive(Clone)]
pub(crate) enum Answer {
    Bytes(Vec<u8>),
    /// The declared length of the bytes, but only the first part of them.
    Cut(Vec<u8>, usize),
    /// These bytes, repeated without an end.
    Endless(Vec<u8>),
    Status(u16, Vec<(&'static str, String)>),
    /// The first response once, then the second.
    Then(Box<Self>, Box<Self>),
}

#[derive(Clone, Default)]
struct RegistryState {
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

/// A running registry; stops when dropped.
pub(crate) struct Registry {
    state: RegistryState,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Registry {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = RegistryState::default();
        let router = Router::new().fallback(answer).with_state(state.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            state,
            address,
            server,
        }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn set(&self, path: &str, answer: Answer) {
        self.state.answers.lock().insert(path.into(), answer);
    }

    /// Removes all images of a repository, as its garbage collection does.
    pub(crate) fn remove(&self, name: &str) {
        let prefix = format!("/v2/{name}/");
        let mut answers = self.state.answers.lock();
        answers.retain(|path, _| !path.starts_with(&prefix));
    }

    /// Returns paths and headers of all requests so far.
    pub(crate) fn asked(&self) -> Vec<(String, HeaderMap)> {
        self.state.asked.lock().clone()
    }

    /// Publishes a component as an image and returns its source.
    pub(crate) fn push(&self, name: &str, wasm: &[u8]) -> Source {
        self.push_as(name, wasm, "application/wasm", wasm.len())
    }

    pub(crate) fn push_as(&self, name: &str, layer: &[u8], kind: &str, declared: usize) -> Source {
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.wasm.config.v0+json","digest":"{}","size":2}},"layers":[{{"mediaType":"{kind}","digest":"{}","size":{declared}}}]}}"#,
            digest(b"{}"),
            digest(layer),
        );
        self.set(&blob_path(name, layer), Answer::Bytes(layer.to_vec()));
        self.push_manifest(name, manifest.as_bytes())
    }

    pub(crate) fn push_manifest(&self, name: &str, manifest: &[u8]) -> Source {
        let manifest_digest = digest(manifest);
        let path = format!("/v2/{name}/manifests/{manifest_digest}");
        self.set(&path, Answer::Bytes(manifest.to_vec()));
        Source {
            repository: format!("{}/{name}", self.host()),
            manifest_digest,
            via_operator: false,
        }
    }
}

pub(crate) fn blob_path(name: &str, layer: &[u8]) -> String {
    format!("/v2/{name}/blobs/{}", digest(layer))
}

async fn answer(State(state): State<RegistryState>, request: Request) -> Response {
    let path = request.uri().path().to_string();
    state
        .asked
        .lock()
        .push((path.clone(), request.headers().clone()));
    let answer = {
        let mut answers = state.answers.lock();
        match answers.get(&path).cloned() {
            Some(Answer::Then(first, later)) => {
                answers.insert(path, *later);
                Some(*first)
            }
            other => other,
        }
    };
    match answer {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(answer) => response(answer),
    }
}

fn response(answer: Answer) -> Response {
    match answer {
        Answer::Bytes(bytes) => bytes.into_response(),
        Answer::Cut(bytes, at) => {
            let length = bytes.len();
            let part = Bytes::from(bytes).slice(..at);
            let parts = futures::stream::iter([Ok(part), Err(std::io::Error::other("cut"))]);
            Response::builder()
                .header("content-length", length)
                .body(Body::from_stream(parts))
                .unwrap()
        }
        Answer::Endless(bytes) => {
            let chunk = Bytes::from(bytes);
            let chunks = futures::stream::repeat(chunk).map(Ok::<_, std::io::Error>);
            Response::new(Body::from_stream(chunks))
        }
        Answer::Status(status, headers) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::empty()).unwrap()
        }
        Answer::Then(first, _) => response(*first),
    }
}
