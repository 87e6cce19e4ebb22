//! Body of a request on its way to another node. What was sent is kept until the other node has answered, so that the
//! request can be sent to a third node when the other one does not have the function: until then it reads nothing, so that
//! is at most a window of HTTP/2.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use node_shim_core::failure_reason::FailureReason;
use parking_lot::Mutex;

use crate::body::{InboundBody, UnreadBody, abandon, is_bad_framing};

/// Maximum size of what is kept of a body, in bytes: a window of HTTP/2, the buffer of the connection, and the part that
/// fills it.
const REPLAYED: usize = 256 << 10;
/// Maximum size of what is kept of all bodies, in bytes.
const ALL_REPLAYED: usize = 64 << 20;

/// Body of a request, which is read by one reader after another.
pub(crate) struct SharedBody(Mutex<State>);

struct State {
    /// `None` after the end and after a failure.
    inner: Option<InboundBody>,
    /// What readers have read so far; `None` when it is too much, or no longer needed.
    read: Option<Vec<Part>>,
    kept: usize,
    /// Size of what is kept of all bodies.
    all_kept: Arc<AtomicUsize>,
    /// Number of the reader that may read. All others fail.
    reader: usize,
    waker: Option<Waker>,
    fault: Option<FailureReason>,
}

#[derive(Clone)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Reads the body from its beginning.
pub(crate) struct RequestReader {
    body: Arc<SharedBody>,
    number: usize,
    /// Number of parts that were read.
    at: usize,
}

/// Why a reader fails: its request was given up, or its sender has left or sent what is no body.
#[derive(Debug)]
pub(crate) struct Incomplete;

impl SharedBody {
    /// `all_kept` is the size of what is kept of all bodies.
    pub(crate) fn new(inner: InboundBody, all_kept: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            inner: Some(inner),
            read: Some(Vec::new()),
            kept: 0,
            all_kept,
            reader: 0,
            waker: None,
            fault: None,
        })))
    }

    /// Returns a reader, after which earlier ones fail. `None` when the beginning of the body is no longer known.
    pub(crate) fn reader(self: &Arc<Self>) -> Option<RequestReader> {
        let mut state = self.0.lock();
        state.read.as_ref()?;
        state.supersede();
        Some(RequestReader {
            body: Arc::clone(self),
            number: state.reader,
            at: 0,
        })
    }

    /// Whether the beginning of the body is still known, so that the request can be sent once more.
    pub(crate) fn is_known(&self) -> bool {
        self.0.lock().read.is_some()
    }

    /// Lets all readers fail, because no client waits for the response.
    pub(crate) fn give_up(&self) {
        self.0.lock().supersede();
    }

    /// Forgets the beginning of the body, because the other node serves the request.
    pub(crate) fn keep_nothing(&self) {
        self.0.lock().forget();
    }

    /// Returns why the body failed before all of it was read.
    pub(crate) fn fault(&self) -> Option<FailureReason> {
        self.0.lock().fault
    }

    /// Returns what happens to the rest of the body unless it is read.
    pub(crate) fn unread(&self) -> UnreadBody {
        self.0.lock().unread()
    }
}

impl State {
    fn supersede(&mut self) {
        self.reader += 1;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn unread(&self) -> UnreadBody {
        let inner = self.inner.as_ref();
        inner.map_or(UnreadBody::None, InboundBody::unread)
    }

    fn keep(&mut self, part: Part) {
        let Some(read) = &mut self.read else {
            return;
        };
        let size = match &part {
            Part::Data(data) => data.len(),
            Part::Trailers(_) => 0,
        };
        read.push(part);
        self.kept += size;
        let all = self.all_kept.fetch_add(size, Ordering::Relaxed) + size;
        if self.kept > REPLAYED || all > ALL_REPLAYED {
            self.forget();
        }
    }

    fn forget(&mut self) {
        if self.read.take().is_some() {
            self.all_kept.fetch_sub(self.kept, Ordering::Relaxed);
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Incomplete>>> {
        let Some(inner) = &mut self.inner else {
            let failed = self.fault.is_some();
            return Poll::Ready(failed.then_some(Err(Incomplete)));
        };
        match poll_inbound(inner, cx) {
            Poll::Pending => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.inner = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(fault))) => {
                if let Some(InboundBody::Client(_, source)) = self.inner.take() {
                    source.conn.set_unread();
                }
                self.fault = Some(fault);
                Poll::Ready(Some(Err(Incomplete)))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let part = match frame.into_data() {
                    Ok(data) => Part::Data(data),
                    Err(frame) => {
                        self.inner = None;
                        Part::Trailers(frame.into_trailers().unwrap_or_default())
                    }
                };
                self.keep(part.clone());
                Poll::Ready(Some(Ok(part)))
            }
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.forget();
        let unread = self.unread();
        if let Some(InboundBody::Client(body, source)) = self.inner.take() {
            abandon(body, &source.conn, unread);
        }
    }
}

/// Polls for the next part. The error is why the body failed.
fn poll_inbound(
    inner: &mut InboundBody,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, FailureReason>>> {
    match inner {
        InboundBody::Client(body, source) => {
            // hyper asks the client for its body now
            source.continues = false;
            Pin::new(body).poll_frame(cx).map_err(|error| {
                if is_bad_framing(&error) {
                    FailureReason::BadFraming
                } else {
                    FailureReason::ClientGone
                }
            })
        }
        // the calling function has ended, or broke its own declared length
        InboundBody::Function(body) => Pin::new(body)
            .poll_frame(cx)
            .map_err(|_| FailureReason::ClientGone),
    }
}

impl Body for RequestReader {
    type Data = Bytes;
    type Error = Incomplete;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Incomplete>>> {
        let this = &mut *self;
        let mut state = this.body.0.lock();
        if state.reader != this.number {
            return Poll::Ready(Some(Err(Incomplete)));
        }
        let again = state.read.as_ref().and_then(|read| read.get(this.at));
        let next = match again.cloned() {
            Some(part) => Poll::Ready(Some(Ok(part))),
            None => state.poll_next(cx),
        };
        drop(state);
        next.map_ok(|part| {
            this.at += 1;
            match part {
                Part::Data(data) => Frame::data(data),
                Part::Trailers(trailers) => Frame::trailers(trailers),
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        let state = self.body.0.lock();
        let read = state.read.as_ref().map_or(self.at, Vec::len);
        self.at >= read
            && state.fault.is_none()
            && state.inner.as_ref().is_none_or(InboundBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.body.0.lock();
        match &state.inner {
            Some(inner) if self.at == 0 && state.kept == 0 => inner.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request body could not be completed")
    }
}

impl std::error::Error for Incomplete {}
