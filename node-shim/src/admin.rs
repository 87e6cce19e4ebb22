//! The admin port: `/healthz`, `/readyz`, `/metrics`; and a Unix socket for `/debug/*`, which shows
//! more than the network should see, never a secret.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use tokio::net::{TcpListener, UnixListener};

/// Epoch thread and event loop must have moved within this time.
pub const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// What the admin port asks the process.
pub trait ProcessStatus: Send + Sync + 'static {
    /// What is stuck, if anything is; says nothing about the world outside.
    fn health(&self) -> BoxFuture<'_, Result<(), String>>;
    /// Why load balancers should look elsewhere.
    fn readiness(&self) -> Result<(), String>;
    /// The metrics page.
    fn metrics(&self) -> String;
    /// A page for people, JSON: `table`, `functions`, `connections`, `cache` or `config`.
    fn debug(&self, page: DebugPage) -> serde_json::Value;
}

/// Pages on the Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugPage {
    /// The table in force.
    Table,
    /// Functions and where their code stands.
    Functions,
    /// Connections of the data port.
    Connections,
    /// Components and native code on disk.
    Cache,
    /// Flags of the process.
    Config,
}

type Shared = Arc<dyn ProcessStatus>;

/// Serves the admin port until the process ends; returns where it listens.
///
/// # Errors
/// The listener cannot be used.
pub fn serve(listener: std::net::TcpListener, inspect: Shared) -> io::Result<SocketAddr> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let bound = listener.local_addr()?;
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(inspect);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the admin port ended");
        }
    });
    Ok(bound)
}

/// Serves the debug pages on a Unix socket that only this user can open.
///
/// # Errors
/// The socket cannot be made.
pub fn serve_debug(path: &Path, inspect: Shared) -> io::Result<SocketFile> {
    // a process that was killed leaves its socket behind
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let page = |page: DebugPage| {
        get(move |State(inspect): State<Shared>| async move {
            (
                [(header::CONTENT_TYPE, "application/json")],
                inspect.debug(page).to_string(),
            )
        })
    };
    let router = Router::new()
        .route("/debug/table", page(DebugPage::Table))
        .route("/debug/functions", page(DebugPage::Functions))
        .route("/debug/connections", page(DebugPage::Connections))
        .route("/debug/cache", page(DebugPage::Cache))
        .route("/debug/config", page(DebugPage::Config))
        .with_state(inspect);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the debug socket ended");
        }
    });
    Ok(SocketFile(path.to_owned()))
}

/// Removes the socket's file in the end.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn healthz(State(inspect): State<Shared>) -> Response {
    probe_response(inspect.health().await)
}

async fn readyz(State(inspect): State<Shared>) -> Response {
    probe_response(inspect.readiness())
}

async fn metrics(State(inspect): State<Shared>) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        inspect.metrics(),
    )
        .into_response()
}

fn probe_response(verdict: Result<(), String>) -> Response {
    match verdict {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
