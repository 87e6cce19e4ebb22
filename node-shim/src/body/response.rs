//! Response body that hyper sends.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use node_shim_core::failure_reason::FailureReason;

use super::guest::GuestBody;
use crate::connection::RequestGuard;
use crate::forward::ForwardedResponse;
use crate::observer::RequestObserver;

/// Body of a response that hyper sends.
pub(crate) enum ResponseBody {
    /// A response of the node-shim, or one of a guest that was complete when its head was sent.
    Buffered {
        bytes: Option<Bytes>,
        trailers: Option<HeaderMap>,
        observer: Option<RequestObserver>,
        /// `None` for the response to a function.
        _guard: Option<RequestGuard>,
    },
    Streaming(Box<GuestBody>),
    /// The response of another node.
    Forwarded(Box<ForwardedResponse>),
}

impl ResponseBody {
    /// Counts a complete response now. A function that receives it has all of it at once, so it does not matter for the
    /// called function how much of it the caller reads, and when.
    pub(crate) fn delivered(&mut self) {
        if let Self::Buffered {
            observer, bytes, ..
        } = self
            && let Some(mut observer) = observer.take()
        {
            observer.sent(bytes.as_ref().map_or(0, Bytes::len));
        }
    }
}

/// Error that ends an incomplete body. hyper turns it into an abort of the protocol.
#[derive(Debug)]
pub(crate) struct Aborted(FailureReason);

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match &mut *self {
            Self::Buffered {
                bytes,
                trailers,
                observer,
                ..
            } => {
                let data = bytes.take().filter(|bytes| !bytes.is_empty());
                if let (Some(data), Some(observer)) = (&data, observer) {
                    observer.sent(data.len());
                }
                let data = data.map(Frame::data);
                Poll::Ready(
                    data.or_else(|| trailers.take().map(Frame::trailers))
                        .map(Ok),
                )
            }
            Self::Streaming(body) => Pin::new(body).poll_frame(cx),
            Self::Forwarded(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Buffered {
                bytes, trailers, ..
            } => trailers.is_none() && bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Streaming(body) => body.is_end_stream(),
            Self::Forwarded(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // trailers exclude a content-length on HTTP/1.1
            Self::Buffered {
                trailers: Some(_), ..
            } => SizeHint::default(),
            Self::Buffered { bytes, .. } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Streaming(body) => body.size_hint(),
            Self::Forwarded(body) => body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Self::Buffered {
            bytes,
            observer: Some(observer),
            ..
        } = self
            && bytes.as_ref().is_some_and(|bytes| !bytes.is_empty())
        {
            observer.lost_client();
        }
    }
}

impl Aborted {
    pub(crate) const fn new(reason: FailureReason) -> Self {
        Self(reason)
    }
}

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the response could not be completed: {}", self.0.label())
    }
}

impl std::error::Error for Aborted {}
