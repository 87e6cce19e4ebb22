//! One request from its parsed head to the start of its answer: gate, route, pick, admit, run.

mod admission;
mod answer;
mod early;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Uri, Version};
use hyper::body::Incoming;
use node_shim_core::gate::{Passed, Rejection};
use node_shim_core::headers::{self, Rewritten};
use node_shim_core::outcome::{Reason, Start};
use tokio::sync::oneshot;

use crate::body::{Framing, RequestBody, ResponseBody};
use crate::conn::{Conn, InExchange};
use crate::guest_log::{Sink, Told};
use crate::plane::{Phase, Plane};
use crate::reply;
use crate::run::{Call, Control, Ending, Running};
use admission::{Admitted, Refused, admit};
use answer::{Answer, Asked, content_length, failed, judge_head, send, watch_reader};

/// Answers one request.
pub(crate) async fn handle(
    plane: Arc<Plane>,
    conn: Arc<Conn>,
    request: Request<Incoming>,
) -> Answer {
    let began = Instant::now();
    let exchange = conn.begin();
    let version = request.version();
    let (parts, body) = request.into_parts();
    let admitted = if conn.take_fragment() {
        Err(Refused::Gate(Rejection::BadPath))
    } else {
        admit(&plane, &parts, began).await
    };
    let mut answer = match admitted {
        Ok(admitted) => serve(&plane, &conn, admitted, parts, body, exchange).await,
        Err(Refused::Gate(rejection)) => {
            plane.node.rejected(rejection);
            reply::rejected(rejection, exchange)
        }
        Err(Refused::NoRoute) => reply::no_route(exchange),
        Err(Refused::Probe) => reply::ready(plane.is_ready(), exchange),
        Err(Refused::Failed(reason, observer)) => failed(reason, observer, exchange),
    };
    let last =
        plane.phase() != Phase::Serving || conn.begun() >= plane.options.connections.requests;
    if last && version < Version::HTTP_2 {
        reply::close(&mut answer);
    }
    answer
}

async fn serve(
    plane: &Arc<Plane>,
    conn: &Arc<Conn>,
    admitted: Admitted,
    mut parts: Parts,
    body: Incoming,
    exchange: InExchange,
) -> Answer {
    let Admitted {
        passed,
        revision,
        code,
        rewritten,
        mut observer,
        start,
        permit,
        slot,
    } = admitted;
    let asked = Asked::of(&parts);
    let limits = &revision.spec.limits;
    let control = Control::new(limits.cpu);
    let (idle, limit) = (limits.idle, limits.request_body);
    let told = prepare(plane, conn, &passed, rewritten, &mut parts);
    let scheme = if told.https {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    let body = RequestBody::new(body, control.clone(), limit, idle);
    let (head, answered) = oneshot::channel();
    let cold = start == Start::Cold;
    let names = Told {
        request_id: told.request_id,
        trace_id: trace_of(&parts),
    };
    let log = Sink::new(plane.log.clone(), revision.clone(), names, cold);
    let request = Request::from_parts(parts, body);
    let engine = plane.engine.clone();
    let mut guest = Running::new(
        Call {
            engine,
            revision,
            code,
            request,
            scheme,
            control: control.clone(),
            log,
            head,
            permit,
            slot,
        },
        &plane.guests,
    );
    let answer = match guest.until(answered).await {
        Ok(Ok(answer)) => judge_head(&control, answer),
        Ok(Err(_code)) => Err(Reason::ErrorCode),
        Err(_) => Err(ended(&control).await.failure.unwrap_or(Reason::NoResponse)),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(reason) => {
            let reason = control.client_fault().unwrap_or(reason);
            control.stop(reason);
            guest.detach();
            return failed(reason, Some(observer), exchange);
        }
    };
    observer.head(answer.status().as_u16());
    let reset = (asked.version == Version::HTTP_10).then(|| conn.reset.clone());
    let length = content_length(answer.headers());
    let framing = Framing {
        length,
        trailers: asked.takes_trailers(length),
        reset,
        idle,
    };
    let sent = send(
        plane, answer, guest, &asked, control, observer, framing, exchange,
    )
    .await;
    if let (ResponseBody::Guest(body), Version::HTTP_2) = (sent.body(), asked.version) {
        plane.guests.spawn(watch_reader(
            body.pace(),
            conn.clone(),
            plane.options.connections.write,
        ));
    }
    sent
}

/// Brings the head into the form the guest sees.
fn prepare(
    plane: &Plane,
    conn: &Conn,
    passed: &Passed,
    rewritten: Option<String>,
    parts: &mut Parts,
) -> Rewritten {
    if let Some(path) = rewritten {
        rewrite_path(&mut parts.uri, &path);
    }
    let context = headers::Context {
        peer: conn.peer,
        trusted: plane.options.trusts(conn.peer),
        tls: false,
        authority: &passed.authority,
        fresh_id: fastrand::u128(..),
    };
    headers::rewrite_request(&mut parts.headers, context)
}

/// The trace's id, as W3C trace context writes it; strangers' were removed.
fn trace_of(parts: &Parts) -> Option<String> {
    let parent = parts.headers.get("traceparent")?.to_str().ok()?;
    let id = parent.split('-').nth(1)?;
    let hex = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    hex.then(|| id.to_owned())
}

fn rewrite_path(uri: &mut Uri, path: &str) {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = std::mem::take(uri).into_parts();
    // both came from a target that was valid
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Waits until the guest has ended.
async fn ended(control: &Control) -> Ending {
    poll_fn(|cx| {
        control.register_watcher(cx.waker());
        control.ending().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
