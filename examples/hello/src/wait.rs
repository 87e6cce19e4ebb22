//! Waiting before an answer, so that the client has time to send more.

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::http::types::IncomingRequest;

use crate::MILLISECOND;

/// Number of bytes that are read at once.
const PIECE: u64 = 16 << 10;

/// Reads the body of the request, and waits for a number of milliseconds.
pub(crate) fn before_answer(request: &IncomingRequest, milliseconds: &str) {
    read_body(request);
    let milliseconds: u64 = milliseconds.parse().unwrap_or(0);
    if milliseconds > 0 {
        subscribe_duration(milliseconds.saturating_mul(MILLISECOND)).block();
    }
}

/// Reads the body to its end. The host answers a request whose body is broken.
fn read_body(request: &IncomingRequest) {
    let Ok(body) = request.consume() else { return };
    let Ok(stream) = body.stream() else { return };
    while stream.blocking_read(PIECE).is_ok() {}
}
