//! Request body as the guest reads it. A body that is incomplete, too large or too slow ends with an error
//! and never with a normal end of stream.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::headers::filter_trailers;
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime_wasi_http::{Error, WasiBody};

use super::unread::{UnreadBody, abandon, unread_bytes};
use crate::connection::Connection;
use crate::instance::GuestControl;

/// Waiting time over which a client has to send at least [`MIN_BYTES_PER_SECOND`].
const RATE_WINDOW: Duration = Duration::from_secs(30);
const MIN_BYTES_PER_SECOND: u64 = 1 << 10;

pub(crate) struct RequestBody {
    /// `None` after the end and after a failure.
    inner: Option<InboundBody>,
    control: Arc<GuestControl>,
    /// Bytes that may still arrive.
    remaining: u64,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting_since: Option<Instant>,
    waited: Duration,
    received_bytes: u64,
    /// Counter of all bytes of a request that is reported on its own.
    total: Option<Arc<AtomicU64>>,
}

/// A request body as its sender sends it.
pub(crate) enum InboundBody {
    Client(Incoming, BodySource),
    /// The body of a call by a function on this node.
    Function(WasiBody),
}

/// Where the request body of a client comes from.
pub(crate) struct BodySource {
    pub(crate) conn: Arc<Connection>,
    pub(crate) version: Version,
    /// Whether the client waits for `100 Continue`, which hyper sends when the body is read.
    pub(crate) continues: bool,
}

impl RequestBody {
    pub(crate) fn new(
        inner: InboundBody,
        control: Arc<GuestControl>,
        limit: u64,
        idle: Duration,
    ) -> Self {
        let body = Self {
            inner: Some(inner),
            control,
            remaining: limit,
            idle,
            timer: None,
            waiting_since: None,
            waited: Duration::ZERO,
            received_bytes: 0,
            total: None,
        };
        body.note_unread();
        body
    }

    /// Adds the size of everything that is read to a counter.
    pub(crate) fn counted(mut self, total: Option<Arc<AtomicU64>>) -> Self {
        self.total = total;
        self
    }

    /// Records what happens to the rest of the body unless it is read.
    fn note_unread(&self) {
        let inner = self.inner.as_ref();
        self.control
            .set_unread(inner.map_or(UnreadBody::None, InboundBody::unread));
    }

    fn complete(&mut self) {
        self.inner = None;
        self.note_unread();
    }

    fn fail(
        &mut self,
        reason: FailureReason,
        error: Error,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(InboundBody::Client(_, source)) = self.inner.take() {
            source.conn.set_unread();
        }
        self.control.set_client_fault(reason);
        Poll::Ready(Some(Err(error)))
    }

    /// Runs the timer while the guest waits for the client. Ready when the client is too slow.
    fn poll_client_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let since = *self.waiting_since.get_or_insert(now);
        let end = since + self.idle.min(RATE_WINDOW.saturating_sub(self.waited));
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        ready!(timer.as_mut().poll(cx));
        let waited = self.waited + now.duration_since(since);
        let idle = now.duration_since(since) >= self.idle;
        if idle || self.received_bytes < MIN_BYTES_PER_SECOND * waited.as_secs() {
            return Poll::Ready(());
        }
        self.start_window(now);
        self.poll_client_timeout(cx)
    }

    fn start_window(&mut self, now: Instant) {
        self.waited = Duration::ZERO;
        self.received_bytes = 0;
        self.waiting_since = Some(now);
    }

    fn received(&mut self, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        self.received_bytes += bytes as u64;
        if let Some(total) = &self.total {
            total.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        if self.waited >= RATE_WINDOW
            && self.received_bytes >= MIN_BYTES_PER_SECOND * self.waited.as_secs()
        {
            self.waited = Duration::ZERO;
            self.received_bytes = 0;
        }
    }
}

impl Body for RequestBody {
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
        let polled = inner.poll_frame(cx, &this.control);
        if let InboundBody::Client(_, source) = inner
            && std::mem::take(&mut source.continues)
        {
            // hyper asks the client for its body now
            this.note_unread();
        }
        let Poll::Ready(frame) = polled else {
            ready!(this.poll_client_timeout(cx));
            return this.fail(FailureReason::BodySlow, Error::ConnectionReadTimeout);
        };
        let frame = match frame {
            None => {
                this.complete();
                return Poll::Ready(None);
            }
            Some(Err(reason)) => return this.fail(reason, Error::ConnectionTerminated),
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                this.received(data.len());
                let Some(left) = this.remaining.checked_sub(data.len() as u64) else {
                    return this.fail(
                        FailureReason::BodyTooLarge,
                        Error::HttpRequestBodySize(None),
                    );
                };
                this.remaining = left;
                this.note_unread();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(frame) => {
                this.complete();
                let mut trailers = frame.into_trailers().unwrap_or_default();
                filter_trailers(&mut trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(InboundBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.as_ref();
        inner.map_or(SizeHint::with_exact(0), InboundBody::size_hint)
    }
}

impl InboundBody {
    /// Polls for the next part. The error is why the body failed.
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        control: &GuestControl,
    ) -> Poll<Option<Result<Frame<Bytes>, FailureReason>>> {
        match self {
            Self::Client(body, _) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|error| fault(&error, control)),
            // the calling function has ended, or broke its own declared length
            Self::Function(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|_| control.lost_client()),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(body, _) => body.is_end_stream(),
            Self::Function(body) => body.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(body, _) => body.size_hint(),
            Self::Function(body) => body.size_hint(),
        }
    }

    /// Returns what happens to the rest of the body unless it is read.
    pub(crate) fn unread(&self) -> UnreadBody {
        match self {
            Self::Client(body, source) => {
                UnreadBody::of(source.version, unread_bytes(body, source.continues))
            }
            Self::Function(_) => UnreadBody::None,
        }
    }
}

/// Returns why a body failed: the connection broke, or its bytes are not a body.
fn fault(error: &hyper::Error, control: &GuestControl) -> FailureReason {
    if is_bad_framing(error) {
        FailureReason::BadFraming
    } else {
        control.lost_client()
    }
}

/// Returns whether the bytes of a client are not a body, so that it can still receive a response.
pub(crate) fn is_bad_framing(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // the client has closed its direction too early, or sent something else
            return matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput
            );
        }
        source = error.source();
    }
    false
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(InboundBody::Client(body, source)) = self.inner.take() {
            abandon(body, &source.conn, self.control.unread());
        }
    }
}
