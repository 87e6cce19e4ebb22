//! Body of an outbound request on its way to the server.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;
use wasmtime_wasi_http::{Error, WasiBody};

use super::scope::RequestScope;

/// Progress of a request body.
#[derive(Debug)]
pub(super) struct Upload {
    complete: AtomicBool,
    progressed: Mutex<Instant>,
    /// Size in bytes of a body that ended with an error, because the head declares another one.
    wrong_size: OnceLock<Option<u64>>,
}

/// Body of an outbound request. When the function ends before it has finished the body, it ends with an error, because
/// the server must not take it for complete.
pub(super) struct RequestStream {
    inner: WasiBody,
    scope: Arc<RequestScope>,
    upload: Arc<Upload>,
    /// Bytes that are missing from a body with a declared length.
    remaining: Option<u64>,
}

impl Upload {
    /// Returns whether the whole body was handed to the connection.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Returns the time at which the last part was handed to the connection.
    pub(super) fn progressed(&self) -> Instant {
        *self.progressed.lock()
    }

    /// Returns the error of a body that does not have the declared length.
    pub(super) fn wrong_size(&self) -> Option<Error> {
        self.wrong_size
            .get()
            .copied()
            .map(Error::HttpRequestBodySize)
    }

    /// Records the start of an attempt to send the request.
    pub(super) fn restart(&self) {
        *self.progressed.lock() = Instant::now();
    }

    fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }
}

impl RequestStream {
    /// Wraps a body with the declared length in bytes, if it has one.
    pub(super) fn new(
        inner: WasiBody,
        scope: Arc<RequestScope>,
        length: Option<u64>,
    ) -> (Self, Arc<Upload>) {
        let upload = Arc::new(Upload {
            complete: AtomicBool::new(inner.is_end_stream() || length == Some(0)),
            progressed: Mutex::new(Instant::now()),
            wrong_size: OnceLock::new(),
        });
        let stream = Self {
            inner,
            scope,
            upload: Arc::clone(&upload),
            remaining: length,
        };
        (stream, upload)
    }

    fn advance(&mut self, frame: &Frame<Bytes>) {
        self.upload.restart();
        let Some(data) = frame.data_ref() else {
            // trailers end the body
            self.upload.set_complete();
            return;
        };
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(data.len() as u64);
            if *remaining == 0 {
                self.upload.set_complete();
            }
        }
    }
}

impl Body for RequestStream {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if self.scope.has_ended() && !self.upload.is_complete() {
            // wasmtime ends the body of a dropped instance as if it were complete
            return Poll::Ready(Some(Err(Error::InternalError(None))));
        }
        match &frame {
            Some(Ok(frame)) => self.advance(frame),
            Some(Err(Error::HttpRequestBodySize(size))) => {
                let _ = self.upload.wrong_size.set(*size);
            }
            Some(Err(_)) => {}
            None => self.upload.set_complete(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
