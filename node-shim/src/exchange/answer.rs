//! From a guest's head, or its failure, to what the client is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRAILER};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use node_shim_core::headers;
use node_shim_core::outcome::{Reason, Reply};
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::body::{Framing, GuestBody, Pace, PaceState, ResponseBody};
use crate::conn::{Conn, InExchange};
use crate::observer::Observer;
use crate::plane::Plane;
use crate::reply;
use crate::run::{Control, Ending};

pub(super) type Answer = Response<ResponseBody>;

/// What of the request decides how the answer is framed.
pub(super) struct Asked {
    pub(super) version: Version,
    head_only: bool,
    trailers: bool,
}

impl Asked {
    pub(super) fn of(parts: &Parts) -> Self {
        Self {
            version: parts.version,
            head_only: parts.method == Method::HEAD,
            trailers: match parts.version {
                Version::HTTP_2 => true,
                Version::HTTP_11 => headers::takes_trailers(&parts.headers),
                _ => false,
            },
        }
    }

    /// Whether trailers can reach the client behind a body with this declared length: on HTTP/1.1
    /// only a chunked one has room for them.
    pub(super) fn takes_trailers(&self, length: Option<u64>) -> bool {
        self.trailers && (self.version == Version::HTTP_2 || length.is_none())
    }
}

pub(super) fn failed(reason: Reason, observer: Option<Observer>, exchange: InExchange) -> Answer {
    let mut observer = observer;
    if let Some(observer) = &mut observer {
        observer.fail(reason);
    }
    // whoever left is not told anything; the connection is gone with them
    let reply = reason.reply().or_else(|| Reason::Cancelled.reply());
    let reply = reply.unwrap_or(Reply {
        status: 503,
        error: "host_error",
        retry_after: None,
    });
    let mut answer = reply::build(reply, observer, exchange);
    if matches!(reason, Reason::BodyTooLarge | Reason::BodySlow) {
        reply::close(&mut answer);
    }
    answer
}

/// Whether the guest's head may go out.
pub(super) fn judge_head(
    control: &Control,
    answer: Response<HyperOutgoingBody>,
) -> Result<Response<HyperOutgoingBody>, Reason> {
    if let Some(reason) = control.client_fault() {
        return Err(reason);
    }
    // nothing is on the wire yet, so a guest that has failed by now is answered for
    if let Some(Ending {
        failure: Some(reason),
        ..
    }) = control.ending()
    {
        return Err(reason);
    }
    if !(200..600).contains(&answer.status().as_u16()) {
        return Err(Reason::BadHead);
    }
    if answer.headers().get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err(Reason::BadHead);
    }
    Ok(answer)
}

pub(super) fn send(
    plane: &Plane,
    answer: Response<HyperOutgoingBody>,
    asked: &Asked,
    control: Arc<Control>,
    mut observer: Observer,
    framing: Framing,
    exchange: InExchange,
) -> Answer {
    let (mut head, mut body) = answer.into_parts();
    // on HTTP/1.1 hyper sends the trailers that the head names
    let named = framing.trailers && asked.version == Version::HTTP_11;
    let announced = named
        .then(|| headers::announced_trailers(&head.headers))
        .flatten();
    headers::rewrite_response(&mut head.headers);
    let bodiless = asked.head_only
        || matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    if bodiless {
        if !asked.head_only {
            head.headers.remove(CONTENT_LENGTH);
        }
        // the guest writes on for nobody; its length is not measured against the promise
        let framing = Framing {
            length: None,
            ..framing
        };
        let unread = GuestBody::new(body, control, observer, framing, exchange.again());
        plane.guests.spawn(unread.discard());
        let body = ResponseBody::Whole {
            bytes: None,
            trailers: None,
            observer: None,
            _exchange: exchange,
        };
        return Response::from_parts(head, body);
    }
    if let Some(bytes) = whole(&mut body, &control, &framing) {
        match bytes {
            Ok((bytes, trailers)) => {
                observer.succeed();
                let names = trailers.as_ref().filter(|_| named);
                if let Some(names) = names.and_then(headers::trailer_names) {
                    head.headers.insert(TRAILER, names);
                }
                let body = ResponseBody::Whole {
                    bytes: Some(bytes),
                    trailers,
                    observer: Some(observer),
                    _exchange: exchange,
                };
                return Response::from_parts(head, body);
            }
            Err(reason) => {
                control.stop(reason);
                return failed(reason, Some(observer), exchange);
            }
        }
    }
    // what a guest will send is not known yet: what it says beforehand is
    if let Some(names) = announced {
        head.headers.insert(TRAILER, names);
    }
    let body = GuestBody::new(body, control, observer, framing, exchange);
    Response::from_parts(head, ResponseBody::Guest(Box::new(body)))
}

/// The whole body, when the guest has ended well and all of it is here already: most answers. It is
/// then sent with its length. An `Err` is a broken promise, noticed before anything was sent.
fn whole(
    body: &mut HyperOutgoingBody,
    control: &Control,
    framing: &Framing,
) -> Option<Result<(Bytes, Option<HeaderMap>), Reason>> {
    let ending = control.ending()?;
    if ending.unfinished || ending.failure.is_some() {
        return Some(Err(ending.failure.unwrap_or(Reason::Unfinished)));
    }
    let (mut all, mut trailers) = (Bytes::new(), None);
    loop {
        match next_frame(body) {
            // the guest has ended, so whatever comes is here
            Poll::Pending => return Some(Err(Reason::Unfinished)),
            Poll::Ready(Some(Err(_))) => return Some(Err(Reason::BadLength)),
            Poll::Ready(None) => break,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if all.is_empty() => all = data,
                Ok(data) => {
                    let mut joined = BytesMut::from(all);
                    joined.extend_from_slice(&data);
                    all = joined.freeze();
                }
                Err(frame) => trailers = frame.into_trailers().ok().filter(|_| framing.trailers),
            },
        }
    }
    if let Some(trailers) = &mut trailers {
        headers::filter_trailers(trailers);
    }
    let trailers = trailers.filter(|trailers| !trailers.is_empty());
    match framing.length {
        Some(length) if length != all.len() as u64 => Some(Err(Reason::BadLength)),
        _ => Some(Ok((all, trailers))),
    }
}

/// What is there now. The runtime makes tasks that did much look as if nothing were there, which
/// here would be taken for the truth: so its budget is not asked.
fn next_frame(body: &mut HyperOutgoingBody) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
    let mut next = tokio::task::coop::unconstrained(body.frame());
    Pin::new(&mut next).poll(&mut Context::from_waker(Waker::noop()))
}

/// Cuts a connection whose client leaves a stream standing: its window is closed, so neither the
/// socket nor the guest, which may have ended long ago, can notice.
pub(super) async fn watch_reader(pace: Arc<Pace>, conn: Arc<Conn>, patience: Duration) {
    loop {
        let before = pace.handed();
        tokio::time::sleep(patience).await;
        match pace.state() {
            PaceState::Over => return,
            PaceState::Asking => {}
            PaceState::Handed if pace.handed() == before => return conn.cut_now(),
            PaceState::Handed => {}
        }
    }
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
