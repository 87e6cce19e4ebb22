//! Body of the response to an outbound request on its way to the function.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime_wasi_http::Error;

use super::admission::Places;
use super::pool::{Connected, ConnectionPool, Sender};
use super::upload::Upload;

/// What a response holds until it ends: its connection and its places among the requests in flight. Dropping it closes
/// the connection, or resets the stream of HTTP/2.
pub(super) struct Lease {
    /// `None` for a call.
    connection: Option<LeasedConnection>,
    _places: Places,
}

struct LeasedConnection {
    connected: Connected,
    pool: Arc<ConnectionPool>,
    upload: Arc<Upload>,
}

impl Lease {
    pub(super) fn of_connection(
        connected: Connected,
        pool: Arc<ConnectionPool>,
        upload: Arc<Upload>,
        places: Places,
    ) -> Self {
        Self {
            connection: Some(LeasedConnection {
                connected,
                pool,
                upload,
            }),
            _places: places,
        }
    }

    pub(super) const fn of_call(places: Places) -> Self {
        Self {
            connection: None,
            _places: places,
        }
    }

    /// Ends the exchange: keeps the connection if both messages are complete.
    fn finish(self) {
        let Some(LeasedConnection {
            connected,
            pool,
            upload,
        }) = self.connection
        else {
            return;
        };
        let Connected {
            key, sender, task, ..
        } = connected;
        // one of HTTP/2 is in the pool already
        if matches!(sender, Sender::Http1(_)) && upload.is_complete() {
            pool.keep(key, sender, task);
        }
    }
}

/// Body of a response.
pub(super) struct ResponseStream<B> {
    /// `None` after the end of the body, so that a called function does not depend on how long its caller keeps it.
    inner: Option<B>,
    /// `None` after the end of the body.
    lease: Option<Lease>,
    /// Maximum time between two parts of the body while the function waits for the next one.
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> ResponseStream<B> {
    pub(super) fn new(inner: B, lease: Lease, idle: Duration) -> Self {
        let mut stream = Self {
            inner: Some(inner),
            lease: Some(lease),
            idle,
            timer: None,
            waiting: false,
        };
        if stream.is_end_stream() {
            stream.finish();
        }
        stream
    }

    fn finish(&mut self) {
        self.inner = None;
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }

    fn fail(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.inner = None;
        self.lease = None;
        Poll::Ready(Some(Err(error)))
    }

    /// Polls the timer of the current wait.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + self.idle)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + self.idle);
        }
        timer.as_mut().poll(cx)
    }
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for ResponseStream<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.waiting = false;
                // the guest may read nothing after the trailers
                if frame.is_trailers() || this.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => this.fail(error),
            Poll::Pending => match this.poll_idle(cx) {
                Poll::Ready(()) => this.fail(Error::ConnectionReadTimeout),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.as_ref();
        inner.map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}
