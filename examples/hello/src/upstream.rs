//! Request to another server, which `spec.egress.allow` has to allow.

use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{ErrorCode, Fields, OutgoingRequest, Scheme};

/// Sends `GET /` to a server, `[https://]host[:port]`. Returns its status, or 502 and the error.
pub(crate) fn answer(server: &str) -> (u16, String) {
    let (scheme, authority) = match server.strip_prefix("https://") {
        Some(authority) => (Scheme::Https, authority),
        None => (Scheme::Http, server),
    };
    match get(&scheme, authority) {
        Ok(status) => (status, format!("{authority} answered {status}\n")),
        Err(error) => (502, format!("{authority}: {error:?}\n")),
    }
}

fn get(scheme: &Scheme, authority: &str) -> Result<u16, ErrorCode> {
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(scheme)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some("/")).map_err(invalid)?;
    let response = handle(request, None)?;
    response.subscribe().block();
    // the response is there, and it is taken once
    let response = response.get().and_then(Result::ok);
    Ok(response.ok_or(ErrorCode::InternalError(None))??.status())
}
