//! Establishes connections to checked addresses.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use node_shim_core::egress::{EgressOutcome, EgressScheme, OutboundTarget};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wasmtime_wasi_http::Error;

use super::EgressClient;
use super::authorities::FunctionAuthorities;
use super::failure::Failure;
use super::pool::{Connected, ConnectionKey, ConnectionTask, Sender};
use super::tls;
use crate::revision::Revision;

/// Maximum size of the head of a response in bytes.
const MAX_HEAD: usize = 32 << 10;
/// Windows of HTTP/2 in bytes: a function that reads nothing pins one window for each request.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
const SEND_BUFFER: usize = 64 << 10;
/// Maximum number of addresses to which a connection is attempted.
const MAX_ATTEMPTS: usize = 4;

/// Returns the keys of the addresses in the order in which they are tried, IPv4 and IPv6 by turns.
pub(super) fn keys(
    revision: &Revision,
    target: &OutboundTarget,
    addresses: &[SocketAddr],
) -> Vec<ConnectionKey> {
    let trusted = revision.spec.authorities.as_ref();
    let authorities = trusted
        .filter(|_| target.scheme == EgressScheme::Https)
        .map(|authorities| authorities.id());
    let (v4, v6): (Vec<&SocketAddr>, Vec<&SocketAddr>) =
        addresses.iter().partition(|address| address.is_ipv4());
    let longer = v4.len().max(v6.len());
    let by_turns = (0..longer).flat_map(|at| [v4.get(at), v6.get(at)]);
    by_turns
        .flatten()
        .take(MAX_ATTEMPTS)
        .map(|address| ConnectionKey {
            function: revision.function().clone(),
            scheme: target.scheme,
            host: target.host.clone(),
            address: **address,
            authorities,
        })
        .collect()
}

impl EgressClient {
    /// Connects to the first of these addresses that accepts a connection within `limit`. `authorities` are those that the
    /// function trusts in addition to those of the node.
    pub(super) async fn connect(
        self: &Arc<Self>,
        keys: &[ConnectionKey],
        authorities: Option<&FunctionAuthorities>,
        limit: Duration,
        place: OwnedSemaphorePermit,
    ) -> Result<Connected, Failure> {
        let end = Instant::now() + limit;
        let mut failure = Failure::connect_timeout();
        for (at, key) in keys.iter().enumerate() {
            let left = u32::try_from(keys.len() - at).unwrap_or(u32::MAX);
            let share = end.saturating_duration_since(Instant::now()) / left;
            match timeout(share, self.options.network.connect(key.address)).await {
                Ok(Ok(stream)) => {
                    let handshake = self.handshake(key.clone(), authorities, stream, limit, place);
                    return handshake.await;
                }
                Ok(Err(error)) => failure = Failure::connect(&error),
                Err(_) => failure = Failure::connect_timeout(),
            }
        }
        Err(failure)
    }

    /// Performs the handshakes of TLS and HTTP.
    async fn handshake(
        self: &Arc<Self>,
        key: ConnectionKey,
        authorities: Option<&FunctionAuthorities>,
        stream: TcpStream,
        limit: Duration,
        place: OwnedSemaphorePermit,
    ) -> Result<Connected, Failure> {
        // small requests must not wait for acknowledgements
        let _ = stream.set_nodelay(true);
        let end = Instant::now() + limit;
        match key.scheme {
            EgressScheme::Http => http1_connection(key, stream, place).await,
            EgressScheme::Https => {
                let stream = timeout_at(end, self.tls(&key, authorities, stream))
                    .await
                    .map_err(|_| Failure::connect_timeout())??;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                if http2 {
                    let connected = http2_connection(key, stream, place).await?;
                    self.share(&connected);
                    Ok(connected)
                } else {
                    http1_connection(key, stream, place).await
                }
            }
        }
    }

    async fn tls(
        &self,
        key: &ConnectionKey,
        authorities: Option<&FunctionAuthorities>,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let failed = |error: Error| Failure::new(EgressOutcome::Tls, error);
        let name = tls::server_name(&key.host).map_err(failed)?;
        let config = self
            .tls_config(authorities)
            .map_err(|_| failed(Error::ConfigurationError))?;
        let connected = TlsConnector::from(config).connect(name, stream).await;
        connected.map_err(|error: io::Error| failed(tls::handshake_error(&error)))
    }

    /// Lets other requests use a new connection of HTTP/2.
    fn share(&self, connected: &Connected) {
        if let Sender::Http2(sender) = &connected.sender {
            let sender = Sender::Http2(sender.clone());
            let task = Arc::clone(&connected.task);
            self.pool.keep(connected.key.clone(), sender, task);
        }
    }
}

async fn http1_connection<T>(
    key: ConnectionKey,
    stream: T,
    place: OwnedSemaphorePermit,
) -> Result<Connected, Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // the parser accepts 100 header fields
    let handshake = http1::Builder::new()
        .max_header_size(MAX_HEAD)
        .max_buf_size(2 * MAX_HEAD)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(|error| Failure::exchange(&error))?;
    Ok(connected(key, Sender::Http1(sender), connection, place))
}

async fn http2_connection<T>(
    key: ConnectionKey,
    stream: T,
    place: OwnedSemaphorePermit,
) -> Result<Connected, Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(|error| Failure::exchange(&error))?;
    Ok(connected(key, Sender::Http2(sender), connection, place))
}

/// Runs a connection in a task that ends with the last request that uses it.
fn connected(
    key: ConnectionKey,
    sender: Sender,
    connection: impl Future<Output = hyper::Result<()>> + Send + 'static,
    place: OwnedSemaphorePermit,
) -> Connected {
    let task = tokio::spawn(async move {
        // the request that uses the connection receives its errors
        let _ = connection.await;
    });
    Connected {
        key,
        sender,
        task: ConnectionTask::new(task.abort_handle(), place),
        reused: false,
    }
}
