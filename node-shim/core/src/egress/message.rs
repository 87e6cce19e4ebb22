//! Header fields of outbound requests and of the responses to them.

use http::header::{EXPECT, HOST, TE, TRAILER};
use http::{HeaderMap, HeaderValue};

use crate::headers::{is_node_header, remove_hop_by_hop, remove_where};

/// Prepares the header fields of an outbound request. `host` is the authority of the target; HTTP/2 sends it outside of
/// the header fields. Names that are reserved for nodes are removed, so that a function cannot speak for one.
pub fn rewrite_request(headers: &mut HeaderMap, host: &str, http2: bool) {
    // announces the trailers, which are not sent without it
    let trailer = headers.get(TRAILER).cloned();
    remove_hop_by_hop(headers);
    remove_where(headers, is_node_header);
    headers.remove(HOST);
    // there is no client that waits for a 100
    headers.remove(EXPECT);
    if let Some(trailer) = trailer {
        headers.insert(TRAILER, trailer);
    }
    if http2 {
        return;
    }
    // it is a field of the connection in HTTP/1
    headers.remove(TE);
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
}

/// Removes the fields of a response that describe its connection.
pub fn rewrite_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
}
