//! The admin port with `/healthz`, `/readyz` and `/metrics`, and a Unix socket for `/debug/*`. The debug
//! pages show details that must not be exposed to the network, but no secrets.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;

/// Time within which the epoch thread and the event loops must respond to count as healthy.
pub const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of open connections of the admin port. One more closes the oldest.
const MAX_CONNECTIONS: usize = 64;
/// Maximum time until a request head is complete, including the time without a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Part of the process that does not respond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unhealthy {
    /// The thread that advances the epochs stopped.
    #[error("the epoch thread made no progress for {} ms", .0.as_millis())]
    EpochThread(Duration),
    /// An event loop that serves requests or accepts connections is blocked, or its thread has ended, or all threads for guests
    /// that compute are.
    #[error("a thread of the data plane does not respond")]
    DataPlane,
}

/// Why load balancers should not send requests to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The node shuts down.
    #[error("draining")]
    Draining,
    /// The node waits for its table, for values of Secrets or for code.
    #[error("not ready: no table has been applied yet, or code is still loading")]
    Starting,
}

/// Status of the process that the admin port exposes.
pub trait ProcessStatus: Send + Sync + 'static {
    /// Checks the process itself, not its dependencies.
    ///
    /// # Errors
    /// Returns which part of the process does not respond.
    fn health(&self) -> BoxFuture<'_, Result<(), Unhealthy>>;
    /// Checks whether load balancers should send requests to the node.
    ///
    /// # Errors
    /// Returns why they should not.
    fn readiness(&self) -> Result<(), NotReady>;
    /// Returns the metrics in a format that suits a client with this `accept` header.
    fn metrics(&self, accept: &str) -> MetricsPage;
    /// Returns a debug page as JSON.
    fn debug(&self, page: DebugPage) -> serde_json::Value;
}

/// Page of metrics in one of the formats that Prometheus reads.
#[derive(Clone, Debug)]
pub struct MetricsPage {
    /// Format, as the value of `content-type`.
    pub media_type: &'static str,
    /// All samples in this format, in UTF-8.
    pub text: String,
}

impl MetricsPage {
    /// Returns a page in the text format of Prometheus.
    #[must_use]
    pub const fn text(text: String) -> Self {
        Self {
            media_type: "text/plain; version=0.0.4",
            text,
        }
    }
}

/// Debug page on the Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugPage {
    /// Current function table.
    Table,
    /// Functions and the load states of their components.
    Functions,
    /// Open connections of the data port.
    Connections,
    /// Components and native code on disk.
    Cache,
    /// Configuration of the process.
    Config,
}

type Shared = Arc<dyn ProcessStatus>;

/// Serves the admin port in the background and returns its address.
///
/// # Errors
/// Returns an error when the listener cannot be used.
pub fn serve(listener: std::net::TcpListener, inspect: Shared) -> io::Result<SocketAddr> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let bound = listener.local_addr()?;
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(inspect);
    tokio::spawn(accept(listener, router));
    Ok(bound)
}

/// Accepts connections of the admin port. A client that closes its sending direction, such as `nc -N`, still
/// receives its response.
async fn accept(listener: TcpListener, router: Router) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed on the admin port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        // Refusing the newest would let clients that never read keep out the probes of the kubelet.
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .half_close(true)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(router.clone()),
            );
        // a failed connection affects only its client
        open.push_back(tokio::spawn(async { drop(connection.await) }).abort_handle());
    }
}

/// Serves the debug pages in the background on a Unix socket that only the current user can open.
///
/// # Errors
/// Returns an error when the socket cannot be created.
pub fn serve_debug(path: &Path, inspect: Shared) -> io::Result<SocketFile> {
    // a killed process leaves its socket file behind
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
            tracing::error!(%error, "the debug server stopped");
        }
    });
    Ok(SocketFile(path.to_owned()))
}

/// Removes the socket file when dropped.
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

async fn metrics(State(inspect): State<Shared>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let accepted: Vec<_> = accepted.filter_map(|value| value.to_str().ok()).collect();
    let page = inspect.metrics(&accepted.join(","));
    ([(header::CONTENT_TYPE, page.media_type)], page.text).into_response()
}

fn probe_response(verdict: Result<(), impl Display>) -> Response {
    match verdict {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
