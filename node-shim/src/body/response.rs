//! A guest's body on its way to a client: empty chunks dropped, small ones gathered, and an abort
//! on the wire whenever the guest could not keep what its head promised.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use node_shim_core::headers::filter_trailers;
use node_shim_core::outcome::Reason;
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::pace::{Pace, PaceState};
use crate::conn::InExchange;
use crate::observer::Observer;
use crate::run::Control;

/// Chunks that follow another within this time are gathered.
const QUIET: Duration = Duration::from_millis(5);
/// Up to this many bytes.
const GATHER: usize = 4 << 10;
/// Empty chunks swallowed before the connection gets its turn.
const EMPTY_CHUNKS: u32 = 32;

/// What hyper sends.
pub(crate) enum ResponseBody {
    /// Ours, or a guest's that was all there when its head was.
    Whole {
        bytes: Option<Bytes>,
        trailers: Option<HeaderMap>,
        observer: Option<Observer>,
        _exchange: InExchange,
    },
    Guest(Box<GuestBody>),
}

/// What the head promised about the body.
#[derive(Clone, Debug)]
pub(crate) struct Framing {
    /// The declared length, bytes.
    pub(crate) length: Option<u64>,
    /// Trailers can reach the client.
    pub(crate) trailers: bool,
    /// The end of the connection is the end of the body, so only a reset tells that it is cut.
    pub(crate) reset: Option<Arc<AtomicBool>>,
    /// Between two chunks of a body with a declared length.
    pub(crate) idle: Duration,
}

pub(crate) struct GuestBody {
    inner: HyperOutgoingBody,
    control: Arc<Control>,
    observer: Observer,
    framing: Framing,
    left: Option<u64>,
    gathered: BytesMut,
    trailers: Option<HeaderMap>,
    emitted: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    waiting_since: Option<Instant>,
    stage: Stage,
    pace: Arc<Pace>,
    _exchange: InExchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The guest is through; what was gathered goes out.
    Ending,
    /// What was written before is flushed, then the abort follows.
    Failing(Reason),
    Aborting(Reason),
    Over,
}

/// Ends a body that cannot be completed; hyper turns it into the protocol's abort.
#[derive(Debug)]
pub(crate) struct Aborted(Reason);

impl GuestBody {
    pub(crate) fn new(
        inner: HyperOutgoingBody,
        control: Arc<Control>,
        observer: Observer,
        framing: Framing,
        exchange: InExchange,
    ) -> Self {
        Self {
            inner,
            control,
            observer,
            left: framing.length,
            framing,
            gathered: BytesMut::new(),
            trailers: None,
            emitted: None,
            timer: None,
            waiting_since: None,
            stage: Stage::Open,
            pace: Arc::default(),
            _exchange: exchange,
        }
    }

    /// Sends first what was read before the head went out.
    pub(crate) fn after(mut self, read: Bytes, trailers: Option<HeaderMap>) -> Self {
        self.left = self.left.map(|left| left.saturating_sub(read.len() as u64));
        self.gathered = BytesMut::from(read);
        self.trailers = trailers;
        self
    }

    pub(crate) fn pace(&self) -> Arc<Pace> {
        self.pace.clone()
    }

    /// Reads the guest's body to its end for a client that gets none: the guest does not notice.
    pub(crate) async fn discard(mut self) {
        while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await
        {
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.emitted.is_none() && !self.gathered.is_empty() {
            let read = self.gathered.split().freeze();
            return self.emit(read);
        }
        let mut empty = 0;
        loop {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => return self.poll_waiting(cx),
                Poll::Ready(None) => return self.ended(),
                Poll::Ready(Some(Err(_))) => {
                    let length = self.framing.length.is_some();
                    return self.failed(if length {
                        Reason::BadLength
                    } else {
                        Reason::Unfinished
                    });
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {
                        empty += 1;
                        if empty > EMPTY_CHUNKS {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                    }
                    Ok(data) => {
                        self.waiting_since = None;
                        if let Some(left) = self.left {
                            let Some(left) = left.checked_sub(data.len() as u64) else {
                                return self.failed(Reason::BadLength);
                            };
                            self.left = Some(left);
                        }
                        if let Some(out) = self.gather(data) {
                            return self.emit(out);
                        }
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    /// What can go out now: a chunk after some quiet or a large one at once, small ones together.
    fn gather(&mut self, data: Bytes) -> Option<Bytes> {
        // nothing follows the last byte of a promise
        let quiet = self.left == Some(0) || self.emitted.is_none_or(|at| at.elapsed() >= QUIET);
        if self.gathered.is_empty() && (quiet || data.len() >= GATHER) {
            return Some(data);
        }
        self.gathered.extend_from_slice(&data);
        (quiet || self.gathered.len() >= GATHER).then(|| self.gathered.split().freeze())
    }

    fn emit(&mut self, data: Bytes) -> Poll<Option<Frame<Bytes>>> {
        self.emitted = Some(Instant::now());
        Poll::Ready(Some(Frame::data(data)))
    }

    /// The guest has nothing yet: what was gathered goes out in time, and a promise is not kept
    /// waiting for ever. An open response is bounded by `timeout` alone.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let now = Instant::now();
        let end = if !self.gathered.is_empty() {
            self.emitted.unwrap_or(now) + QUIET
        } else if self.left.is_some() {
            *self.waiting_since.get_or_insert(now) + self.framing.idle
        } else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if self.gathered.is_empty() {
            return self.failed(Reason::Idle);
        }
        let data = self.gathered.split().freeze();
        self.emit(data)
    }

    /// The guest's side of the body is gone: because it was finished, or because the guest was.
    fn ended(&mut self) -> Poll<Option<Frame<Bytes>>> {
        if let Some(ending) = self.control.ending().filter(|ending| ending.unfinished) {
            return self.failed(ending.failure.unwrap_or(Reason::Unfinished));
        }
        if self.left.is_some_and(|left| left > 0) {
            return self.failed(Reason::BadLength);
        }
        self.stage = Stage::Ending;
        self.poll_ending()
    }

    fn poll_ending(&mut self) -> Poll<Option<Frame<Bytes>>> {
        if !self.gathered.is_empty() {
            let data = self.gathered.split().freeze();
            return self.emit(data);
        }
        if let Some(mut trailers) = self.trailers.take().filter(|_| self.framing.trailers) {
            filter_trailers(&mut trailers);
            // nothing follows them, and nobody asks for more
            self.over();
            return Poll::Ready(Some(Frame::trailers(trailers)));
        }
        self.over();
        Poll::Ready(None)
    }

    fn failed(&mut self, reason: Reason) -> Poll<Option<Frame<Bytes>>> {
        // what stopped the guest is why its body broke
        let reason = self
            .control
            .client_fault()
            .or(self.control.stopped())
            .unwrap_or(reason);
        self.control.stop(reason);
        self.stage = Stage::Failing(reason);
        Poll::Ready(None)
    }

    fn over(&mut self) {
        match self.control.ending().and_then(|ending| ending.failure) {
            // all bytes went out, but the guest died of something before the client had them
            Some(reason) => self.observer.fail(reason),
            None => self.observer.succeed(),
        }
        self.stage = Stage::Over;
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = &mut *self;
        let polled = match this.stage {
            Stage::Open => this.poll_open(cx),
            Stage::Ending => this.poll_ending(),
            Stage::Failing(_) | Stage::Aborting(_) | Stage::Over => Poll::Ready(None),
        };
        match (this.stage, polled) {
            (Stage::Failing(reason), _) => {
                this.stage = Stage::Aborting(reason);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            (Stage::Aborting(reason), _) => {
                this.observer.fail(reason);
                this.stage = Stage::Over;
                if let Some(reset) = &this.framing.reset {
                    reset.store(true, Ordering::Release);
                }
                Poll::Ready(Some(Err(Aborted(reason))))
            }
            (_, polled) => {
                this.pace.set(if polled.is_ready() {
                    PaceState::Handed
                } else {
                    PaceState::Asking
                });
                polled.map(|frame| frame.map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stage == Stage::Over
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left + self.gathered.len() as u64),
            None => SizeHint::default(),
        }
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        self.pace.set(PaceState::Over);
        if self.stage == Stage::Over {
            return;
        }
        // with a declared length hyper does not ask for the end after the last byte
        if self.left == Some(0)
            && self.gathered.is_empty()
            && matches!(self.stage, Stage::Open | Stage::Ending)
        {
            self.over();
            return;
        }
        let reason = match self.stage {
            Stage::Failing(reason) | Stage::Aborting(reason) => reason,
            _ => self.control.client_fault().unwrap_or(Reason::ClientGone),
        };
        self.control.stop(reason);
        self.observer.fail(self.control.stopped().unwrap_or(reason));
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match &mut *self {
            Self::Whole {
                bytes, trailers, ..
            } => {
                let data = bytes
                    .take()
                    .filter(|bytes| !bytes.is_empty())
                    .map(Frame::data);
                Poll::Ready(
                    data.or_else(|| trailers.take().map(Frame::trailers))
                        .map(Ok),
                )
            }
            Self::Guest(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole {
                bytes, trailers, ..
            } => trailers.is_none() && bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Guest(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // a length in the head would leave no room for them on HTTP/1.1
            Self::Whole {
                trailers: Some(_), ..
            } => SizeHint::default(),
            Self::Whole { bytes, .. } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Guest(body) => body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Self::Whole {
            bytes,
            observer: Some(observer),
            ..
        } = self
            && bytes.as_ref().is_some_and(|bytes| !bytes.is_empty())
        {
            observer.fail(Reason::ClientGone);
        }
    }
}

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the response could not be completed: {}", self.0.label())
    }
}

impl std::error::Error for Aborted {}
