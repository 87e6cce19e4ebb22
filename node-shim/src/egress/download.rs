//! Body of the response to an outbound request on its way to the function.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime_wasi_http::Error;

use super::admission::Places;
use super::failure::body_error;
use super::pool::{Connected, ConnectionPool, Sender};
use super::upload::Upload;

/// What a response holds until it ends: its connection and its places among the requests in flight. Dropping it closes
/// the connection, or resets the stream of HTTP/2.
pub(super) struct Lease {
    pub(super) connected: Connected,
    pub(super) pool: Arc<ConnectionPool>,
    pub(super) upload: Arc<Upload>,
    pub(super) _places: Places,
}

impl Lease {
    /// Ends the exchange: keeps the connection if both messages are complete.
    fn finish(self) {
        let Connected {
            key, sender, task, ..
        } = self.connected;
        // one of HTTP/2 is in the pool already
        if matches!(sender, Sender::Http1(_)) && self.upload.is_complete() {
            self.pool.keep(key, sender, task);
        }
    }
}

/// Body of a response.
pub(super) struct ResponseStream {
    inner: Incoming,
    /// `None` after the end of the body.
    lease: Option<Lease>,
    /// Maximum time between two parts of the body while the function waits for the next one.
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl ResponseStream {
    pub(super) fn new(inner: Incoming, lease: Lease, idle: Duration) -> Self {
        let mut stream = Self {
            inner,
            lease: Some(lease),
            idle,
            timer: None,
            waiting: false,
        };
        if stream.inner.is_end_stream() {
            stream.finish();
        }
        stream
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }

    fn fail(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
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

impl Body for ResponseStream {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.waiting = false;
                if this.inner.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => this.fail(body_error(&error)),
            Poll::Pending if this.lease.is_none() => Poll::Pending,
            Poll::Pending => match this.poll_idle(cx) {
                Poll::Ready(()) => this.fail(Error::ConnectionReadTimeout),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
