//! Request handler: validates and routes a request, picks a revision, acquires permits, runs the guest
//! and starts the response.

mod admission;
mod call;
mod forward;
mod origin;
mod prefetch;
mod response;
mod turn;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use node_shim_core::call::WallClock;
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::headers::{self, Rewritten};
use node_shim_core::request_labels::StartKind;
use node_shim_core::validation::{Rejection, ValidatedHead};
use tokio::sync::oneshot;

use crate::body::{
    BodyFraming, BodySource, InboundBody, RequestBody, ResponseBody, UnreadBody, abandon,
    unread_bytes,
};
use crate::connection::{Connection, RequestGuard, StreamReset};
use crate::data_plane::{DataPlanePhase, DataPlaneState, EventLoop};
use crate::egress::{FunctionCall, OutboundContext, RequestOrigin};
use crate::guest_log::{LogContext, RequestLog};
use crate::instance::{Deadline, GuestCall, GuestControl, GuestEnd, GuestHead, RunningGuest};
use crate::observer::RequestObserver;
use crate::open_request::{self, OpenRequest};
use crate::server_timing::ServerTiming;
use crate::shim_response::{self, Unserved};
use crate::traces::GuestSpan;
use admission::{Admitted, NotAdmitted, admit};
use forward::Forwarding;
use origin::{Arrival, Origin, Via};
use response::{
    HttpResponse, ResponseFraming, check_head, content_length, error_response,
    reset_stalled_stream, send,
};

/// Sender of a request that this node serves or passes on.
enum Sender<'a> {
    Client(&'a Arc<Connection>, Origin),
    /// A function on this node, or on another one that has passed the call on.
    Function(&'a FunctionCall),
}

/// Handles the request of a client.
///
/// # Errors
/// Returns the error that resets the stream of a malformed HTTP/2 request.
pub(crate) async fn handle(
    event_loop: Arc<EventLoop>,
    conn: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<HttpResponse, h2::Error> {
    let plane = &event_loop.plane;
    let began = Instant::now();
    let guard = conn.begin_request();
    let version = request.version();
    let (mut parts, body) = request.into_parts();
    let origin = match Arrival::of(plane, &conn, &parts) {
        Arrival::Client(origin) => origin,
        Arrival::Call(passed_on) => {
            let source = BodySource {
                conn: conn.clone(),
                version,
                continues: false,
            };
            // boxed, so that requests of clients need no memory for it
            let served =
                call::serve_passed_on(&event_loop, passed_on, parts, body, source, guard, began);
            return Ok(Box::pin(served).await);
        }
    };
    let mut open = open(plane, origin, &parts, began);
    if starts_with_query(&parts.uri) {
        if version == Version::HTTP_2 {
            return Err(h2::Reason::PROTOCOL_ERROR.into());
        }
        rewrite_path(&mut parts.uri, "/");
    }
    headers::join_cookies(&mut parts.headers);
    let source = BodySource {
        conn: conn.clone(),
        version,
        continues: version == Version::HTTP_11 && parts.headers.contains_key(EXPECT),
    };
    let admitted = if conn.take_fragment() {
        Err(NotAdmitted::Invalid(Rejection::BadPath))
    } else {
        admit(plane, &conn, origin, &parts, began, &mut open).await
    };
    let mut answer = match admitted {
        Ok(admitted) => {
            let sender = Sender::Client(&conn, origin);
            let body = InboundBody::Client(body, source);
            serve(&event_loop, &sender, admitted, parts, body, Some(guard)).await
        }
        Err(NotAdmitted::Elsewhere(nodes)) => {
            let forwarding = Forwarding {
                plane,
                sender: &Sender::Client(&conn, origin),
                nodes,
            };
            let body = InboundBody::Client(body, source);
            // boxed, so that requests that are served here need no memory for it
            let answer = Box::pin(forwarding.run(&conn, parts, body, guard)).await;
            report_unserved(open, &answer);
            answer
        }
        Err(refused) => {
            let mut answer = refuse(plane, refused, Some(guard), open);
            abandon_body(&mut answer, body, &source);
            answer
        }
    };
    let last = plane.phase() != DataPlanePhase::Serving
        || conn.is_retired()
        || conn.requests_started() >= plane.options.connections.max_requests;
    if last && version < Version::HTTP_2 {
        shim_response::close(&mut answer);
    }
    if version < Version::HTTP_11 {
        announce_persistence(&mut answer);
    }
    Ok(answer)
}

/// Returns the request, if it is reported on its own.
fn open(
    plane: &DataPlaneState,
    origin: Origin,
    parts: &Parts,
    began: Instant,
) -> Option<Box<OpenRequest>> {
    let sender = open_request::Sender {
        peer: origin.peer,
        https: origin.https,
        trusts: &|address| plane.options.trusts(address),
    };
    plane.reports.as_ref()?.open(sender, parts, began)
}

/// Returns the response to a request that no guest serves.
fn refuse(
    plane: &DataPlaneState,
    refused: NotAdmitted,
    guard: Option<RequestGuard>,
    mut open: Option<Box<OpenRequest>>,
) -> HttpResponse {
    let answer = match refused {
        NotAdmitted::Invalid(rejection) => {
            plane.node_counters.rejected(rejection);
            shim_response::rejected(rejection, guard)
        }
        NotAdmitted::NoRoute => shim_response::no_route(guard),
        NotAdmitted::NoRevision => shim_response::no_revision(guard),
        NotAdmitted::Unserved(reason) => {
            if matches!(reason, Unserved::NotHere | Unserved::NotGranted) {
                // the node that passed the request on reports it, unless another node serves it
                open = None;
            }
            shim_response::unserved(reason, guard)
        }
        // requests of clients and calls are passed on before, and no other request leads to this
        NotAdmitted::Elsewhere(_) => shim_response::no_route(guard),
        NotAdmitted::Probe => {
            if let Some(open) = &mut open {
                open.exclude_probe();
            }
            shim_response::ready(plane.is_ready(), guard)
        }
        NotAdmitted::Failed(reason, mut observer) => {
            if let Some(observer) = &mut observer {
                observer.report_at_end(open.take());
            }
            error_response(reason, observer, guard)
        }
    };
    if let Some(open) = open {
        report_refused(open, &answer);
    }
    answer
}

fn report_refused(open: Box<OpenRequest>, answer: &HttpResponse) {
    let error = answer.headers().get(shim_response::ERROR);
    let error = error.and_then(|value| value.to_str().ok());
    open.refused(answer.status().as_u16(), error);
}

/// Reports a request that was to be passed on and that no node has served. Otherwise the other node reports it.
fn report_unserved(open: Option<Box<OpenRequest>>, answer: &HttpResponse) {
    let unserved = !matches!(answer.body(), ResponseBody::Forwarded(_))
        && answer.headers().contains_key(shim_response::ERROR);
    if let Some(open) = open.filter(|_| unserved) {
        report_refused(open, answer);
    }
}

/// Takes over the body of a request that no guest serves.
fn abandon_body(answer: &mut HttpResponse, body: Incoming, source: &BodySource) {
    let mut unread = UnreadBody::of(source.version, unread_bytes(&body, source.continues));
    if unread != UnreadBody::None {
        if answer.headers().contains_key(CONNECTION) {
            unread = UnreadBody::Closes;
        } else if unread == UnreadBody::Closes {
            shim_response::close(answer);
        }
    }
    abandon(body, &source.conn, unread);
}

/// Makes a response to an HTTP/1.0 request announce whether the connection persists. hyper announces it
/// whenever the client asks for it, unless the response itself has the version 1.0.
fn announce_persistence(answer: &mut HttpResponse) {
    let delimited = answer.body().size_hint().exact().is_some();
    if !delimited {
        shim_response::close(answer);
    }
    if answer.headers().contains_key(CONNECTION) {
        *answer.version_mut() = Version::HTTP_10;
    }
}

/// A guest that was started for a request.
struct StartedGuest {
    guest: RunningGuest,
    control: Arc<GuestControl>,
    /// Resolves when the guest responds.
    head: oneshot::Receiver<GuestHead>,
    observer: RequestObserver,
}

/// Runs the guest on the event loop and starts its response.
async fn serve(
    event_loop: &Arc<EventLoop>,
    sender: &Sender<'_>,
    admitted: Admitted,
    parts: Parts,
    body: InboundBody,
    guard: Option<RequestGuard>,
) -> HttpResponse {
    let plane = &event_loop.plane;
    let mut response_framing = ResponseFraming::of(&parts);
    if let Sender::Client(_, origin) = sender {
        response_framing.names_trailers |= matches!(origin.via, Via::Node { .. });
    }
    let timing = plane.server_timing(sender, &admitted);
    let has_stream = guard.is_some();
    let idle = admitted.revision.spec.limits.idle;
    let StartedGuest {
        mut guest,
        control,
        head,
        mut observer,
    } = start_guest(event_loop, sender, admitted, parts, body);
    let answer = match guest.run_until(head).await {
        Ok(Ok(answer)) => check_head(&control, answer),
        Ok(Err(_code)) => Err(FailureReason::ErrorCode),
        Err(_) => Err(guest_end(&control)
            .await
            .failure
            .unwrap_or(FailureReason::NoResponse)),
    };
    let mut answer = match answer {
        Ok(answer) => {
            observer.head(answer.status().as_u16());
            let reset = match sender {
                Sender::Client(conn, _) if response_framing.version == Version::HTTP_10 => {
                    Some(conn.reset.clone())
                }
                _ => None,
            };
            let length = content_length(answer.headers());
            let framing = BodyFraming {
                length,
                trailers: response_framing.allows_trailers(length),
                reset,
                idle,
            };
            send(
                plane,
                answer,
                guest,
                &response_framing,
                control.clone(),
                observer,
                framing,
                guard,
            )
            .await
        }
        Err(reason) => {
            let reason = control.cause_of(reason);
            control.stop(reason);
            guest.detach();
            error_response(reason, Some(observer), guard)
        }
    };
    if matches!(answer.body(), ResponseBody::Buffered { .. }) {
        turn::wait_to_write(event_loop, sender, &control).await;
    }
    if let Some(timing) = timing {
        timing.write(answer.headers_mut());
    }
    if control.unread() == UnreadBody::Closes {
        shim_response::close(&mut answer);
    }
    // the guest of a caller on this node may be polled by the task of its client's stream
    if has_stream
        && let (ResponseBody::Streaming(body), Some(stream)) =
            (answer.body(), StreamReset::current())
    {
        plane.guests.spawn(reset_stalled_stream(
            body.progress(),
            stream,
            plane.options.connections.write_stall,
        ));
    }
    answer
}

impl DataPlaneState {
    /// Returns the times of the request of a client, if the response has them.
    fn server_timing(&self, sender: &Sender<'_>, admitted: &Admitted) -> Option<ServerTiming> {
        let shown = self.options.server_timing && matches!(sender, Sender::Client(..));
        shown.then(|| ServerTiming::new(admitted.observer.began(), admitted.start))
    }
}

fn start_guest(
    event_loop: &Arc<EventLoop>,
    sender: &Sender<'_>,
    admitted: Admitted,
    mut parts: Parts,
    body: InboundBody,
) -> StartedGuest {
    let plane = &event_loop.plane;
    let Admitted {
        passed,
        hops,
        revision,
        instance,
        rewritten,
        mut observer,
        start,
        permit,
    } = admitted;
    let limits = &revision.spec.limits;
    let control = GuestControl::new(limits.cpu, plane.stop_flag.clone());
    let (idle, limit) = (limits.idle, limits.request_body);
    let deadline = deadline(sender, limits.timeout);
    let open = observer.open_request();
    let trace_id = open.as_ref().and_then(|open| open.trace_id());
    let mut forwarding = rewrite_head(plane, sender, &passed, rewritten, trace_id, &mut parts);
    let total = open.as_ref().map(|open| open.received());
    let headers = &mut parts.headers;
    let span = open.and_then(|open| open.start_guest(&mut forwarding, headers, &revision, start));
    let scheme = if forwarding.https {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    let body = RequestBody::new(body, control.clone(), limit, idle).counted(total);
    let (responds, head) = oneshot::channel();
    let cold = start == StartKind::Cold;
    let names = LogContext {
        request_id: forwarding.request_id,
        trace_id: forwarding.trace.trace_id().to_owned(),
    };
    let log = RequestLog::new(plane.log.clone(), revision.clone(), names, cold);
    // a revision without stores does not touch what all requests share
    let stores = !revision.spec.key_value.is_empty();
    let outbound = OutboundContext {
        client: plane.egress.clone(),
        functions: event_loop.clone(),
        revision: revision.clone(),
        log: log.clone(),
        origin: RequestOrigin {
            hops,
            deadline: deadline.at,
            trace: forwarding.trace,
            span: span.as_ref().map(GuestSpan::parent),
        },
    };
    let guest = RunningGuest::new(
        GuestCall {
            key_value: stores.then(|| plane.key_value.clone()),
            revision,
            instance,
            request: Request::from_parts(parts, body),
            scheme,
            control: control.clone(),
            deadline,
            log,
            head: responds,
            permit,
            outbound,
            preempted: event_loop.preempted.clone(),
            idle: plane.idle.clone(),
            counters: plane.node_counters.clone(),
            span,
        },
        &plane.guests,
    );
    StartedGuest {
        guest,
        control,
        head,
        observer,
    }
}

/// Returns when a guest that starts now has to end.
fn deadline(sender: &Sender<'_>, own: Duration) -> Deadline {
    let now = tokio::time::Instant::now();
    let caller = match sender {
        Sender::Client(..) => None,
        Sender::Function(call) => Some(call.deadline.saturating_duration_since(now)),
    };
    let WallClock { limit, reason } = WallClock::new(own, caller);
    Deadline {
        at: now + limit,
        reason,
    }
}

/// Rewrites the request head for the guest. `trace_id` is the id of a trace that the node records.
fn rewrite_head(
    plane: &DataPlaneState,
    sender: &Sender<'_>,
    passed: &ValidatedHead,
    rewritten: Option<String>,
    trace_id: Option<u128>,
    parts: &mut Parts,
) -> Rewritten {
    if let Some(path) = rewritten {
        rewrite_path(&mut parts.uri, &path);
    }
    let origin = match sender {
        Sender::Client(_, origin) => origin,
        Sender::Function(call) => {
            let id = &call.request_id;
            return headers::rewrite_call(&mut parts.headers, &passed.authority, id);
        }
    };
    let context = headers::ForwardingContext {
        peer: origin.peer,
        trusted: plane.options.trusts(origin.peer),
        tls: origin.https,
        authority: &passed.authority,
        generated_id: trace_id.unwrap_or_else(|| fastrand::u128(..)),
        generated_span: fastrand::u64(..),
    };
    headers::rewrite_request(&mut parts.headers, context)
}

/// Returns whether the target consists of a query only, as in `http://h.example?x=1`.
fn starts_with_query(uri: &Uri) -> bool {
    uri.path_and_query()
        .is_some_and(|target| target.as_str().starts_with('?'))
}

fn rewrite_path(uri: &mut Uri, path: &str) {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = std::mem::take(uri).into_parts();
    // path and query are valid, because they come from a valid target
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Waits for the end of the guest.
async fn guest_end(control: &GuestControl) -> GuestEnd {
    poll_fn(|cx| {
        control.register_watcher(cx.waker());
        control.guest_end().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
