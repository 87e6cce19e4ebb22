//! Body of the response of another node on its way to the client, or to the calling function.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use node_shim_core::failure_reason::FailureReason;
use tokio::sync::OwnedSemaphorePermit;

use super::ForwardOutcome;
use super::pool::StreamPlace;
use super::upload::SharedBody;
use crate::body::{Aborted, StreamProgress, StreamState};
use crate::connection::RequestGuard;
use crate::node_counters::NodeCounters;

/// What the response holds until it ends.
pub(crate) struct ForwardParts {
    pub(crate) upload: Arc<SharedBody>,
    pub(crate) _stream: StreamPlace,
    pub(crate) _place: OwnedSemaphorePermit,
    pub(crate) counters: Arc<NodeCounters>,
    /// Request of a connection. `None` for a call.
    pub(crate) _guard: Option<RequestGuard>,
}

/// Body of a response that another node sends.
pub(crate) struct ForwardedResponse {
    inner: Incoming,
    parts: ForwardParts,
    /// Whether trailers can be sent to the client.
    trailers: bool,
    /// Flag that resets the connection; as in [`BodyFraming`](crate::body::BodyFraming).
    reset: Option<Arc<AtomicBool>>,
    stage: Stage,
    progress: Arc<StreamProgress>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The connection flushes what was sent before; the abort follows.
    Failing,
    Over,
}

impl ForwardedResponse {
    pub(crate) fn new(
        inner: Incoming,
        parts: ForwardParts,
        trailers: bool,
        reset: Option<Arc<AtomicBool>>,
    ) -> Self {
        Self {
            inner,
            parts,
            trailers,
            reset,
            stage: Stage::Open,
            progress: Arc::default(),
        }
    }

    pub(crate) fn progress(&self) -> Arc<StreamProgress> {
        self.progress.clone()
    }

    fn over(&mut self, outcome: ForwardOutcome) {
        if self.stage != Stage::Over {
            self.stage = Stage::Over;
            self.parts.counters.forwarded(outcome);
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                // nothing follows trailers, so the body is not polled again
                self.over(ForwardOutcome::Answered);
                Poll::Ready(Some(frame).filter(|_| self.trailers))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if self.inner.is_end_stream() {
                    // with a declared length, hyper does not poll again
                    self.over(ForwardOutcome::Answered);
                }
                Poll::Ready(Some(frame))
            }
            Poll::Ready(None) => {
                self.over(ForwardOutcome::Answered);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => {
                self.stage = Stage::Failing;
                // the connection flushes what was sent before it sees the error
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl Body for ForwardedResponse {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = &mut *self;
        match this.stage {
            Stage::Open => {
                let polled = this.poll_open(cx);
                this.progress.set(if polled.is_ready() {
                    StreamState::WaitingForClient
                } else {
                    StreamState::WaitingForGuest
                });
                polled.map(|frame| frame.map(Ok))
            }
            Stage::Failing => {
                let client = this.parts.upload.fault().is_some();
                this.over(if client {
                    ForwardOutcome::Client
                } else {
                    ForwardOutcome::Failed
                });
                if let Some(reset) = &this.reset {
                    reset.store(true, Ordering::Release);
                }
                Poll::Ready(Some(Err(Aborted::new(FailureReason::Unfinished))))
            }
            Stage::Over => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.stage {
            Stage::Open => self.inner.is_end_stream(),
            Stage::Failing => false,
            Stage::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ForwardedResponse {
    fn drop(&mut self) {
        self.progress.set(StreamState::Finished);
        if self.stage == Stage::Open && self.inner.is_end_stream() {
            self.over(ForwardOutcome::Answered);
        }
        if self.stage != Stage::Over {
            self.over(ForwardOutcome::Client);
            // otherwise the request would go on without anyone who waits for its response
            self.parts.upload.give_up();
        }
    }
}
