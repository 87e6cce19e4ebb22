//! Reads the start of a response body before the head is sent. Most responses are complete at that time:
//! they are sent in one piece with their length, and an invalid one is replaced by an error response.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::headers;
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::body::BodyFraming;
use crate::instance::{GuestControl, RunningGuest};

/// How often a guest that computes, or writes and waits for its reader, is polled before the head is sent.
const MAX_POLLS: u32 = 3;
/// Size in bytes from which the response is sent without waiting for more.
const PREFETCH_BYTES: usize = 4 << 10;

/// The start of a body, or a complete one.
pub(super) struct Prefetched {
    pub(super) data: Bytes,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) complete: bool,
}

/// Reads what the guest has written, and polls the guest as long as it produces more without waiting.
///
/// # Errors
/// Returns why the body is invalid or incomplete.
pub(super) async fn prefetch(
    guest: &mut RunningGuest,
    body: &mut HyperOutgoingBody,
    control: &Arc<GuestControl>,
    framing: &BodyFraming,
) -> Result<Prefetched, FailureReason> {
    let mut early = Prefetched {
        data: Bytes::new(),
        trailers: None,
        complete: false,
    };
    let mut polls = 0..MAX_POLLS;
    // a turn on another thread takes the place of a poll here
    let mut awaited: Option<u32> = None;
    poll_fn(|cx| {
        if let Some(end_of_turn) = awaited {
            guest.poll(cx);
            if !control.has_come_to(end_of_turn) {
                return Poll::Pending;
            }
        }
        for _ in polls.by_ref() {
            let ended = has_ended(control)?;
            let more = early.read(body, framing, ended)?;
            // the guest has ended, so nothing more will arrive
            if ended && !early.complete {
                return Poll::Ready(Err(FailureReason::Unfinished));
            }
            let computes = control.end_of_turn().is_some();
            if early.complete || !(more || computes) || early.data.len() >= PREFETCH_BYTES {
                break;
            }
            guest.poll(cx);
            awaited = control.end_of_turn();
            if awaited.is_some_and(|end_of_turn| !control.has_come_to(end_of_turn)) {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    })
    .await?;
    if early.complete || framing.length == Some(early.data.len() as u64) {
        guest.end_turn().await;
        has_ended(control)?;
    }
    Ok(early)
}

/// Returns whether the guest has ended.
///
/// # Errors
/// Returns why it has no valid response.
fn has_ended(control: &GuestControl) -> Result<bool, FailureReason> {
    match control.guest_end() {
        Some(ending) if ending.unfinished || ending.failure.is_some() => {
            Err(ending.failure.unwrap_or(FailureReason::Unfinished))
        }
        ending => Ok(ending.is_some()),
    }
}

impl Prefetched {
    /// Reads the available data, without a size limit when `all` is set. Returns whether there was any.
    fn read(
        &mut self,
        body: &mut HyperOutgoingBody,
        framing: &BodyFraming,
        all: bool,
    ) -> Result<bool, FailureReason> {
        let before = self.data.len();
        while all || self.data.len() < PREFETCH_BYTES {
            match next_frame(body) {
                Poll::Pending => break,
                Poll::Ready(Some(Err(_))) if framing.length.is_some() => {
                    return Err(FailureReason::BadLength);
                }
                Poll::Ready(Some(Err(_))) => return Err(FailureReason::Unfinished),
                Poll::Ready(None) => {
                    self.complete = true;
                    break;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if self.data.is_empty() => self.data = data,
                    Ok(data) => {
                        let mut joined = BytesMut::from(std::mem::take(&mut self.data));
                        joined.extend_from_slice(&data);
                        self.data = joined.freeze();
                    }
                    Err(frame) => {
                        let mut trailers = frame.into_trailers().unwrap_or_default();
                        headers::filter_trailers(&mut trailers);
                        self.trailers =
                            (framing.trailers && !trailers.is_empty()).then_some(trailers);
                    }
                },
            }
        }
        let length = self.data.len() as u64;
        let kept = framing
            .length
            .is_none_or(|promised| length <= promised && (length == promised || !self.complete));
        if kept {
            Ok(self.data.len() > before)
        } else {
            Err(FailureReason::BadLength)
        }
    }
}

/// Returns the next frame if one is available. Polls outside of tokio's cooperative budget, because an
/// exhausted budget would look like a body without data.
fn next_frame(body: &mut HyperOutgoingBody) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
    let mut next = tokio::task::coop::unconstrained(body.frame());
    Pin::new(&mut next).poll(&mut Context::from_waker(Waker::noop()))
}
