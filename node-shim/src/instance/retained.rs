//! What a request needs to run again on a fresh instance: its body, which is kept until the guest reads it, and the place
//! of its response.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;

use super::call::GuestHead;
use super::control::GuestControl;

/// A body that is still complete after the guest has failed, unless the guest has read some of it.
pub(super) struct RetainedBody<B> {
    slot: Arc<Mutex<Slot<B>>>,
}

struct Slot<B> {
    body: Option<B>,
    /// Whether the body is kept although the guest drops it.
    retained: bool,
    dropped_by_guest: bool,
}

/// The body as the guest reads it.
pub(super) struct BodyReader<B> {
    slot: Arc<Mutex<Slot<B>>>,
    /// Set from the first read on.
    body: Option<B>,
}

/// Where the guest sends the head of its response, on whichever instance it runs.
#[derive(Clone)]
pub(super) struct ResponseHead {
    state: Arc<HeadState>,
}

struct HeadState {
    control: Arc<GuestControl>,
    sender: Mutex<Option<oneshot::Sender<GuestHead>>>,
    /// Error code of a guest whose request may run again.
    retained: Mutex<Option<ErrorCode>>,
    is_error: AtomicBool,
}

impl<B> Clone for RetainedBody<B> {
    fn clone(&self) -> Self {
        Self {
            slot: self.slot.clone(),
        }
    }
}

impl<B> RetainedBody<B> {
    /// Retains a body. Returns it, and what the guest reads.
    pub(super) fn new(body: B) -> (Self, BodyReader<B>) {
        let slot = Arc::new(Mutex::new(Slot {
            body: Some(body),
            retained: true,
            dropped_by_guest: false,
        }));
        let reader = BodyReader {
            slot: slot.clone(),
            body: None,
        };
        (Self { slot }, reader)
    }

    /// Returns whether the guest has read some of the body.
    pub(super) fn is_read(&self) -> bool {
        self.slot.lock().body.is_none()
    }

    /// Stops retaining the body, because the request will not run again.
    pub(super) fn release(&self) {
        let mut slot = self.slot.lock();
        slot.retained = false;
        let unread = slot.dropped_by_guest.then(|| slot.body.take()).flatten();
        drop(slot);
        drop(unread);
    }

    /// Returns the body unless the guest has read some of it.
    pub(super) fn take(&self) -> Option<B> {
        self.slot.lock().body.take()
    }
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for BodyReader<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.body.is_none() {
            let mut slot = this.slot.lock();
            // nothing is lost when an empty body is read
            if slot.body.as_ref().is_some_and(Body::is_end_stream) {
                return Poll::Ready(None);
            }
            this.body = slot.body.take();
        }
        match &mut this.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Some(body) => body.is_end_stream(),
            None => self
                .slot
                .lock()
                .body
                .as_ref()
                .is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None => match &self.slot.lock().body {
                Some(body) => body.size_hint(),
                None => SizeHint::with_exact(0),
            },
        }
    }
}

impl<B> Drop for BodyReader<B> {
    fn drop(&mut self) {
        let mut slot = self.slot.lock();
        slot.dropped_by_guest = true;
        let unread = (!slot.retained).then(|| slot.body.take()).flatten();
        drop(slot);
        drop(unread);
    }
}

impl ResponseHead {
    pub(super) fn new(sender: oneshot::Sender<GuestHead>, control: Arc<GuestControl>) -> Self {
        Self {
            state: Arc::new(HeadState {
                control,
                sender: Mutex::new(Some(sender)),
                retained: Mutex::default(),
                is_error: AtomicBool::new(false),
            }),
        }
    }

    /// Sends the head, or the error code in its place.
    pub(super) fn set(&self, answer: GuestHead) {
        let state = &self.state;
        state.is_error.store(answer.is_err(), Ordering::Release);
        state.control.set_head();
        let sender = state.sender.lock().take();
        if let Some(sender) = sender {
            // the receiver is gone when the client has disconnected
            let _ = sender.send(answer);
        }
    }

    /// Sends the head. An error code waits until it is certain that the request does not run again.
    pub(super) fn set_or_retain<B>(&self, answer: GuestHead, body: &RetainedBody<B>) {
        match answer {
            Ok(_) => {
                body.release();
                self.set(answer);
            }
            Err(code) => *self.state.retained.lock() = Some(code),
        }
    }

    /// Sends the error code that waits, if there is one.
    pub(super) fn send_retained(&self) {
        let code = self.state.retained.lock().take();
        if let Some(code) = code {
            self.set(Err(code));
        }
    }

    /// Forgets the error code that waits, because the request runs again.
    pub(super) fn forget_retained(&self) {
        *self.state.retained.lock() = None;
    }

    /// Returns whether the guest has sent an error code.
    pub(super) fn is_error(&self) -> bool {
        self.state.is_error.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::{BodyExt, Full};

    use super::*;

    type TestBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Error>;

    fn body(text: &'static str) -> TestBody {
        let full = Full::new(Bytes::from_static(text.as_bytes()));
        full.map_err(|never| match never {}).boxed_unsync()
    }

    fn read(reader: &mut BodyReader<TestBody>) -> Option<Bytes> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(reader).poll_frame(&mut cx) {
            Poll::Ready(frame) => frame.map(|frame| frame.unwrap().into_data().unwrap()),
            Poll::Pending => panic!("the body is there"),
        }
    }

    #[test]
    fn a_body_is_retained_until_it_is_read() {
        let (retained, reader) = RetainedBody::new(body("abc"));
        assert_eq!(reader.size_hint().exact(), Some(3));
        drop(reader);
        assert!(!retained.is_read());
        let (again, mut reader) = RetainedBody::new(retained.take().unwrap());
        assert!(!reader.is_end_stream());
        assert_eq!(read(&mut reader).unwrap(), "abc");
        assert!(again.is_read() && reader.is_end_stream());
        drop(reader);
        assert!(again.take().is_none());
    }

    #[test]
    fn reading_an_empty_body_loses_nothing() {
        let (retained, mut reader) = RetainedBody::new(body(""));
        assert!(reader.is_end_stream());
        assert_eq!(read(&mut reader), None);
        assert!(!retained.is_read());
    }

    /// The connection must learn that the body is not read as soon as that is certain.
    #[test]
    fn a_released_body_is_dropped_with_its_reader() {
        let (retained, reader) = RetainedBody::new(body("abc"));
        retained.release();
        assert!(!retained.is_read());
        drop(reader);
        assert!(retained.take().is_none());
        let (retained, reader) = RetainedBody::new(body("abc"));
        drop(reader);
        retained.release();
        assert!(retained.take().is_none());
    }
}
