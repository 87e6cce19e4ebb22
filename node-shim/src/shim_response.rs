//! The answers that are the shim's own: no body, a reason from a closed list, nothing of a tenant.

use http::header::{CACHE_CONTROL, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use node_shim_core::outcome::ErrorResponse;
use node_shim_core::validation::Rejection;

use crate::body::ResponseBody;
use crate::connection::RequestGuard;
use crate::observer::RequestObserver;

pub(crate) const ERROR: HeaderName = HeaderName::from_static("selvage-error");

/// Nobody owns host and path: the same bytes whoever asks for whatever.
pub(crate) fn no_route(exchange: RequestGuard) -> Response<ResponseBody> {
    let reply = ErrorResponse {
        status: 404,
        error: "no_route",
        retry_after: None,
    };
    build(reply, None, exchange)
}

pub(crate) fn rejected(rejection: Rejection, exchange: RequestGuard) -> Response<ResponseBody> {
    let reply = ErrorResponse {
        status: rejection.status(),
        error: rejection.label(),
        retry_after: None,
    };
    let mut response = build(reply, None, exchange);
    if rejection.closes_connection() {
        close(&mut response);
    }
    response
}

/// What load balancers ask for.
pub(crate) fn ready(ready: bool, exchange: RequestGuard) -> Response<ResponseBody> {
    let mut response = build(
        ErrorResponse {
            status: 503,
            error: "not_ready",
            retry_after: None,
        },
        None,
        exchange,
    );
    if ready {
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().remove(ERROR);
    }
    response
}

/// An answer in place of a guest's.
pub(crate) fn build(
    reply: ErrorResponse,
    observer: Option<RequestObserver>,
    exchange: RequestGuard,
) -> Response<ResponseBody> {
    let mut observer = observer;
    if let Some(observer) = &mut observer {
        observer.head(reply.status);
    }
    let body = ResponseBody::Buffered {
        bytes: None,
        trailers: None,
        observer,
        _guard: exchange,
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

/// Ends an HTTP/1 connection after this answer.
pub(crate) fn close<B>(response: &mut Response<B>) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}
