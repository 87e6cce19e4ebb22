//! Responses that the node-shim produces itself. They have no body, a reason from a closed list and no data
//! of tenants.

use http::header::{CACHE_CONTROL, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use node_shim_core::failure_reason::ErrorResponse;
use node_shim_core::validation::Rejection;

use crate::body::ResponseBody;
use crate::connection::RequestGuard;
use crate::observer::RequestObserver;

pub(crate) const ERROR: HeaderName = HeaderName::from_static("selvage-error");

/// Returns the response to a request that matches no route. It does not depend on the request.
pub(crate) fn no_route(guard: Option<RequestGuard>) -> Response<ResponseBody> {
    let reply = ErrorResponse {
        status: 404,
        error: "no_route",
        retry_after: None,
    };
    build(reply, None, guard)
}

/// Returns the response to a request that names a revision which the function does not have on this node.
pub(crate) fn no_revision(guard: Option<RequestGuard>) -> Response<ResponseBody> {
    let reply = ErrorResponse {
        status: 404,
        error: "no_revision",
        retry_after: None,
    };
    build(reply, None, guard)
}

pub(crate) fn rejected(
    rejection: Rejection,
    guard: Option<RequestGuard>,
) -> Response<ResponseBody> {
    let reply = ErrorResponse {
        status: rejection.status(),
        error: rejection.label(),
        retry_after: None,
    };
    let mut response = build(reply, None, guard);
    if rejection.closes_connection() {
        close(&mut response);
    }
    response
}

/// Returns the response to the readiness probe of a load balancer.
pub(crate) fn ready(ready: bool, guard: Option<RequestGuard>) -> Response<ResponseBody> {
    let mut response = build(
        ErrorResponse {
            status: 503,
            error: "not_ready",
            retry_after: None,
        },
        None,
        guard,
    );
    if ready {
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().remove(ERROR);
    }
    response
}

/// Why no node serves a request whose route is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// The function is placed on no node.
    NotPlaced,
    /// Another node passed the request on, but the function is not on this node, or not yet.
    NotHere,
    /// Another node passed a call on, but the function does not admit the caller. Clients never receive this.
    NotGranted,
    /// No node of the function can be reached.
    Unreachable,
    /// The exchange with another node broke before its response began.
    ForwardFailed,
    /// Too many requests are being passed on.
    Overloaded,
}

impl Unserved {
    /// Returns the value of the header `selvage-error`.
    pub(crate) const fn error(self) -> &'static str {
        match self {
            Self::NotPlaced => "not_placed",
            Self::NotHere => "not_here",
            Self::NotGranted => "not_granted",
            Self::Unreachable => "unreachable",
            Self::ForwardFailed => "forward_failed",
            Self::Overloaded => "overloaded",
        }
    }

    const fn reply(self) -> ErrorResponse {
        let (status, retry_after) = match self {
            Self::NotPlaced => (503, None),
            Self::NotGranted => (403, None),
            Self::NotHere | Self::Unreachable | Self::Overloaded => (503, Some(1)),
            Self::ForwardFailed => (502, None),
        };
        ErrorResponse {
            status,
            error: self.error(),
            retry_after,
        }
    }
}

/// Returns the response to a request that no node serves.
pub(crate) fn unserved(reason: Unserved, guard: Option<RequestGuard>) -> Response<ResponseBody> {
    build(reason.reply(), None, guard)
}

/// Builds an error response and records its status with the observer.
pub(crate) fn build(
    reply: ErrorResponse,
    observer: Option<RequestObserver>,
    guard: Option<RequestGuard>,
) -> Response<ResponseBody> {
    let mut observer = observer;
    if let Some(observer) = &mut observer {
        observer.head(reply.status);
    }
    let body = ResponseBody::Buffered {
        bytes: None,
        trailers: None,
        observer,
        _guard: guard,
    };
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(ERROR, HeaderValue::from_static(reply.error));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = reply.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Closes an HTTP/1 connection after the response.
pub(crate) fn close<B>(response: &mut Response<B>) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}
