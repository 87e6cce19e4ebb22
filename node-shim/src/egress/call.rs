//! Calls of other functions. No name is resolved, and no address is checked: the node serves the call itself or passes it
//! on to a node of the called function.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response, Version};
use http_body_util::BodyExt;
use node_shim_core::call::Hops;
use node_shim_core::egress::{self as rules, DenialReason, EgressOutcome, OutboundTarget};
use node_shim_core::table::FunctionKey;
use node_shim_core::trace::TraceContext;
use tokio::time::Instant;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::admission::{Exchange, OutboundContext};
use super::download::{Lease, ResponseStream};
use super::failure::Failure;
use super::send::{Ended, declared_length, within};
use super::upload::RequestStream;
use crate::body::ResponseBody;
use crate::shim_response::Unserved;
use crate::traces::SpanParent;

/// What a request of a function passes on to the requests that the function sends. Clones are cheap.
#[derive(Clone)]
pub(crate) struct RequestOrigin {
    /// Number of calls and outbound requests that led to the request.
    pub(crate) hops: Hops,
    /// When the request has to end.
    pub(crate) deadline: Instant,
    pub(crate) trace: TraceContext,
    /// Parent of the spans of these requests; `None` when the request is not recorded.
    pub(crate) span: Option<SpanParent>,
}

/// A call of a function.
pub(crate) struct FunctionCall {
    pub(crate) caller: FunctionKey,
    pub(crate) function: FunctionKey,
    /// Number of calls and outbound requests that led to this one, itself included.
    pub(crate) hops: Hops,
    /// When the caller has to end.
    pub(crate) deadline: Instant,
    /// Id of the caller's request.
    pub(crate) request_id: String,
    /// Span of the call, if the caller's request is recorded. What the caller itself writes into `traceparent` has no effect
    /// on that.
    pub(crate) traced: Option<TraceContext>,
}

/// Why no function received a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallRefusal {
    /// There is no such function in the namespace of the caller.
    Absent,
    /// The function is in another namespace, and it does not name the caller, or there is none. A caller must not learn
    /// which of both holds.
    NotGranted,
    /// The function is placed on other nodes, and none of them has served the call.
    Unserved(Unserved),
}

/// The functions that those of this node can call.
pub(crate) trait CallableFunctions: Send + Sync {
    /// Calls a function, if it admits the caller at this moment. Dropping the future or the response ends the called guest.
    fn call(
        self: Arc<Self>,
        call: FunctionCall,
        request: Request<WasiBody>,
    ) -> BoxFuture<'static, Result<Response<ResponseBody>, CallRefusal>>;
}

/// Calls the function and waits for the head of its response. The called function has its own limit for that; the caller
/// may choose a shorter one.
pub(super) async fn call(
    context: &OutboundContext,
    function: FunctionKey,
    exchange: Exchange,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Response<WasiBody>, Ended> {
    let Exchange {
        scope,
        target,
        places,
        traced,
    } = exchange;
    let (mut parts, body) = request.into_parts();
    let invalid = |_| Failure::new(EgressOutcome::Broken, Error::HttpRequestUriInvalid);
    parts.uri = target.absolute().map_err(invalid)?;
    // its messages have no framing of their own, as those of HTTP/2
    parts.version = Version::HTTP_2;
    rules::rewrite_request(&mut parts.headers, &target.authority(), true);
    let trace = traced.as_ref().unwrap_or(&context.origin.trace);
    trace.propagate(&mut parts.headers);
    let (stream, upload) = RequestStream::new(body, scope, declared_length(&parts.headers));
    let request = Request::from_parts(parts, stream.boxed_unsync());
    let call = FunctionCall {
        caller: context.revision.function().clone(),
        function: function.clone(),
        hops: context.origin.hops.next(),
        deadline: context.origin.deadline,
        request_id: context.log.request_id().to_owned(),
        traced,
    };
    let responds = Arc::clone(&context.functions).call(call, request);
    let first_byte = options.first_byte_timeout.unwrap_or(Duration::MAX);
    let response = within(first_byte, responds, &upload)
        .await
        .ok_or_else(|| Failure::new(EgressOutcome::Timeout, Error::HttpResponseTimeout))?
        .map_err(|refusal| refused(context, &target, &function, refusal))?;
    let (mut parts, body) = response.into_parts();
    rules::rewrite_response(&mut parts.headers);
    let body = body.map_err(|_| Error::HttpResponseIncomplete);
    let idle = context.idle(&options);
    let body = ResponseStream::new(body, Lease::of_call(places), idle).boxed_unsync();
    Ok(Response::from_parts(parts, body))
}

/// Logs a call that no function received, with what would allow it. One into another namespace is a denial, and says nothing
/// about the functions of that namespace.
fn refused(
    context: &OutboundContext,
    target: &OutboundTarget,
    function: &FunctionKey,
    refusal: CallRefusal,
) -> Ended {
    match refusal {
        CallRefusal::Absent => {
            let message = format!(
                "call of {function} refused: there is no such function, or this node has not received it yet"
            );
            context.log.denial(&message, std::time::Instant::now());
            Failure::new(EgressOutcome::Connect, Error::ConnectionRefused).into()
        }
        CallRefusal::NotGranted => {
            let caller = context.revision.function();
            context.deny(
                DenialReason::NotGranted,
                format!(
                    "outbound request to {target} denied: no function {function} names {caller} as a caller; to allow it, \
                     add callers: [{{namespace: \"{}\", name: \"{}\"}}] to the spec of {function}",
                    caller.namespace, caller.name
                ),
            );
            Ended::Denied(Error::HttpRequestDenied)
        }
        CallRefusal::Unserved(reason) => {
            let message = format!("call of {function} failed: {}", explained(reason));
            context.log.denial(&message, std::time::Instant::now());
            failure_of(reason).into()
        }
    }
}

/// Returns what the caller receives when no node has served its call.
const fn failure_of(reason: Unserved) -> Failure {
    match reason {
        Unserved::NotPlaced | Unserved::NotHere | Unserved::NotGranted | Unserved::Unreachable => {
            Failure::new(EgressOutcome::Connect, Error::DestinationUnavailable)
        }
        Unserved::ForwardFailed => Failure::new(EgressOutcome::Broken, Error::ConnectionTerminated),
        Unserved::Overloaded => Failure::new(EgressOutcome::Connect, Error::ConnectionLimitReached),
    }
}

const fn explained(reason: Unserved) -> &'static str {
    match reason {
        Unserved::NotPlaced => "no node matches its spec.placement",
        Unserved::NotHere | Unserved::NotGranted => {
            "the nodes on which it is placed do not have it yet"
        }
        Unserved::Unreachable => "none of the nodes on which it is placed can be reached",
        Unserved::ForwardFailed => "the exchange with the node that it is placed on broke",
        Unserved::Overloaded => "too many requests are being passed on to other nodes",
    }
}
