//! The connection of one store, which all requests share. An operation that finds none waits for an attempt to connect;
//! after a failed attempt, operations fail at once until the next one is due.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use node_shim_core::key_value::{BucketId, KeyValueError, Reconnect};
use parking_lot::Mutex;
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::connect::{Connected, Places, RedisNetwork};
use super::failure;
use super::flow::Flow;
use super::target::RedisTarget;

/// Size in MiB of the values that the operations of one store may have in flight.
const IN_FLIGHT: u32 = 32;
const MIB: usize = 1 << 20;
/// Size in bytes of a reply beside its values: lengths, statuses, and the replies of a script that is sent first.
const OVERHEAD: usize = 64 << 10;

type Attempt = Shared<BoxFuture<'static, Result<Arc<Live>, KeyValueError>>>;

/// Connects to the server of one store.
pub(super) struct Connector {
    bucket: BucketId,
    target: Arc<RedisTarget>,
    network: Arc<RedisNetwork>,
    started: Instant,
    state: Mutex<State>,
    in_flight: Arc<Semaphore>,
}

struct State {
    link: Link,
    reconnect: Reconnect,
    /// Error of the last attempt.
    error: KeyValueError,
}

enum Link {
    None,
    Connecting(Attempt),
    Live(Arc<Live>),
}

/// An established connection. It is closed when this is dropped.
pub(super) struct Live {
    connection: MultiplexedConnection,
    flow: Arc<Flow>,
    task: AbortHandle,
    _places: Places,
}

/// An operation that is in progress.
pub(super) struct Exchange {
    pub(super) connection: MultiplexedConnection,
    live: Arc<Live>,
    _size: OwnedSemaphorePermit,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Exchange {
    /// Ends the operation.
    pub(super) fn end<T>(self, result: RedisResult<T>) -> Result<T, KeyValueError> {
        result.map_err(|error| failure::of_connection(&error, &self.live.flow))
    }
}

impl Connector {
    pub(super) fn new(
        bucket: BucketId,
        target: Arc<RedisTarget>,
        network: Arc<RedisNetwork>,
    ) -> Arc<Self> {
        Arc::new(Self {
            bucket,
            target,
            network,
            started: Instant::now(),
            state: Mutex::new(State {
                link: Link::None,
                reconnect: Reconnect::default(),
                error: failure::LOST,
            }),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT as usize)),
        })
    }

    /// Starts an operation whose values have at most `size` bytes together, in either direction.
    pub(super) async fn begin(self: &Arc<Self>, size: usize) -> Result<Exchange, KeyValueError> {
        let places = u32::try_from(size.div_ceil(MIB)).unwrap_or(IN_FLIGHT);
        let places = places.clamp(1, IN_FLIGHT);
        let held = Arc::clone(&self.in_flight).acquire_many_owned(places).await;
        let held = held.map_err(|_| failure::LOST)?;
        let live = match self.link()? {
            Ok(live) => live,
            Err(attempt) => attempt.await?,
        };
        live.flow.expect((size + OVERHEAD) as u64);
        Ok(Exchange {
            connection: live.connection.clone(),
            live,
            _size: held,
        })
    }

    /// Returns the connection, or the attempt to establish one.
    fn link(self: &Arc<Self>) -> Result<Result<Arc<Live>, Attempt>, KeyValueError> {
        let mut state = self.state.lock();
        match &state.link {
            Link::Live(live) if live.flow.is_usable() => return Ok(Ok(live.clone())),
            // an attempt that ended without a result was interrupted
            Link::Connecting(attempt) if attempt.peek().is_none() => {
                return Ok(Err(attempt.clone()));
            }
            Link::Live(_) | Link::Connecting(_) | Link::None => {}
        }
        if !state.reconnect.is_due(self.now()) {
            return Err(state.error);
        }
        // in a task of its own, because the request that starts the attempt may end before it
        let attempt = tokio::spawn(Arc::clone(self).attempt());
        let attempt = attempt.map(|ended| ended.unwrap_or(Err(failure::LOST)));
        let attempt = attempt.boxed().shared();
        state.link = Link::Connecting(attempt.clone());
        Ok(Err(attempt))
    }

    async fn attempt(self: Arc<Self>) -> Result<Arc<Live>, KeyValueError> {
        let result = self.establish().await;
        let mut state = self.state.lock();
        match &result {
            Ok(live) => {
                if state.reconnect.connected() {
                    let BucketId { namespace, label } = &self.bucket;
                    tracing::info!(%namespace, %label, "a key-value store in Redis can be used again");
                }
                state.link = Link::Live(live.clone());
            }
            Err(error) => {
                if state.reconnect.failed(self.now(), fastrand::f64()) {
                    let BucketId { namespace, label } = &self.bucket;
                    tracing::warn!(%namespace, %label, %error, "a key-value store in Redis cannot be used");
                }
                state.error = *error;
                state.link = Link::None;
            }
        }
        result
    }

    async fn establish(self: &Arc<Self>) -> Result<Arc<Live>, KeyValueError> {
        let url = self.target.url().ok_or(failure::LOST)?;
        let (namespace, authorities) = (&self.bucket.namespace, self.target.authorities());
        let connected = self.network.connect(namespace, &url, authorities).await?;
        let Connected {
            connection,
            driver,
            flow,
            places,
        } = connected;
        let connector = Arc::downgrade(self);
        let task = tokio::spawn({
            let flow = flow.clone();
            async move {
                tokio::select! {
                    () = driver => {}
                    () = flow.idle() => {}
                }
                flow.end();
                Self::forget(&connector, &flow);
            }
        });
        Ok(Arc::new(Live {
            connection,
            flow,
            task: task.abort_handle(),
            _places: places,
        }))
    }

    /// Drops a connection that has ended.
    fn forget(connector: &Weak<Self>, flow: &Arc<Flow>) {
        let Some(connector) = connector.upgrade() else {
            return;
        };
        let mut state = connector.state.lock();
        if matches!(&state.link, Link::Live(live) if Arc::ptr_eq(&live.flow, flow)) {
            state.link = Link::None;
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}
