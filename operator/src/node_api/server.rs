//! The server of the node API: accepts, authenticates, and connects tables and fleet over streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::authenticate::Authenticator;
use super::blobs::Blobs;
use super::calls::{Calls, ConcurrencyLimit, StreamRateLimit};
use super::fleet::Fleet;
use super::identity::Reviewer;
use super::leader::Leader;
use super::listen;
use super::metrics::Meter;
use super::relay_client::Follower;
use super::service::NodeApiService;
use super::settings::Settings;
use super::tables::Tables;
use super::tls;

/// Connections in addition to those with a stream: relays, blobs, and nodes that are just reconnecting.
const SPARE_CONNECTIONS: usize = 512;
const STREAMS_PER_CONNECTION: u32 = 16;
const BLOBS_PER_NODE: usize = 2;
/// Bytes of a stream that may arrive before they are read.
const WINDOW: u32 = 256 * 1024;
const MAX_HEADERS: u32 = 32 * 1024;
const SWEEP: Duration = Duration::from_secs(1);
const FAREWELL: Duration = Duration::from_secs(5);

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The server cannot listen on the address.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Configured listen address.
        address: SocketAddr,
        /// Error of the operating system.
        error: std::io::Error,
    },
    /// The TLS library refuses its settings.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The transport failed.
    #[error("node API: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Everything with which one replica serves nodes.
pub struct Server {
    /// Limits and addresses.
    pub settings: Settings,
    /// Desired state of the nodes.
    pub tables: Tables,
    /// State that the nodes report.
    pub fleet: Fleet,
    /// Certificates of the node API.
    pub tls: tls::Store,
    /// Reviews tokens.
    pub reviewer: Arc<dyn Reviewer>,
    /// Source of component bytes.
    pub blobs: Arc<dyn Blobs>,
    /// The current leader; `None` while none is known.
    pub leader: watch::Receiver<Option<Leader>>,
    /// Metrics of the node API.
    pub meter: Meter,
}

impl Server {
    /// Binds the address; no connection is accepted before [`Bound::serve`].
    ///
    /// # Errors
    /// The address is in use, or the TLS settings are unusable.
    pub async fn bind(self) -> Result<Bound, ServerError> {
        let address = self.settings.listen;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| ServerError::Listen { address, error })?;
        let acceptor = TlsAcceptor::from(Arc::new(self.tls.server_config()?));
        Ok(Bound {
            server: self,
            listener,
            acceptor,
        })
    }

    /// Serves until `stop`; a follower also relays to the leader.
    ///
    /// # Errors
    /// The address is in use, or the TLS settings are unusable.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServerError> {
        self.bind().await?.serve(stop).await
    }
}

/// A server that has bound its address.
pub struct Bound {
    server: Server,
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Bound {
    /// Returns the local address.
    ///
    /// # Errors
    /// The operating system does not report the address.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`: streams end with a Goodbye, and connections that are still open after five seconds are
    /// closed.
    ///
    /// # Errors
    /// The transport failed.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), ServerError> {
        let Self {
            server,
            listener,
            acceptor,
        } = self;
        let settings = server.settings.clone();
        let sweeper = tokio::spawn(sweep(server.fleet.clone(), stop.clone()));
        let relay = server
            .follower()
            .map(|follower| tokio::spawn(follower.run(stop.clone())));
        let connections = settings.max_streams.saturating_add(SPARE_CONNECTIONS);
        let handshakes = settings.handshakes;
        let incoming = listen::accept(listener, acceptor, connections, handshakes, stop.clone());
        let calls = Arc::new(server.into_calls(stop.clone()));
        let transport = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(settings.keepalive))
            .http2_keepalive_timeout(Some(settings.keepalive))
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .http2_max_header_list_size(MAX_HEADERS)
            .add_service(NodeApiService::new(calls, settings.frame_bytes))
            .serve_with_incoming_shutdown(
                ReceiverStream::new(incoming),
                stop.clone().cancelled_owned(),
            );
        let ended = tokio::select! {
            ended = transport => ended.map_err(Into::into),
            () = async { stop.cancelled().await; tokio::time::sleep(FAREWELL).await } => Ok(()),
        };
        sweeper.abort();
        if let Some(relay) = relay {
            relay.abort();
        }
        ended
    }
}

impl Server {
    fn follower(&self) -> Option<Follower> {
        Some(Follower {
            token: self.settings.operator_token.clone()?,
            settings: self.settings.clone(),
            tables: self.tables.clone(),
            fleet: self.fleet.clone(),
            tls: self.tls.clone(),
            leader: self.leader.clone(),
            meter: self.meter.clone(),
        })
    }

    fn into_calls(self, stop: CancellationToken) -> Calls {
        let settings = self.settings;
        let per_second = settings.new_streams_per_second;
        Calls {
            authenticator: Authenticator::new(self.reviewer, &settings, self.meter.clone()),
            openings: StreamRateLimit::new(per_second, Instant::now()),
            streams: ConcurrencyLimit::new(settings.streams_per_identity, settings.max_streams),
            blob_calls: ConcurrencyLimit::new(BLOBS_PER_NODE, settings.blobs),
            tables: self.tables,
            fleet: self.fleet,
            tls: self.tls,
            blobs: self.blobs,
            leader: self.leader,
            meter: self.meter,
            settings,
            stop,
        }
    }
}

/// Detects nodes that became silent.
async fn sweep(fleet: Fleet, stop: CancellationToken) {
    let mut last = Instant::now();
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            now = ticks.tick() => {
                fleet.sweep(last, now);
                last = now;
            }
        }
    }
}
