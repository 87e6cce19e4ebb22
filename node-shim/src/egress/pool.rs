//! Connections to the servers of outbound requests. A connection belongs to one function: its key contains the function, so
//! that no other function can use it. It also contains the authorities that the function trusts, so that a revision without
//! an authority uses no connection that another revision has verified with it. All event loops share the pool. A connection
//! is read and written by the loop that opened it, so requests of that loop prefer it: they do not wait for another thread.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use node_shim_core::egress::{EgressScheme, TargetHost};
use node_shim_core::table::FunctionKey;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::authorities::AuthoritiesId;
use super::upload::RequestStream;

/// Maximum time for which a connection is kept without a request.
const IDLE: Duration = Duration::from_secs(30);
/// Interval at which idle connections are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// Maximum number of idle connections of one key.
const MAX_IDLE_PER_KEY: usize = 8;
/// Maximum number of keys of one function with kept connections.
const MAX_KEYS_PER_FUNCTION: usize = 16;

/// What a connection may be used for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionKey {
    pub(super) function: FunctionKey,
    pub(super) scheme: EgressScheme,
    pub(super) host: TargetHost,
    pub(super) address: SocketAddr,
    /// Authorities that the function trusts in addition to those of the node; `None` also without TLS.
    pub(super) authorities: Option<AuthoritiesId>,
}

/// Sending side of a connection.
pub(super) enum Sender {
    Http1(http1::SendRequest<RequestStream>),
    Http2(http2::SendRequest<RequestStream>),
}

/// The task that reads and writes a connection. It ends when this is dropped.
pub(super) struct ConnectionTask {
    task: AbortHandle,
    /// Thread that runs the task.
    thread: ThreadId,
    /// Place among the connections of the node.
    _place: OwnedSemaphorePermit,
}

/// A connection for one request.
pub(super) struct Connected {
    pub(super) key: ConnectionKey,
    pub(super) sender: Sender,
    pub(super) task: Arc<ConnectionTask>,
    /// Whether the connection has served a request before.
    pub(super) reused: bool,
}

/// Connections that can serve further requests.
#[derive(Default)]
pub(super) struct ConnectionPool {
    state: Mutex<PoolState>,
}

#[derive(Default)]
struct PoolState {
    kept: HashMap<FunctionKey, HashMap<ConnectionKey, Vec<Kept>>>,
    sweeping: bool,
}

struct Kept {
    sender: Sender,
    task: Arc<ConnectionTask>,
    since: Instant,
}

impl ConnectionTask {
    /// `task` runs on the event loop of this thread.
    pub(super) fn new(task: AbortHandle, place: OwnedSemaphorePermit) -> Arc<Self> {
        Arc::new(Self {
            task,
            thread: thread::current().id(),
            _place: place,
        })
    }
}

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

impl Connected {
    /// Waits until the connection accepts a request. Returns false when it has ended or `limit` has passed.
    pub(super) async fn is_ready(&mut self, limit: Duration) -> bool {
        let ready = async {
            match &mut self.sender {
                Sender::Http1(sender) => sender.ready().await,
                Sender::Http2(sender) => sender.ready().await,
            }
        };
        matches!(timeout(limit, ready).await, Ok(Ok(())))
    }
}

impl ConnectionPool {
    /// Returns a kept connection, if possible one of this thread. One of HTTP/2 stays in the pool and serves other requests
    /// at the same time.
    pub(super) fn take(&self, key: &ConnectionKey) -> Option<Connected> {
        let mut state = self.state.lock();
        let connections = state.kept.get_mut(&key.function)?.get_mut(key)?;
        connections.retain(|kept| !kept.sender.is_closed());
        let own = thread::current().id();
        let own = connections.iter().rposition(|kept| kept.task.thread == own);
        let chosen = own.or(connections.len().checked_sub(1))?;
        let (sender, task) = match connections.get_mut(chosen) {
            Some(Kept {
                sender: Sender::Http2(sender),
                task,
                since,
            }) => {
                *since = Instant::now();
                (Sender::Http2(sender.clone()), Arc::clone(task))
            }
            _ => {
                let kept = connections.remove(chosen);
                (kept.sender, kept.task)
            }
        };
        Some(Connected {
            key: key.clone(),
            sender,
            task,
            reused: true,
        })
    }

    /// Keeps a connection that is ready for another request, unless there are enough of them.
    pub(super) fn keep(
        self: &Arc<Self>,
        key: ConnectionKey,
        sender: Sender,
        task: Arc<ConnectionTask>,
    ) {
        if sender.is_closed() {
            return;
        }
        let mut state = self.state.lock();
        let keys = state.kept.entry(key.function.clone()).or_default();
        if !keys.contains_key(&key) && keys.len() >= MAX_KEYS_PER_FUNCTION {
            return;
        }
        let connections = keys.entry(key).or_default();
        if connections.len() >= MAX_IDLE_PER_KEY {
            return;
        }
        connections.push(Kept {
            sender,
            task,
            since: Instant::now(),
        });
        // there is no runtime only at the end of the process
        if !state.sweeping
            && let Ok(runtime) = Handle::try_current()
        {
            state.sweeping = true;
            runtime.spawn(Arc::clone(self).sweep());
        }
    }

    /// Closes all connections that serve no request.
    pub(super) fn close_idle(&self) {
        self.retain(|kept| Arc::strong_count(&kept.task) > 1);
    }

    /// Closes connections that are idle for too long, until none is left.
    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let now = Instant::now();
            self.retain(|kept| {
                let in_use = Arc::strong_count(&kept.task) > 1;
                !kept.sender.is_closed() && (in_use || now.duration_since(kept.since) < IDLE)
            });
            let mut state = self.state.lock();
            if state.kept.is_empty() {
                state.sweeping = false;
                return;
            }
        }
    }

    fn retain(&self, stays: impl Fn(&Kept) -> bool) {
        let mut state = self.state.lock();
        state.kept.retain(|_, keys| {
            keys.retain(|_, connections| {
                connections.retain(&stays);
                !connections.is_empty()
            });
            !keys.is_empty()
        });
    }
}
