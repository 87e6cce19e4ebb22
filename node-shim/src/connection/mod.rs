//! Connections of clients: state that their requests share, the socket with its timeouts, and the way in
//! which they are closed.

mod closing;
mod io;
mod parser_response;
mod socket;
mod stream;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use node_shim_core::host::Host;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::routing_table::RoutingTable;
use crate::tls::TlsIdentity;

pub(crate) use closing::{close, send_held, wait_for_reset};
pub(crate) use io::ConnectionIo;
pub(crate) use socket::Socket;
pub(crate) use stream::{StreamExecutor, StreamReset};

/// Timeouts and limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Maximum time without a request. Default: 75 s, more than the 60 s after which load balancers close a connection that they do not
    /// need, so that they never send a request on one that is being closed.
    pub idle: Duration,
    /// Maximum time from the first byte of a request head to its last. Default: 10 s.
    pub head_read: Duration,
    /// Maximum time that a client may accept no data. Default: 15 s.
    pub write_stall: Duration,
    /// Number of requests after which the connection is closed gracefully. Default: 10,000.
    pub max_requests: u32,
    /// Age after which the connection is closed gracefully, varied by ±20 %. Default: 10 min.
    pub max_age: Duration,
    /// Maximum time for which unread data is received and discarded, so that a client that is still sending
    /// receives its response. Default: 30 s.
    pub linger: Duration,
    /// Maximum time without such data. Default: 5 s.
    pub linger_idle: Duration,
    /// Maximum size of such data in bytes. Default: 64 MiB.
    pub linger_bytes: u64,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(75),
            head_read: Duration::from_secs(10),
            write_stall: Duration::from_secs(15),
            max_requests: 10_000,
            max_age: Duration::from_secs(600),
            linger: Duration::from_secs(30),
            linger_idle: Duration::from_secs(5),
            linger_bytes: 64 << 20,
        }
    }
}

/// State shared by the socket, the connection task and all requests of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: IpAddr,
    pub(crate) limits: ConnectionLimits,
    /// Result of the TLS handshake; `None` without TLS.
    tls: Option<TlsIdentity>,
    active: AtomicU32,
    /// Number of requests started so far.
    requests_started: AtomicU32,
    /// Whether the connection, which is one of HTTP/1, ends with its next response.
    retired: AtomicBool,
    /// End of the last request in milliseconds after `opened`.
    ended: AtomicU64,
    opened: Instant,
    /// Whether to close the connection by a reset, so that a body that ends with the connection does not
    /// look complete.
    pub(crate) reset: Arc<AtomicBool>,
    /// Whether the current request line contains a `#`, which hyper drops silently.
    fragment: AtomicBool,
    /// Whether the client may be sending a body that stays unread.
    unread: AtomicBool,
    /// Whether reading from or writing to the socket has failed.
    failed: AtomicBool,
    /// Response that hyper itself may have produced; see `parser_response`.
    held: Mutex<Vec<u8>>,
    hold: AtomicU8,
}

/// State of a response that hyper itself may have produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    None,
    /// The response is not sent yet.
    Held,
    /// The response is an ordinary one and has to be sent.
    Released,
}

/// Marks a request, or the rest of one, as in progress until dropped.
pub(crate) struct RequestGuard(Arc<Connection>);

impl Connection {
    pub(crate) fn new(
        peer: IpAddr,
        limits: ConnectionLimits,
        tls: Option<TlsIdentity>,
    ) -> Arc<Self> {
        Arc::new(Self {
            peer,
            limits,
            tls,
            active: AtomicU32::new(0),
            requests_started: AtomicU32::new(0),
            retired: AtomicBool::new(false),
            ended: AtomicU64::new(0),
            opened: Instant::now(),
            reset: Arc::default(),
            fragment: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            held: Mutex::default(),
            hold: AtomicU8::new(Hold::None as u8),
        })
    }

    /// Returns whether the connection uses TLS.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns whether a request for `host` may use the connection, with the hosts of functions in `table`.
    pub(crate) fn allows_host(&self, table: &RoutingTable, host: &Host) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.allows(table, host))
    }

    /// Lets the connection end with its next response.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_request(self: &Arc<Self>) -> RequestGuard {
        self.requests_started.fetch_add(1, Ordering::Relaxed);
        self.begin_rest()
    }

    /// Returns a guard for a part of the current request that outlives its response.
    pub(crate) fn begin_rest(self: &Arc<Self>) -> RequestGuard {
        self.active.fetch_add(1, Ordering::Relaxed);
        RequestGuard(self.clone())
    }

    pub(crate) fn requests_started(&self) -> u32 {
        self.requests_started.load(Ordering::Relaxed)
    }

    /// Returns whether the target of the current request contained a `#`, and clears the flag.
    pub(crate) fn take_fragment(&self) -> bool {
        self.fragment.load(Ordering::Relaxed) && self.fragment.swap(false, Ordering::Relaxed)
    }

    /// Records that the rest of a request stays unread, so that the client gets time to receive its response
    /// before the connection is closed.
    pub(crate) fn set_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    fn set_hold(&self, hold: Hold) {
        self.hold.store(hold as u8, Ordering::Relaxed);
    }

    fn is_in_hold(&self, hold: Hold) -> bool {
        self.hold.load(Ordering::Relaxed) == hold as u8
    }

    /// Lets the socket send a response that is held back, and returns whether there is one.
    pub(crate) fn release_held(&self) -> bool {
        let held = self.is_in_hold(Hold::Held);
        if held {
            self.set_hold(Hold::Released);
        }
        held
    }

    /// Returns since when the connection is idle; `None` while a request is in progress.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let ended = Duration::from_millis(self.ended.load(Ordering::Relaxed));
        (self.active.load(Ordering::Relaxed) == 0).then(|| self.opened + ended)
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let ended = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended.store(ended, Ordering::Relaxed);
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
