//! One request from its parsed head to the start of its answer: gate, route, pick, admit, run.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TE};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use node_shim_core::gate::{self, Passed, Rejection};
use node_shim_core::headers::{self, Rewritten};
use node_shim_core::outcome::{Reason, Start};
use node_shim_core::pick::{Arm, BUCKETS, pick};
use node_shim_core::route;
use tokio::sync::oneshot;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::body::{Framing, GuestBody, Pace, PaceState, RequestBody, ResponseBody};
use crate::conn::{Conn, InExchange};
use crate::guest_log::Sink;
use crate::observer::Observer;
use crate::plane::{Phase, Plane};
use crate::reply;
use crate::revision::Revision;
use crate::run::{self, Call, Control, Ending};
use crate::table::{RoutingTable, Served, Slot};

/// What load balancers ask for.
const READY_PATH: &str = "/.well-known/selvage/ready";
/// How long a request waits for code that is still being loaded; its limits are not known yet.
const LOAD_PATIENCE: Duration = Duration::from_secs(1);

type Answer = Response<ResponseBody>;

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

/// Why a request was answered without a guest.
enum Refused {
    Gate(Rejection),
    NoRoute,
    Probe,
    Failed(Reason, Option<Observer>),
}

/// A request that may run.
struct Admitted {
    passed: Passed,
    revision: Arc<Revision>,
    rewritten: Option<String>,
    observer: Observer,
    start: Start,
    permit: crate::admit::Permit,
    slot: tokio::sync::OwnedSemaphorePermit,
}

/// Gate, route, pick and permits.
async fn admit(plane: &Arc<Plane>, parts: &Parts, began: Instant) -> Result<Admitted, Refused> {
    let head = gate::Head {
        version: parts.version,
        method: &parts.method,
        uri: &parts.uri,
        headers: &parts.headers,
    };
    let passed = gate::check(head).map_err(Refused::Gate)?;
    if parts.uri.path() == READY_PATH {
        return Err(Refused::Probe);
    }
    let table = plane.table();
    let wanted = route::Request {
        host: &passed.host,
        path: parts.uri.path(),
        method: parts.method.as_str(),
        headers: &parts.headers,
    };
    let found = table.index().find(wanted).ok_or(Refused::NoRoute)?;
    let served = table.function(found.function).ok_or(Refused::NoRoute)?;
    if passed.unusual_method && !found.names_method {
        return Err(Refused::Gate(Rejection::MethodUnknown));
    }
    if served.entry.suspended {
        return Err(Refused::Failed(Reason::Suspended, None));
    }
    let (revision, start) = choose(plane, &table, served, began).await?;
    let mut observer = Observer::new(revision.counters.clone(), start, began);
    let limits = &revision.spec.limits;
    if content_length(&parts.headers).is_some_and(|length| length > limits.request_body) {
        observer.fail(Reason::BodyTooLarge);
        plane.node.rejected(Rejection::BodyTooLarge);
        return Err(Refused::Failed(Reason::BodyTooLarge, Some(observer)));
    }
    let permit = match revision
        .permits
        .acquire(limits.queue_length, limits.queue_timeout)
        .await
    {
        Ok(permit) => permit,
        Err(reason) => return Err(Refused::Failed(reason, Some(observer))),
    };
    let Ok(slot) = plane.slots.clone().try_acquire_owned() else {
        return Err(Refused::Failed(Reason::Pool, Some(observer)));
    };
    let rewritten = found.rewritten;
    Ok(Admitted {
        passed,
        revision,
        rewritten,
        observer,
        start,
        permit,
        slot,
    })
}

/// The revision that answers; waits a moment when its code is on its way.
async fn choose(
    plane: &Arc<Plane>,
    table: &RoutingTable,
    served: &Served,
    began: Instant,
) -> Result<(Arc<Revision>, Start), Refused> {
    let bucket = fastrand::u32(..BUCKETS);
    match arm(plane, served, bucket) {
        Slot::Ready(revision) => Ok((revision.clone(), Start::Warm)),
        Slot::Failed(reason) => Err(Refused::Failed(
            *reason,
            unloaded(plane, served, began, Start::Warm),
        )),
        Slot::Absent | Slot::Loading => {
            let waited = wait_for_code(plane, table, served, bucket).await;
            waited
                .map(|revision| (revision, Start::Cold))
                .map_err(|reason| {
                    Refused::Failed(reason, unloaded(plane, served, began, Start::Cold))
                })
        }
    }
}

fn arm<'a>(plane: &Plane, served: &'a Served, bucket: u32) -> &'a Slot {
    let pick = pick(
        &served.entry.share,
        bucket,
        served.candidate.ready().is_some(),
    );
    if pick.fallback {
        plane.node.fell_back();
    }
    match pick.arm {
        Arm::Stable => &served.stable,
        Arm::Candidate => &served.candidate,
    }
}

/// Follows new tables until the function can run. The request keeps its place, not its table: there
/// was nothing in the old one to run.
async fn wait_for_code(
    plane: &Arc<Plane>,
    table: &RoutingTable,
    served: &Served,
    bucket: u32,
) -> Result<Arc<Revision>, Reason> {
    let _place = plane.cold.try_acquire().map_err(|_| Reason::Compile)?;
    let mut published = plane.published();
    let key = &served.entry.key;
    let find = |table: &RoutingTable| {
        let served = table.functions().iter().find(|s| s.entry.key == *key)?;
        match arm(plane, served, bucket) {
            Slot::Ready(revision) => Some(Ok(revision.clone())),
            Slot::Failed(reason) => Some(Err(*reason)),
            Slot::Absent | Slot::Loading => None,
        }
    };
    let wait = async {
        loop {
            let now = plane.table();
            if !std::ptr::eq(&*now, table)
                && let Some(found) = find(&now)
            {
                return found;
            }
            if published.changed().await.is_err() {
                return Err(Reason::Cancelled);
            }
        }
    };
    tokio::time::timeout(LOAD_PATIENCE, wait)
        .await
        .unwrap_or(Err(Reason::Compile))
}

/// An account for a request that met no code: it belongs to the revision that should have answered.
fn unloaded(plane: &Plane, served: &Served, began: Instant, start: Start) -> Option<Observer> {
    let share = &served.entry.share;
    let revision = share.stable.as_ref().or(share.candidate.as_ref())?;
    Some(Observer::new(
        plane.counters.revision(&served.entry.key, revision),
        start,
        began,
    ))
}

fn failed(reason: Reason, observer: Option<Observer>, exchange: InExchange) -> Answer {
    let mut observer = observer;
    if let Some(observer) = &mut observer {
        observer.fail(reason);
    }
    // whoever left is not told anything; the connection is gone with them
    let reply = reason.reply().or_else(|| Reason::Cancelled.reply());
    let reply = reply.unwrap_or(node_shim_core::outcome::Reply {
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

/// Stops the guest when the client leaves before the head: the connection drops the future.
struct StopOnDrop {
    control: Arc<Control>,
    armed: bool,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if self.armed {
            self.control.stop(Reason::ClientGone);
        }
    }
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
    let log = Sink::new(plane.log.clone(), revision.clone(), told.request_id, cold);
    let request = Request::from_parts(parts, body);
    let engine = plane.engine.clone();
    let mut client = StopOnDrop {
        control: control.clone(),
        armed: true,
    };
    plane.guests.spawn(run::run(Call {
        engine,
        revision,
        request,
        scheme,
        control: control.clone(),
        log,
        head,
        permit,
        slot,
    }));
    let answer = match answered.await {
        Ok(Ok(answer)) => judge_head(&control, answer),
        Ok(Err(_code)) => Err(Reason::ErrorCode),
        Err(_) => Err(ended(&control).await.failure.unwrap_or(Reason::NoResponse)),
    };
    client.armed = false;
    let answer = match answer {
        Ok(answer) => answer,
        Err(reason) => {
            let reason = control.client_fault().unwrap_or(reason);
            control.stop(reason);
            return failed(reason, Some(observer), exchange);
        }
    };
    observer.head(answer.status().as_u16());
    let reset = (asked.version == Version::HTTP_10).then(|| conn.reset.clone());
    let framing = Framing {
        length: content_length(answer.headers()),
        trailers: asked.version == Version::HTTP_2 || asked.trailers,
        reset,
        idle,
    };
    let sent = send(plane, answer, &asked, control, observer, framing, exchange);
    if let (ResponseBody::Guest(body), Version::HTTP_2) = (sent.body(), asked.version) {
        plane.guests.spawn(watch_reader(
            body.pace(),
            conn.clone(),
            plane.options.connections.write,
        ));
    }
    sent
}

/// Cuts a connection whose client leaves a stream standing: its window is closed, so neither the
/// socket nor the guest, which may have ended long ago, can notice.
async fn watch_reader(pace: Arc<Pace>, conn: Arc<Conn>, patience: Duration) {
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

/// What of the request decides how the answer is framed.
struct Asked {
    version: Version,
    head_only: bool,
    trailers: bool,
}

impl Asked {
    fn of(parts: &Parts) -> Self {
        Self {
            version: parts.version,
            head_only: parts.method == Method::HEAD,
            trailers: parts
                .headers
                .get(TE)
                .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers")),
        }
    }
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

/// Whether the guest's head may go out.
fn judge_head(
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

/// Waits until the guest has ended.
async fn ended(control: &Control) -> Ending {
    poll_fn(|cx| {
        control.register_watcher(cx.waker());
        control.ending().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

fn send(
    plane: &Plane,
    answer: Response<HyperOutgoingBody>,
    asked: &Asked,
    control: Arc<Control>,
    mut observer: Observer,
    framing: Framing,
    exchange: InExchange,
) -> Answer {
    let (mut head, mut body) = answer.into_parts();
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
            observer: None,
            _exchange: exchange,
        };
        return Response::from_parts(head, body);
    }
    if let Some(bytes) = whole(&mut body, &control, &framing) {
        match bytes {
            Ok(bytes) => {
                observer.succeed();
                let body = ResponseBody::Whole {
                    bytes: Some(bytes),
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
    let body = GuestBody::new(body, control, observer, framing, exchange);
    Response::from_parts(head, ResponseBody::Guest(Box::new(body)))
}

/// The whole body, when the guest has ended well and all of it is here already: most answers. It is
/// then sent with its length. An `Err` is a broken promise, noticed before anything was sent.
fn whole(
    body: &mut HyperOutgoingBody,
    control: &Control,
    framing: &Framing,
) -> Option<Result<Bytes, Reason>> {
    let ending = control.ending()?;
    if ending.unfinished || ending.failure.is_some() {
        return Some(Err(ending.failure.unwrap_or(Reason::Unfinished)));
    }
    let mut cx = Context::from_waker(Waker::noop());
    let mut all: Option<Bytes> = None;
    loop {
        match Pin::new(&mut *body).poll_frame(&mut cx) {
            // the guest has ended, so whatever comes is here
            Poll::Pending => return Some(Err(Reason::Unfinished)),
            Poll::Ready(Some(Err(_))) => return Some(Err(Reason::BadLength)),
            Poll::Ready(None) => break,
            Poll::Ready(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                all = Some(match all {
                    None => data,
                    Some(before) => {
                        let mut joined = BytesMut::from(before);
                        joined.extend_from_slice(&data);
                        joined.freeze()
                    }
                });
            }
        }
    }
    let all = all.unwrap_or_default();
    match framing.length {
        Some(length) if length != all.len() as u64 => Some(Err(Reason::BadLength)),
        _ => Some(Ok(all)),
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
