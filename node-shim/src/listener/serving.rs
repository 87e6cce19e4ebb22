//! Serves one connection: performs the TLS handshake, detects the protocol, and shuts the connection down gracefully.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::connection::{self, Connection, ConnectionIo, Socket, StreamExecutor};
use crate::data_plane::{DataPlanePhase, DataPlaneState, EventLoop, wait_for_phase};
use crate::handler;
use crate::node_counters::Protocol;
use crate::tls::{SecureSocket, TlsIdentity, TlsPort};

/// Maximum number of open streams of an HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// Size of the receive window of a stream in bytes.
const STREAM_WINDOW: u32 = 64 << 10;
/// Maximum number of invalid frames of a connection. Frames of an unread body count too if they are on their way when
/// h2 has forgotten the stream: it remembers the last 50 of a second. That is up to four frames for each of a thousand
/// such uploads at once, while a flood of invalid frames still ends its connection.
const MAX_INVALID_FRAMES: usize = 4_000;

/// Serves a connection until it is closed.
pub(super) async fn serve(
    event_loop: &Arc<EventLoop>,
    stream: TcpStream,
    tls: Option<Arc<TlsPort>>,
    peer: IpAddr,
) {
    if let Some((socket, negotiated)) = open(&event_loop.plane, stream, tls).await {
        serve_http(event_loop, socket, peer, negotiated).await;
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
        () = wait_for_phase(&mut phases, DataPlanePhase::Draining) => return None,
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

async fn serve_http(
    event_loop: &Arc<EventLoop>,
    socket: Socket,
    peer: IpAddr,
    negotiated: Negotiated,
) {
    let plane = &*event_loop.plane;
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
            () = wait_for_phase(&mut phases, DataPlanePhase::Draining) => return,
            sniffed = io.detect_http2() => match sniffed {
                Ok(http2) => protocol(http2),
                Err(_) => return,
            },
        },
    };
    let _open = plane.node_counters.opened(proto);
    let service = service_fn(|request| handler::handle(event_loop.clone(), conn.clone(), request));
    let ended = match proto {
        Protocol::Http1 => {
            let connection = http1().serve_connection(TokioIo::new(io), service);
            serve_until_closed(plane, &conn, &socket, proto, connection).await
        }
        Protocol::Http2 => {
            let connection = http2().serve_connection(TokioIo::new(io), service);
            serve_until_closed(plane, &conn, &socket, proto, connection).await
        }
    };
    if let Some(result) = ended {
        tokio::select! {
            () = wait_for_phase(&mut phases, DataPlanePhase::Stopped) => {}
            () = close(plane, &conn, &socket, &result) => {}
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

/// Polls a connection until hyper ends it and starts its graceful shutdown when the data plane drains, and that of HTTP/2 also when
/// it is idle, old or used up. One of HTTP/1 ends with its next response when it is old. Returns `None` when the connection is cut instead.
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
        Protocol::Http1 => DataPlanePhase::Draining,
        Protocol::Http2 => DataPlanePhase::Announcing,
    };
    let mut check = opened + limits.idle;
    let (mut retired, mut leaving) = (false, false);
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
            () = wait_for_phase(&mut phases, DataPlanePhase::Stopped) => return None,
            // hyper does not read while a guest runs, so it does not notice
            () = &mut reset => return None,
            () = wait_for_phase(&mut shutdown, shutdown_phase), if !leaving => {}
            () = sleep_until(old.min(check)), if !leaving && !retired => {
                let idle = conn.idle_since();
                let used_up = conn.requests_started() >= limits.max_requests;
                let idle_end = idle.map(|since| since + limits.idle);
                let idle_over = proto == Protocol::Http2 && idle_end.is_some_and(|end| end <= Instant::now());
                if Instant::now() < old && !used_up && !idle_over {
                    let next = Instant::now() + limits.idle.min(Duration::from_secs(15));
                    check = idle_end.filter(|end| *end > Instant::now()).unwrap_or(next).min(next);
                    continue;
                }
                if proto == Protocol::Http1 {
                    // closing it while it is idle would lose a request that is on its way
                    conn.retire();
                    retired = true;
                    continue;
                }
            }
        }
        leaving = true;
        connection.as_mut().graceful();
    }
}
