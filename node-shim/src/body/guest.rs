//! Body of a guest's response on its way to the client. Drops empty chunks, coalesces small ones, and aborts the response
//! on the wire when the guest does not complete it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::headers::filter_trailers;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::progress::{StreamProgress, StreamState};
use super::response::Aborted;
use crate::connection::RequestGuard;
use crate::instance::{GuestControl, LAST_TURNS};
use crate::observer::RequestObserver;

/// Chunks that follow another one within this time are coalesced.
const COALESCE_DELAY: Duration = Duration::from_millis(5);
/// Maximum size of a coalesced chunk in bytes.
const COALESCE_BYTES: usize = 4 << 10;
/// Maximum time and size in bytes of a body that is discarded because the response has none.
const DISCARD: (Duration, u64) = (Duration::from_secs(1), 1 << 20);
/// Number of consecutive empty chunks after which the task yields to the connection.
const EMPTY_CHUNKS: u32 = 32;

/// Framing of a response body according to its head.
#[derive(Clone, Debug)]
pub(crate) struct BodyFraming {
    /// Declared length in bytes.
    pub(crate) length: Option<u64>,
    /// Whether trailers can be sent to the client.
    pub(crate) trailers: bool,
    /// Flag that resets the connection. Set on HTTP/1.0, where the end of the connection ends the body
    /// and only a reset shows that it is incomplete.
    pub(crate) reset: Option<Arc<AtomicBool>>,
    /// Maximum time between two chunks of a body with a declared length.
    pub(crate) idle: Duration,
}

pub(crate) struct GuestBody {
    inner: HyperOutgoingBody,
    control: Arc<GuestControl>,
    observer: RequestObserver,
    framing: BodyFraming,
    remaining: Option<u64>,
    buffered: BytesMut,
    trailers: Option<HeaderMap>,
    last_sent: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    waiting_since: Option<Instant>,
    last_turn: LastTurn,
    stage: Stage,
    progress: Arc<StreamProgress>,
    _guard: Option<RequestGuard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The buffer has the rest of the declared length.
    Complete,
    /// The guest's body has ended, or failed for this reason.
    Closed(Option<FailureReason>),
    /// The guest has finished; the buffered rest is sent.
    Ending,
    /// The connection flushes what was sent before; the abort follows.
    Failing(FailureReason),
    Aborting(FailureReason),
    Over,
}

/// Turn of the guest on another thread in which it has written the end of its body, and the next ones if it was interrupted or
/// waited for the reader of the end. The client receives the end when they are over: a guest that has ended then has returned what the next
/// request needs.
#[derive(Clone, Copy, Debug)]
enum LastTurn {
    Unread,
    /// Reading the end may have woken the guest. Its task queues it before the connection is polled again.
    Following,
    /// End of the turn, and the number of further turns that may be awaited.
    Until(u32, u32),
}

impl GuestBody {
    pub(crate) fn new(
        inner: HyperOutgoingBody,
        control: Arc<GuestControl>,
        observer: RequestObserver,
        framing: BodyFraming,
        guard: Option<RequestGuard>,
    ) -> Self {
        Self {
            inner,
            control,
            observer,
            remaining: framing.length,
            framing,
            buffered: BytesMut::new(),
            trailers: None,
            last_sent: None,
            timer: None,
            waiting_since: None,
            last_turn: LastTurn::Unread,
            stage: Stage::Open,
            progress: Arc::default(),
            _guard: guard,
        }
    }

    /// Prepends what was read before the head was sent.
    pub(crate) fn with_prefix(mut self, read: Bytes, trailers: Option<HeaderMap>) -> Self {
        self.remaining = self
            .remaining
            .map(|left| left.saturating_sub(read.len() as u64));
        self.buffered = BytesMut::from(read);
        self.trailers = trailers;
        self
    }

    pub(crate) fn progress(&self) -> Arc<StreamProgress> {
        self.progress.clone()
    }

    /// Discards the guest's body, for a response that has none. A guest that takes long or writes much is
    /// stopped, so that it does not keep its permit until its timeout. The request has succeeded then.
    pub(crate) async fn discard(mut self) {
        let (time, mut left) = DISCARD;
        let read = async {
            while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
                left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
                if left == 0 {
                    break;
                }
            }
        };
        // either result ends the reading
        let _ = timeout(time, read).await;
        self.observer.sent_nothing();
        if matches!(
            self.stage,
            Stage::Open | Stage::Complete | Stage::Closed(_) | Stage::Ending
        ) {
            self.control.dismiss();
            self.observer.succeed();
            self.stage = Stage::Over;
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.last_sent.is_none() && !self.buffered.is_empty() {
            let read = self.buffered.split().freeze();
            return self.emit(read);
        }
        let mut empty = 0;
        loop {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => return self.poll_waiting(cx),
                Poll::Ready(None) => {
                    self.stage = Stage::Closed(None);
                    return self.poll_closed(None, cx);
                }
                Poll::Ready(Some(Err(_))) => {
                    let length = self.framing.length.is_some();
                    let reason = if length {
                        FailureReason::BadLength
                    } else {
                        FailureReason::Unfinished
                    };
                    self.stage = Stage::Closed(Some(reason));
                    return self.poll_closed(Some(reason), cx);
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
                        if let Some(left) = self.remaining {
                            let Some(left) = left.checked_sub(data.len() as u64) else {
                                return self.failed(FailureReason::BadLength);
                            };
                            self.remaining = Some(left);
                            if left == 0 && self.poll_turn(cx).is_pending() {
                                self.buffered.extend_from_slice(&data);
                                self.stage = Stage::Complete;
                                return Poll::Pending;
                            }
                        }
                        if let Some(out) = self.coalesce(data) {
                            return self.emit(out);
                        }
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    /// Sends the rest of the declared length at the end of the turn.
    fn poll_complete(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        ready!(self.poll_turn(cx));
        self.stage = Stage::Open;
        let rest = self.buffered.split().freeze();
        self.emit(rest)
    }

    /// Ends the body at the end of the turn.
    fn poll_closed(
        &mut self,
        failure: Option<FailureReason>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Frame<Bytes>>> {
        ready!(self.poll_turn(cx));
        match failure {
            None => self.ended(),
            Some(reason) => self.failed(reason),
        }
    }

    /// Waits for the end of the guest's last turn, if it runs on another thread.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.last_turn, LastTurn::Unread) && !self.control.may_move() {
            return Poll::Ready(());
        }
        loop {
            self.last_turn = match self.last_turn {
                LastTurn::Unread => {
                    self.last_turn = LastTurn::Following;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                LastTurn::Following => {
                    LastTurn::Until(self.control.end_of_writing(), LAST_TURNS - 1)
                }
                LastTurn::Until(end, left) => {
                    self.control.register_watcher(cx.waker());
                    if !self.control.has_come_to(end) {
                        return Poll::Pending;
                    }
                    match self.control.end_of_turn() {
                        Some(next) if left > 0 => LastTurn::Until(next, left - 1),
                        _ => return Poll::Ready(()),
                    }
                }
            }
        }
    }

    /// Returns the data to send now: a chunk after a pause or a large chunk at once, small chunks
    /// coalesced.
    fn coalesce(&mut self, data: Bytes) -> Option<Bytes> {
        // nothing follows the last byte of the declared length
        let quiet = self.remaining == Some(0)
            || self
                .last_sent
                .is_none_or(|at| at.elapsed() >= COALESCE_DELAY);
        if self.buffered.is_empty() && (quiet || data.len() >= COALESCE_BYTES) {
            return Some(data);
        }
        self.buffered.extend_from_slice(&data);
        (quiet || self.buffered.len() >= COALESCE_BYTES).then(|| self.buffered.split().freeze())
    }

    fn emit(&mut self, data: Bytes) -> Poll<Option<Frame<Bytes>>> {
        self.last_sent = Some(Instant::now());
        self.observer.sent(data.len());
        Poll::Ready(Some(Frame::data(data)))
    }

    /// Waits for the guest. Sends buffered data after [`COALESCE_DELAY`], and fails a body with a declared
    /// length after its idle timeout. Other bodies are bounded by `timeout` only.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let now = Instant::now();
        let end = if !self.buffered.is_empty() {
            self.last_sent.unwrap_or(now) + COALESCE_DELAY
        } else if self.remaining.is_some() {
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
        if self.buffered.is_empty() {
            return self.failed(FailureReason::Idle);
        }
        let data = self.buffered.split().freeze();
        self.emit(data)
    }

    /// Handles the end of the guest's body, which either was finished or ended with the guest.
    fn ended(&mut self) -> Poll<Option<Frame<Bytes>>> {
        if let Some(ending) = self.control.guest_end().filter(|ending| ending.unfinished) {
            return self.failed(ending.failure.unwrap_or(FailureReason::Unfinished));
        }
        if self.remaining.is_some_and(|left| left > 0) {
            return self.failed(FailureReason::BadLength);
        }
        self.stage = Stage::Ending;
        self.poll_ending()
    }

    fn poll_ending(&mut self) -> Poll<Option<Frame<Bytes>>> {
        if !self.buffered.is_empty() {
            let data = self.buffered.split().freeze();
            return self.emit(data);
        }
        if let Some(mut trailers) = self.trailers.take().filter(|_| self.framing.trailers) {
            filter_trailers(&mut trailers);
            // nothing follows trailers, so the body is not polled again
            self.over();
            return Poll::Ready(Some(Frame::trailers(trailers)));
        }
        self.over();
        Poll::Ready(None)
    }

    fn failed(&mut self, reason: FailureReason) -> Poll<Option<Frame<Bytes>>> {
        let reason = self.control.cause_of(reason);
        self.control.stop(reason);
        self.stage = Stage::Failing(reason);
        Poll::Ready(None)
    }

    fn over(&mut self) {
        match self.control.guest_end().and_then(|ending| ending.failure) {
            // all bytes were sent, but the guest failed before the client had received them
            Some(reason) => self.observer.fail(self.control.cause_of(reason)),
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
            Stage::Complete => this.poll_complete(cx),
            Stage::Closed(failure) => this.poll_closed(failure, cx),
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
                Poll::Ready(Some(Err(Aborted::new(reason))))
            }
            (_, polled) => {
                this.progress.set(if polled.is_ready() {
                    StreamState::WaitingForClient
                } else {
                    StreamState::WaitingForGuest
                });
                polled.map(|frame| frame.map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stage == Stage::Over
    }

    fn size_hint(&self) -> SizeHint {
        match self.remaining {
            Some(left) => SizeHint::with_exact(left + self.buffered.len() as u64),
            None => SizeHint::default(),
        }
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        self.progress.set(StreamState::Finished);
        if self.stage == Stage::Over {
            return;
        }
        // with a declared length, hyper does not poll again after the last byte
        if self.remaining == Some(0)
            && self.buffered.is_empty()
            && matches!(self.stage, Stage::Open | Stage::Ending)
        {
            self.over();
            return;
        }
        let reason = match self.stage {
            Stage::Failing(reason) | Stage::Aborting(reason) => reason,
            _ => self
                .control
                .client_fault()
                .unwrap_or_else(|| self.control.lost_client()),
        };
        self.control.stop(reason);
        self.observer
            .fail(self.control.stop_reason().unwrap_or(reason));
    }
}
