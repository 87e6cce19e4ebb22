//! The admin endpoints: liveness (`/healthz`), readiness (`/readyz`) and metrics (`/metrics`).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Names the part that is not ready yet; `None` when the operator is ready.
pub type Readiness = Arc<dyn Fn() -> Option<&'static str> + Send + Sync>;

#[derive(Clone)]
struct Shared {
    metrics: Metrics,
    ready: Readiness,
    stop: CancellationToken,
}

/// Serves the admin endpoints and never returns without an error. From the cancellation of `stop` on, the operator is not ready.
///
/// # Errors
/// The address cannot be bound, or the listener fails permanently.
pub async fn run(
    address: SocketAddr,
    metrics: Metrics,
    ready: Readiness,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let shared = Shared {
        metrics,
        ready,
        stop,
    };
    serve(listener, router(shared)).await
}

fn router(shared: Shared) -> Router {
    Router::new()
        // An answer proves that the event loop runs. A fault outside the process is no reason to restart it.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(shared)
}

async fn readyz(State(shared): State<Shared>) -> Response {
    if shared.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    match (shared.ready)() {
        None => "ok\n".into_response(),
        Some(missing) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for {missing}\n"),
        )
            .into_response(),
    }
}

async fn render(State(shared): State<Shared>) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        shared.metrics.render(),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn status(shared: &Shared) -> StatusCode {
        readyz(State(shared.clone())).await.status()
    }

    /// A replica that ends gets no new connections of Services, however long it serves the present ones.
    #[tokio::test]
    async fn a_replica_that_stops_is_not_ready() {
        let shared = Shared {
            metrics: Metrics::new().unwrap(),
            ready: Arc::new(|| None),
            stop: CancellationToken::new(),
        };
        assert_eq!(status(&shared).await, StatusCode::OK);
        shared.stop.cancel();
        assert_eq!(status(&shared).await, StatusCode::SERVICE_UNAVAILABLE);
    }
}
