//! Tests of the page through HTTP, with objects in caches that no API server fills.

mod access;
mod browser;
mod data;
mod live;
mod nodes;
mod objects;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::MAX_STREAMS;
use super::access::Access;
use super::feed::Feed;
use super::server::Server;
use crate::watch::Caches;

/// A page without a listener.
struct Page {
    caches: Caches,
    feed: Feed,
    server: Server,
}

impl Page {
    /// A page with these rules, and no functions.
    fn new(access: Access, max_streams: usize) -> Self {
        let caches = objects::filled();
        let feed = Feed::new(caches.clone(), "operator-0".to_owned());
        let server = Server::new(feed.clone(), access, max_streams);
        Self {
            caches,
            feed,
            server,
        }
    }

    fn open() -> Self {
        Self::new(Access::new(Vec::new(), None), MAX_STREAMS)
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.server.router().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str) -> Response<Body> {
        self.send(request(path)).await
    }

    /// Data of a path, which must be answered with 200.
    async fn data(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        serde_json::from_str(&text(response).await).unwrap()
    }

    /// Puts a function into the cache, and takes it over as the watch would.
    fn put(&self, function: Value) {
        let function: crds::EdgeFunction = serde_json::from_value(function).unwrap();
        let key = crate::watch::ObjectKey::of(&function);
        self.caches.functions.put(function);
        self.feed.handle([key].into(), objects::now());
    }
}

fn request(path: &str) -> Request<Body> {
    let request = Request::get(path).header("host", "127.0.0.1:9181");
    request.body(Body::empty()).unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}
