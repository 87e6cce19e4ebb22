//! Calls between functions. A call passes through the same steps as the request of a client. On one node there is no
//! connection: the caller's task runs the called guest, and dropping the response or its future ends it. A call of a
//! function that is placed on other nodes is passed on to one of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use node_shim_core::trace::TraceContext;
use wasmtime_wasi_http::WasiBody;

use super::admission::{NotAdmitted, admit_call};
use super::forward::Forwarding;
use super::origin::{PassedOnCall, Via};
use super::{HttpResponse, InboundBody, Sender, abandon_body, refuse, report_refused, serve};
use crate::body::{BodySource, ResponseBody};
use crate::connection::RequestGuard;
use crate::data_plane::EventLoop;
use crate::egress::{CallRefusal, CallableFunctions, FunctionCall};
use crate::shim_response::{self, Unserved};

impl CallableFunctions for EventLoop {
    fn call(
        self: Arc<Self>,
        call: FunctionCall,
        request: Request<WasiBody>,
    ) -> BoxFuture<'static, Result<Response<ResponseBody>, CallRefusal>> {
        async move { respond(&self, &call, request).await }.boxed()
    }
}

/// Serves a call or passes it on, if the function's present record admits the caller.
async fn respond(
    event_loop: &Arc<EventLoop>,
    call: &FunctionCall,
    request: Request<WasiBody>,
) -> Result<HttpResponse, CallRefusal> {
    let began = Instant::now();
    let plane = &event_loop.plane;
    let table = plane.table();
    let called = table.entry_by_key(&call.function);
    if !called.is_some_and(|called| called.may_be_called_by(&call.caller)) {
        return Err(if call.caller.namespace == call.function.namespace {
            CallRefusal::Absent
        } else {
            CallRefusal::NotGranted
        });
    }
    let (parts, body) = request.into_parts();
    let reports = plane.reports.as_ref();
    let mut open =
        reports.and_then(|reports| reports.open_call(call.traced.as_ref(), false, &parts, began));
    let admitted = admit_call(plane, &table, call, Via::Function, &parts, began, &mut open).await;
    // like a request of a client, the call does not keep the table while its guest runs
    drop(table);
    let (sender, body) = (Sender::Function(call), InboundBody::Function(body));
    let answer = match admitted {
        Ok(admitted) => Ok(serve(event_loop, &sender, admitted, parts, body, None).await),
        Err(NotAdmitted::Elsewhere(nodes)) => {
            let forwarding = Forwarding {
                plane,
                sender: &sender,
                nodes,
            };
            // boxed, so that calls that are served here need no memory for it
            Box::pin(forwarding.call(parts, body)).await
        }
        Err(NotAdmitted::Unserved(reason)) => Err(CallRefusal::Unserved(reason)),
        Err(refused) => Ok(refuse(plane, refused, None, open.take())),
    };
    // a call that another node serves is reported there
    if let (Err(CallRefusal::Unserved(reason)), Some(open)) = (&answer, open) {
        report_refused(open, &shim_response::unserved(*reason, None));
    }
    let mut answer = answer?;
    answer.body_mut().delivered();
    Ok(answer)
}

/// Serves a call that another node has passed on, if the function is on this node and its present record admits the caller.
pub(super) async fn serve_passed_on(
    event_loop: &Arc<EventLoop>,
    passed_on: PassedOnCall,
    parts: Parts,
    body: Incoming,
    source: BodySource,
    guard: RequestGuard,
    began: Instant,
) -> HttpResponse {
    let plane = &event_loop.plane;
    let PassedOnCall {
        call,
        function,
        last,
    } = passed_on;
    let call = FunctionCall {
        traced: call.traced.map(|ids| trace_of(ids, &parts)),
        caller: call.caller,
        function,
        hops: call.hops,
        deadline: deadline_in(call.left),
        // the other node has written it
        request_id: String::new(),
    };
    let via = Via::FunctionElsewhere { last };
    let table = plane.table();
    let mut open = None;
    let admitted = match table.by_key(&call.function) {
        None => Err(NotAdmitted::Unserved(Unserved::NotHere)),
        Some(called) if !called.entry.may_be_called_by(&call.caller) => {
            Err(NotAdmitted::Unserved(Unserved::NotGranted))
        }
        Some(_) => {
            let reports = plane.reports.as_ref();
            open = reports
                .and_then(|reports| reports.open_call(call.traced.as_ref(), true, &parts, began));
            admit_call(plane, &table, &call, via, &parts, began, &mut open).await
        }
    };
    drop(table);
    match admitted {
        Ok(admitted) => {
            let (sender, body) = (Sender::Function(&call), InboundBody::Client(body, source));
            serve(event_loop, &sender, admitted, parts, body, Some(guard)).await
        }
        Err(refused) => {
            let mut answer = refuse(plane, refused, Some(guard), open);
            abandon_body(&mut answer, body, &source);
            answer
        }
    }
}

/// Returns the time at which a caller on another node has to end.
fn deadline_in(left: Duration) -> tokio::time::Instant {
    let now = tokio::time::Instant::now();
    now.checked_add(left).unwrap_or(now)
}

/// Returns the trace that the forwarding node records. Its state is known unless the caller has written a trace of its own.
fn trace_of(ids: (u128, u64), parts: &Parts) -> TraceContext {
    let received = TraceContext::received(&parts.headers);
    let same = received.filter(|received| received.ids() == Some(ids));
    same.unwrap_or_else(|| TraceContext::recorded(ids.0, ids.1, None))
}
