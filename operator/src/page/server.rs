//! The HTTP server of the page.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use axum::{Router, middleware};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::access::{Access, failure, guard, guard_data, json};
use super::assets;
use super::feed::Feed;
use super::list::ListQuery;
use super::nodes::NodeQuery;
use super::streams;
use crate::watch::ObjectKey;

/// Maximum number of open connections. Further ones wait.
const MAX_CONNECTIONS: usize = 256;
/// Time in which the head of a request must arrive. A connection without requests is closed after it, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which a connection is closed, with its stream. Browsers connect again; clients that no longer read go away.
const MAX_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Maximum size of the head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Pause after a failed accept, for example because there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// State of the handlers. Clones are cheap.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) feed: Feed,
    pub(super) streams: Arc<Semaphore>,
    access: Access,
}

impl Server {
    pub(super) fn new(feed: Feed, access: Access, max_streams: usize) -> Self {
        Self {
            feed,
            streams: Arc::new(Semaphore::new(max_streams)),
            access,
        }
    }

    pub(super) fn router(&self) -> Router {
        let data = Router::new()
            .route("/functions", get(list))
            .route("/functions/{namespace}/{name}", get(function))
            .route("/nodes", get(nodes))
            .route("/streams", get(streams::list))
            .route("/streams/nodes", get(streams::nodes))
            .route("/streams/{namespace}/{name}", get(streams::function))
            .fallback(|| async { failure(StatusCode::NOT_FOUND, "There is no such data.") })
            .route_layer(middleware::from_fn_with_state(self.clone(), filled))
            .layer(middleware::from_fn_with_state(
                self.access.clone(),
                guard_data,
            ))
            .with_state(self.clone());
        assets::routes()
            .nest("/api", data)
            .layer(middleware::from_fn_with_state(self.access.clone(), guard))
    }
}

/// Accepts connections and never returns. Dropping the future closes them.
pub(super) async fn accept(listener: TcpListener, router: Router) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let permit = Arc::clone(&free).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed on the port of the page");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(router.clone()),
            );
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            // A failed connection affects only its client.
            let _ = tokio::time::timeout(MAX_LIFETIME, connection).await;
            drop(permit);
        });
    }
}

/// Middleware: refuses requests while the caches hold no complete lists, because an empty list would be wrong.
async fn filled(
    State(server): State<Server>,
    request: axum::extract::Request,
    next: middleware::Next,
) -> Response {
    if server.feed.is_filled() {
        next.run(request).await
    } else {
        let why = "This replica has not read all functions yet.";
        failure(StatusCode::SERVICE_UNAVAILABLE, why)
    }
}

async fn list(State(server): State<Server>, RawQuery(query): RawQuery) -> Response {
    match ListQuery::parse(query.as_deref()) {
        Ok(query) => json(&server.feed.list(&query)),
        Err(why) => failure(StatusCode::BAD_REQUEST, &why),
    }
}

async fn nodes(State(server): State<Server>, RawQuery(query): RawQuery) -> Response {
    match NodeQuery::parse(query.as_deref()) {
        Ok(query) => json(&server.feed.nodes(&query)),
        Err(why) => failure(StatusCode::BAD_REQUEST, &why),
    }
}

async fn function(
    State(server): State<Server>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    match server.feed.view(&ObjectKey::new(&namespace, &name)) {
        Some(view) => json(&view),
        None => failure(StatusCode::NOT_FOUND, "There is no such function."),
    }
}
