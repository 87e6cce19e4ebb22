//! Accept loop: bounds connections, backs off after errors, detects the protocol and shuts every
//! connection down gracefully.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use crate::connection::{self, Connection, ConnectionIo, Socket, StreamExecutor};
use crate::data_plane::{DataPlaneState, DrainPhase, Listeners};
use crate::handler;
use crate::keyed_limit::KeyedLimit;
use crate::node_counters::Protocol;
use crate::tls::{SecureSocket, TlsIdentity, TlsPort};

/// Time that guests without a client get after the data plane has stopped.
const GUEST_GRACE_PERIOD: Duration = Duration::from_secs(1);

/// Maximum number of open streams of an HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// Size of the receive window of a stream in bytes.
const STREAM_WINDOW: u32 = 64 << 10;
/// Maximum number of invalid frames of a connection. Frames of an unread body count too if they are on their way when
/// h2 has forgotten the stream: it remembers the last 50 of a second. That is up to four frames for each of a thousand
/// such uploads at once, while a flood of invalid frames still ends its connection.
const MAX_INVALID_FRAMES: usize = 4_000;

/// Time between two lines of the log about refused connections.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Accepts and serves connections until the data plane has stopped.
pub(crate) async fn run(plane: Arc<DataPlaneState>, listeners: Listeners) {
    let mut phases = plane.watch_phase();
    let alive = plane.node_counters.clone();
    let turning = tokio::spawn(async move { alive.answer_pings().await });
    let preempted = plane.preempted.clone();
    let resuming = tokio::spawn(async move { preempted.run().await });
    let idle = plane.idle.clone();
    let expiring = tokio::spawn(async move { idle.run().await });
    let acceptor = Acceptor::new(plane.clone());
    tokio::select! {
        () = wait_for(&mut phases, DrainPhase::Draining) => {}
        () = acceptor.run(listeners) => {}
    }
    wait_for(&mut phases, DrainPhase::Stopped).await;
    plane.connections.close();
    plane.connections.wait().await;
    plane.guests.close();
    // a guest whose client is gone may still compute; nothing else bounds its end
    let _ = tokio::time::timeout(GUEST_GRACE_PERIOD, plane.guests.wait()).await;
    turning.abort();
    resuming.abort();
    expiring.abort();
}

async fn wait_for(phases: &mut watch::Receiver<DrainPhase>, phase: DrainPhase) {
    // the sender lives as long as the data plane, which the caller holds
    let _ = phases.wait_for(|now| *now >= phase).await;
}

/// Accepts connections on all ports, which share the limits on their number.
struct Acceptor {
    plane: Arc<DataPlaneState>,
    permits: Arc<Semaphore>,
    peers: Arc<KeyedLimit<IpAddr>>,
}

impl Acceptor {
    fn new(plane: Arc<DataPlaneState>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(plane.options.max_connections)),
            peers: KeyedLimit::new(),
            plane,
        }
    }

    async fn run(&self, listeners: Listeners) {
        let Listeners { http, https } = listeners;
        let encrypted = async {
            if let Some((listener, certificates)) = https {
                match TlsPort::new(certificates) {
                    Ok(port) => self.accept(listener, Some(Arc::new(port))).await,
                    Err(error) => tracing::error!(%error, "TLS cannot be used"),
                }
            }
        };
        tokio::join!(self.accept(http, None), encrypted);
    }

    /// Accepts connections. Errors delay the next connection. Returns only when the listener cannot be used.
    async fn accept(&self, listener: std::net::TcpListener, tls: Option<Arc<TlsPort>>) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the listener cannot be used");
                return;
            }
        };
        let plane = &self.plane;
        let mut pause = BACKOFF.0;
        let mut refusals = RefusalLog::default();
        loop {
            // without a permit, new connections wait in the kernel's backlog
            let Ok(permit) = self.permits.clone().acquire_owned().await else {
                return;
            };
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    plane.node_counters.accept_failed();
                    tracing::warn!(%error, pause = ?pause, "accept failed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                    continue;
                }
            };
            pause = BACKOFF.0;
            let peer = canonical(address);
            let peer_connection = if plane.options.trusts(peer) {
                None
            } else {
                let limit = plane.options.max_per_peer;
                let place = self.peers.try_acquire(network_of(peer), limit);
                if place.is_none() {
                    plane.node_counters.connection_refused();
                    refusals.log(peer, limit);
                    continue;
                }
                place
            };
            let (shared, tls) = (plane.clone(), tls.clone());
            plane.connections.spawn(async move {
                if let Some((socket, protocol)) = open(&shared, stream, tls).await {
                    serve(shared, socket, peer, protocol).await;
                }
                drop((permit, peer_connection));
            });
        }
    }
}

/// Log of refused connections, at most one line a minute: a proxy that is not known as one opens many.
#[derive(Default)]
struct RefusalLog(Option<Instant>);

impl RefusalLog {
    fn log(&mut self, peer: IpAddr, limit: u32) {
        let now = Instant::now();
        if self.0.is_some_and(|last| now - last < REFUSAL_LOG_INTERVAL) {
            return;
        }
        self.0 = Some(now);
        tracing::warn!(
            %peer,
            "connections are refused: {limit} connections of one address are open, which is the limit; if it is a proxy, \
             add it to nodeShim.trustedProxies, which have no limit"
        );
    }
}

/// Returns the peer's address, with IPv4-mapped addresses as IPv4.
fn canonical(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// Returns the address under which the connections of a peer are counted. With IPv6, that is the address of its
/// network of 64 bits, because one client can use all addresses of such a network.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

/// Result of the TLS handshake and whether the client chose HTTP/2; `None` without TLS.
type Negotiated = Option<(TlsIdentity, bool)>;

/// Prepares a new connection, with TLS if the port has it. Returns `None` when the handshake fails.
async fn open(
    plane: &DataPlaneState,
    stream: TcpStream,
    tls: Option<Arc<TlsPort>>,
) -> Option<(Socket, Negotiated)> {
    // small responses must not wait for acknowledgements; without the option they are only slower
    let _ = stream.set_nodelay(true);
    let Some(port) = tls else {
        return Some((Socket::plain(stream), None));
    };
    let mut phases = plane.watch_phase();
    let shaken = tokio::select! {
        () = wait_for(&mut phases, DrainPhase::Draining) => return None,
        shaken = port.handshake(stream) => shaken,
    };
    match shaken {
        Ok(SecureSocket {
            socket,
            identity,
            http2,
        }) => Some((socket, Some((identity, http2)))),
        Err(error) => {
            plane.node_counters.handshake_failed();
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
    }
}

/// Serves one connection until it is closed.
async fn serve(plane: Arc<DataPlaneState>, socket: Socket, peer: IpAddr, negotiated: Negotiated) {
    let socket = Arc::new(socket);
    let (identity, chosen) = negotiated.unzip();
    let conn = Connection::new(peer, plane.options.connections, identity);
    let mut io = ConnectionIo::new(socket.clone(), conn.clone());
    let mut phases = plane.watch_phase();
    let proto = match chosen {
        Some(http2) => {
            io.set_http2(http2);
            protocol(http2)
        }
        None => tokio::select! {
            () = wait_for(&mut phases, DrainPhase::Draining) => return,
            sniffed = io.detect_http2() => match sniffed {
                Ok(http2) => protocol(http2),
                Err(_) => return,
            },
        },
    };
    let _open = plane.node_counters.opened(proto);
    let service = service_fn(|request| handler::handle(plane.clone(), conn.clone(), request));
    let ended = match proto {
        Protocol::Http1 => {
            let connection = http1().serve_connection(TokioIo::new(io), service);
            serve_until_closed(&plane, &conn, &socket, proto, connection).await
        }
        Protocol::Http2 => {
            let connection = http2().serve_connection(TokioIo::new(io), service);
            serve_until_closed(&plane, &conn, &socket, proto, connection).await
        }
    };
    if let Some(result) = ended {
        tokio::select! {
            () = wait_for(&mut phases, DrainPhase::Stopped) => {}
            () = close(&plane, &conn, &socket, &result) => {}
        }
    }
}

fn protocol(http2: bool) -> Protocol {
    if http2 {
        Protocol::Http2
    } else {
        Protocol::Http1
    }
}

/// Closes the connection after hyper has ended it.
async fn close(
    plane: &DataPlaneState,
    conn: &Connection,
    socket: &Socket,
    result: &hyper::Result<()>,
) {
    let unparsable = result.as_ref().is_err_and(hyper::Error::is_parse);
    if let Some(rejection) = connection::send_held(socket, conn, unparsable).await {
        plane.node_counters.rejected(rejection);
    }
    connection::close(socket, conn).await;
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // `ConnectionIo` has its own timeouts
        .header_read_timeout(None)
        .half_close(true)
        .max_headers(100)
        .max_header_size(32 << 10)
        .max_buf_size(64 << 10);
    builder
}

fn http2() -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        // unread bodies of some streams never block the others; the permits of requests bound their number
        .initial_connection_window_size(MAX_STREAMS * STREAM_WINDOW)
        .max_frame_size(16 << 10)
        .max_header_list_size(32 << 10)
        .max_send_buf_size(64 << 10)
        // a client may cancel everything at once
        .max_pending_accept_reset_streams(MAX_STREAMS as usize)
        .max_local_error_reset_streams(MAX_INVALID_FRAMES)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// A connection of either protocol that can be shut down gracefully.
trait Graceful: Future {
    fn graceful(self: std::pin::Pin<&mut Self>);
}

impl<S, B> Graceful for http1::Connection<TokioIo<ConnectionIo>, S>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn graceful(self: std::pin::Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S, B> Graceful for http2::Connection<TokioIo<ConnectionIo>, S, StreamExecutor>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    StreamExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn graceful(self: std::pin::Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Polls a connection until hyper ends it and starts its graceful shutdown when it is idle, old or used up or
/// the data plane drains. Returns `None` when the connection is cut instead.
async fn serve_until_closed<C: Graceful<Output = hyper::Result<()>>>(
    plane: &DataPlaneState,
    conn: &Connection,
    socket: &Socket,
    proto: Protocol,
    connection: C,
) -> Option<hyper::Result<()>> {
    let limits = &plane.options.connections;
    let mut connection = pin!(connection);
    let mut reset = pin!(connection::wait_for_reset(socket));
    let mut phases = plane.watch_phase();
    let mut shutdown = plane.watch_phase();
    let opened = Instant::now();
    // spread by ±20 %, so that connections opened together do not all reconnect together
    let old = opened + limits.max_age.mul_f64(0.8 + 0.4 * fastrand::f64());
    // HTTP/2 clients get an early GOAWAY; HTTP/1 clients get `connection: close` with their next response
    let shutdown_phase = match proto {
        Protocol::Http1 => DrainPhase::Draining,
        Protocol::Http2 => DrainPhase::Announcing,
    };
    let mut check = opened + limits.idle;
    let mut leaving = false;
    loop {
        let served = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            if polled.is_pending() && conn.release_held() {
                cx.waker().wake_by_ref();
            }
            polled
        });
        tokio::select! {
            result = served => return Some(result),
            () = wait_for(&mut phases, DrainPhase::Stopped) => return None,
            // hyper does not read while a guest runs, so it does not notice
            () = &mut reset => return None,
            () = wait_for(&mut shutdown, shutdown_phase), if !leaving => {}
            () = sleep_until(old.min(check)), if !leaving => {
                let idle = conn.idle_since();
                let used_up = conn.requests_started() >= limits.max_requests;
                let idle_end = idle.map(|since| since + limits.idle);
                let idle_over = proto == Protocol::Http2 && idle_end.is_some_and(|end| end <= Instant::now());
                if Instant::now() < old && !used_up && !idle_over {
                    let next = Instant::now() + limits.idle.min(Duration::from_secs(15));
                    check = idle_end.filter(|end| *end > Instant::now()).unwrap_or(next).min(next);
                    continue;
                }
            }
        }
        leaving = true;
        connection.as_mut().graceful();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_peers_are_counted_by_their_network() {
        for (peer, counted) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"),
            ("2001:db8:1:3::", "2001:db8:1:3::"),
            ("::1", "::"),
        ] {
            let peer = canonical(SocketAddr::new(peer.parse().unwrap(), 1));
            assert_eq!(network_of(peer), counted.parse::<IpAddr>().unwrap());
        }
    }
}
