//! From a guest's head, or its failure, to what the client is sent.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRAILER};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use node_shim_core::headers;
use node_shim_core::outcome::{Reason, Reply};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::body::{Framing, GuestBody, Pace, PaceState, ResponseBody};
use crate::conn::{Conn, InExchange};
use crate::observer::Observer;
use crate::plane::Plane;
use crate::reply;
use crate::run::{Control, Ending, Running};

use super::early::{self, Early};

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

#[allow(
    clippy::too_many_arguments,
    reason = "everything that one answer is made of"
)]
pub(super) async fn send(
    plane: &Plane,
    answer: Response<HyperOutgoingBody>,
    mut guest: Running,
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
        guest.detach();
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
    let early = early::gather(&mut guest, &mut body, &control, &framing).await;
    guest.detach();
    let body = match early {
        Err(reason) => {
            control.stop(reason);
            return failed(reason, Some(observer), exchange);
        }
        Ok(Early {
            data,
            trailers,
            whole: true,
        }) => {
            observer.succeed();
            let names = trailers.as_ref().filter(|_| named);
            if let Some(names) = names.and_then(headers::trailer_names) {
                head.headers.insert(TRAILER, names);
            }
            ResponseBody::Whole {
                bytes: Some(data),
                trailers,
                observer: Some(observer),
                _exchange: exchange,
            }
        }
        Ok(part) => {
            // what a guest will send is not known yet: what it says beforehand is
            if let Some(names) = announced {
                head.headers.insert(TRAILER, names);
            }
            let rest = GuestBody::new(body, control, observer, framing, exchange);
            ResponseBody::Guest(Box::new(rest.after(part.data, part.trailers)))
        }
    };
    Response::from_parts(head, body)
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
