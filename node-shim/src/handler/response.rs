//! Builds the response to the client from the guest's response or its failure.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRAILER};
use http::request::Parts;
use http::{HeaderMap, Method, Response, Version};
use hyper::ext::ReasonPhrase;
use node_shim_core::failure_reason::{ErrorResponse, FailureReason};
use node_shim_core::headers;
use node_shim_core::request_labels::Outcome;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::body::{BodyFraming, GuestBody, ResponseBody, StreamProgress, StreamState};
use crate::connection::{RequestGuard, StreamReset};
use crate::data_plane::DataPlaneState;
use crate::instance::{GuestControl, GuestEnd, RunningGuest};
use crate::observer::RequestObserver;
use crate::shim_response;

use super::prefetch::{self, Prefetched};

pub(super) type HttpResponse = Response<ResponseBody>;

/// Properties of the request that decide how its response is framed.
pub(super) struct ResponseFraming {
    pub(super) version: Version,
    head_only: bool,
    accepts_trailers: bool,
    /// Whether the head announces trailers. On HTTP/1.1, hyper sends only those; another node that passes the response on may
    /// send it so.
    pub(super) names_trailers: bool,
}

impl ResponseFraming {
    pub(super) fn of(parts: &Parts) -> Self {
        Self {
            version: parts.version,
            head_only: parts.method == Method::HEAD,
            names_trailers: parts.version == Version::HTTP_11,
            accepts_trailers: match parts.version {
                Version::HTTP_2 => true,
                Version::HTTP_11 => headers::accepts_trailers(&parts.headers),
                _ => false,
            },
        }
    }

    /// Returns whether trailers can follow a body with this declared length. On HTTP/1.1 only chunked
    /// bodies have trailers.
    pub(super) fn allows_trailers(&self, length: Option<u64>) -> bool {
        self.accepts_trailers && (self.version == Version::HTTP_2 || length.is_none())
    }
}

pub(super) fn error_response(
    reason: FailureReason,
    observer: Option<RequestObserver>,
    guard: Option<RequestGuard>,
) -> HttpResponse {
    let mut observer = observer;
    if let Some(observer) = &mut observer {
        observer.fail(reason);
    }
    // a client that has disconnected receives nothing; the response only completes the call
    let reply = reason.error_response().unwrap_or(ErrorResponse {
        status: 400,
        error: "bad_framing",
        retry_after: None,
    });
    let mut answer = shim_response::build(reply, observer, guard);
    if reason.outcome() == Outcome::ClientFault {
        // the rest of the request is not what the client meant to send
        shim_response::close(&mut answer);
    }
    answer
}

/// Checks whether the guest's response head can be sent.
pub(super) fn check_head(
    control: &GuestControl,
    answer: Response<HyperOutgoingBody>,
) -> Result<Response<HyperOutgoingBody>, FailureReason> {
    if let Some(reason) = control.client_fault() {
        return Err(reason);
    }
    // nothing has been sent yet, so a failed guest gets an error response
    if let Some(GuestEnd {
        failure: Some(reason),
        ..
    }) = control.guest_end()
    {
        return Err(reason);
    }
    if !(200..600).contains(&answer.status().as_u16()) {
        return Err(FailureReason::BadHead);
    }
    if answer.headers().get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err(FailureReason::BadHead);
    }
    Ok(answer)
}

#[allow(
    clippy::too_many_arguments,
    reason = "everything that a response depends on"
)]
pub(super) async fn send(
    plane: &DataPlaneState,
    answer: Response<HyperOutgoingBody>,
    mut guest: RunningGuest,
    response_framing: &ResponseFraming,
    control: Arc<GuestControl>,
    mut observer: RequestObserver,
    framing: BodyFraming,
    guard: Option<RequestGuard>,
) -> HttpResponse {
    let (mut head, mut body) = answer.into_parts();
    let named = framing.trailers && response_framing.names_trailers;
    let announced = named
        .then(|| headers::announced_trailers(&head.headers))
        .flatten();
    headers::rewrite_response(&mut head.headers);
    if head.status.canonical_reason().is_none() && response_framing.version < Version::HTTP_2 {
        // hyper would send `<none>`
        head.extensions.insert(ReasonPhrase::from_static(b""));
    }
    if headers::is_bodiless(response_framing.head_only, head.status) {
        guest.detach();
        if !response_framing.head_only {
            head.headers.remove(CONTENT_LENGTH);
        }
        // the body is discarded, so its length is not checked and its end has no effect on the connection
        let framing = BodyFraming {
            length: None,
            reset: None,
            ..framing
        };
        let unread = GuestBody::new(body, control, observer, framing, None);
        plane.guests.spawn(unread.discard());
        let body = ResponseBody::Buffered {
            bytes: None,
            trailers: None,
            observer: None,
            _guard: guard,
        };
        return Response::from_parts(head, body);
    }
    let early = prefetch::prefetch(&mut guest, &mut body, &control, &framing).await;
    guest.detach();
    let body = match early {
        Err(reason) => {
            let reason = control.cause_of(reason);
            control.stop(reason);
            return error_response(reason, Some(observer), guard);
        }
        Ok(Prefetched {
            data,
            trailers,
            complete: true,
        }) => {
            observer.succeed();
            let names = trailers.as_ref().filter(|_| named);
            if let Some(names) = names.and_then(headers::trailer_names) {
                head.headers.insert(TRAILER, names);
            }
            ResponseBody::Buffered {
                bytes: Some(data),
                trailers,
                observer: Some(observer),
                _guard: guard,
            }
        }
        Ok(part) => {
            // the trailers are not known yet, so the guest's announcement is passed on
            if let Some(names) = announced {
                head.headers.insert(TRAILER, names);
            }
            control.set_streaming();
            let rest = GuestBody::new(body, control, observer, framing, guard);
            ResponseBody::Streaming(Box::new(rest.with_prefix(part.data, part.trailers)))
        }
    };
    Response::from_parts(head, body)
}

/// Resets a stream of HTTP/2 whose client stops reading. The window of the stream is closed then, so neither
/// the socket nor the guest, which may have ended already, detects it.
pub(super) async fn reset_stalled_stream(
    progress: Arc<StreamProgress>,
    stream: StreamReset,
    timeout: Duration,
) {
    loop {
        let before = progress.chunks();
        // a task for each response that has ended would keep what belonged to it
        if tokio::time::timeout(timeout, progress.finished())
            .await
            .is_ok()
        {
            return;
        }
        match progress.state() {
            StreamState::Finished => return,
            StreamState::WaitingForGuest => {}
            StreamState::WaitingForClient if progress.chunks() == before => return stream.reset(),
            StreamState::WaitingForClient => {}
        }
    }
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use hyper::rt::Executor;
    use tokio::sync::oneshot;

    use super::*;
    use crate::connection::StreamExecutor;

    /// A node with many short streams would keep each of them until the client might have stalled.
    #[tokio::test]
    async fn nothing_is_kept_of_a_stream_that_has_ended() {
        let (sender, stream) = oneshot::channel();
        StreamExecutor.execute(async move {
            let _ = sender.send(StreamReset::current());
        });
        let stream = stream.await.unwrap().unwrap();
        let progress = Arc::new(StreamProgress::default());
        let timeout = Duration::from_secs(3_600);
        let watch = tokio::spawn(reset_stalled_stream(progress.clone(), stream, timeout));
        progress.set(StreamState::WaitingForClient);
        progress.set(StreamState::Finished);
        watch.await.unwrap();
    }
}
