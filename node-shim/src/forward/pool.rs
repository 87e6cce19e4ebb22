//! Connections to other nodes. Each event loop has its own, so that a request does not wait for another thread.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::upload::RequestReader;

/// Maximum number of requests on a connection: the number of streams that nodes allow.
const MAX_STREAMS: usize = 100;
/// Maximum number of connections of an event loop to a node.
const MAX_CONNECTIONS: usize = 8;
/// Maximum time to connect. Nodes are in one cluster.
const CONNECT: Duration = Duration::from_secs(1);
/// Time for which a node that could not be reached is tried last.
const SUSPECT: Duration = Duration::from_secs(5);
/// Interval of pings on a connection with requests, and the time in which they are answered.
const PING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));
/// Windows of HTTP/2 in bytes: a client that reads nothing pins one window for each of its requests.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = MAX_STREAMS as u32 * STREAM_WINDOW;
const SEND_BUFFER: usize = 64 << 10;
/// Maximum size of the head of a response in bytes.
const MAX_HEAD: u32 = 64 << 10;

type Sender = http2::SendRequest<RequestReader>;

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoConnection {
    /// The node could not be reached.
    Unreachable,
    /// All connections to the node have as many requests as they can.
    Full,
}

/// The connections to all nodes.
#[derive(Default)]
pub(crate) struct Pool {
    targets: Mutex<HashMap<(ThreadId, SocketAddr), Arc<Target>>>,
    /// Nodes that could not be reached, and when.
    suspects: Mutex<HashMap<SocketAddr, Instant>>,
}

/// A node, as one event loop sees it.
#[derive(Default)]
struct Target {
    connections: Mutex<Vec<Arc<PeerConnection>>>,
    /// Held while connecting, so that requests that arrive meanwhile share the connection.
    connecting: tokio::sync::Mutex<()>,
}

struct PeerConnection {
    sender: Sender,
    task: AbortHandle,
    streams: AtomicUsize,
}

/// A place for a request on a connection, held until the response has ended.
pub(crate) struct StreamPlace(Arc<PeerConnection>);

impl Pool {
    /// Returns a place on a connection to the node.
    pub(crate) async fn connection(
        &self,
        address: SocketAddr,
    ) -> Result<StreamPlace, NoConnection> {
        let key = (thread::current().id(), address);
        let target = Arc::clone(self.targets.lock().entry(key).or_default());
        if let Some(place) = target.place() {
            return Ok(place);
        }
        let _connecting = target.connecting.lock().await;
        if let Some(place) = target.place() {
            return Ok(place);
        }
        if target.connections.lock().len() >= MAX_CONNECTIONS {
            return Err(NoConnection::Full);
        }
        self.forget_closed(&key);
        let connected = timeout(CONNECT, connect(address)).await;
        match connected {
            Ok(Ok(connection)) => {
                self.suspects.lock().remove(&address);
                let connection = Arc::new(connection);
                let place = StreamPlace::new(&connection);
                target.connections.lock().push(connection);
                Ok(place)
            }
            failed => {
                if let Ok(Err(error)) = failed {
                    tracing::debug!(%address, %error, "another node cannot be reached");
                }
                self.suspects.lock().insert(address, Instant::now());
                Err(NoConnection::Unreachable)
            }
        }
    }

    /// Whether the node could not be reached a moment ago.
    pub(crate) fn is_suspect(&self, address: SocketAddr) -> bool {
        let mut suspects = self.suspects.lock();
        if suspects.is_empty() {
            return false;
        }
        let now = Instant::now();
        suspects.retain(|_, since| now.duration_since(*since) < SUSPECT);
        suspects.contains_key(&address)
    }

    /// Forgets nodes without open connections, for example those whose pod was replaced.
    fn forget_closed(&self, but: &(ThreadId, SocketAddr)) {
        self.targets.lock().retain(|key, target| {
            key == but || Arc::strong_count(target) > 1 || !target.open().is_empty()
        });
    }
}

impl Target {
    /// Returns the open connections, and forgets the others.
    fn open(&self) -> parking_lot::MutexGuard<'_, Vec<Arc<PeerConnection>>> {
        let mut connections = self.connections.lock();
        connections.retain(|connection| !connection.sender.is_closed());
        connections
    }

    fn place(&self) -> Option<StreamPlace> {
        let connections = self.open();
        let mut free = connections
            .iter()
            .filter(|one| one.streams.load(Ordering::Relaxed) < MAX_STREAMS);
        // the first ones are preferred, so that the others become idle and are closed
        free.next().map(StreamPlace::new)
    }
}

impl StreamPlace {
    fn new(connection: &Arc<PeerConnection>) -> Self {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connection))
    }

    /// Returns the sending side of the connection.
    pub(crate) fn sender(&self) -> Sender {
        self.0.sender.clone()
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for PeerConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<PeerConnection> {
    let stream = TcpStream::connect(address).await?;
    // small requests must not wait for acknowledgements
    let _ = stream.set_nodelay(true);
    let (interval, limit) = PING;
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(interval)
        .keep_alive_timeout(limit)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEAD)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(std::io::Error::other)?;
    let task = tokio::spawn(async move {
        // the requests on the connection receive its errors
        let _ = connection.await;
    });
    Ok(PeerConnection {
        sender,
        task: task.abort_handle(),
        streams: AtomicUsize::new(0),
    })
}
