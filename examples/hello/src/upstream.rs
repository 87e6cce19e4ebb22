//! Request to another server, which `spec.egress.allow` has to allow.

use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{ErrorCode, Fields, OutgoingRequest, Scheme};

/// Sends `GET /` to a server. Returns its status, or 502 and the error.
pub(crate) fn answer(authority: &str) -> (u16, String) {
    match get(authority) {
        Ok(status) => (status, format!("{authority} answered {status}\n")),
        Err(error) => (502, format!("{authority}: {error:?}\n")),
    }
}

fn get(authority: &str) -> Result<u16, ErrorCode> {
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some("/")).map_err(invalid)?;
    let response = handle(request, None)?;
    response.subscribe().block();
    // the response is there, and it is taken once
    let response = response.get().and_then(Result::ok);
    Ok(response.ok_or(ErrorCode::InternalError(None))??.status())
}
