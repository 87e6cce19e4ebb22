//! Rewriting of header fields: which of them pass between client and guest, and which the node sets
//! itself.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http::header::{
    CACHE_CONTROL, CONNECTION, COOKIE, EXPECT, HOST, HeaderName, HeaderValue, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, StatusCode};

use crate::forward_header::FORWARD;
use crate::hop_header::HOPS;
use crate::trace::TraceContext;

pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Returns whether a response has no body, whatever its `content-length` is: that of a response to HEAD (`answers_head`), or
/// one with a status that has none.
#[must_use]
pub fn is_bodiless(answers_head: bool, status: StatusCode) -> bool {
    answers_head
        || matches!(
            status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
        )
}

/// Facts about a request that come from the connection and not from its header fields.
#[derive(Clone, Copy, Debug)]
pub struct ForwardingContext<'a> {
    /// Address of the peer.
    pub peer: IpAddr,
    /// Whether the peer is a trusted proxy, whose forwarding headers are kept.
    pub trusted: bool,
    /// Whether the connection uses TLS.
    pub tls: bool,
    /// Host as sent, including the port.
    pub authority: &'a str,
    /// Request id to use when a trusted peer did not send one, and id of the trace when it did not start one.
    pub generated_id: u128,
    /// Id of the first span of a trace that the node starts.
    pub generated_span: u64,
}

/// Facts established while rewriting a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Whether the client used HTTPS.
    pub https: bool,
    /// Id of the request, also sent to the guest as `x-request-id`.
    pub request_id: String,
    /// Trace of the request, also sent to the guest.
    pub trace: TraceContext,
}

/// Joins the `cookie` fields of a request into one. HTTP/2 clients may split them (RFC 9113, section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let fields = headers.get_all(COOKIE).iter();
    let parts: Vec<&[u8]> = fields.map(HeaderValue::as_bytes).collect();
    if parts.len() < 2 {
        return;
    }
    // every part is valid, so the whole is too
    if let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Rewrites the header fields of a request for the guest. Removes hop-by-hop fields and the forwarding
/// headers of untrusted peers first and then sets the node's own fields, so that a `connection` header
/// cannot remove the latter.
pub fn rewrite_request(headers: &mut HeaderMap, context: ForwardingContext<'_>) -> Rewritten {
    remove_hop_by_hop(headers);
    headers.remove(EXPECT);
    headers.remove(HOPS);
    headers.remove(FORWARD);
    if !context.trusted {
        remove_where(headers, is_forwarding_header);
    }
    let proto = headers
        .get(FORWARDED_PROTO)
        .and_then(|value| value.to_str().ok());
    let https = match proto {
        Some("https") => true,
        Some("http") => false,
        _ => context.tls,
    };
    let client = match joined_values(headers, &FORWARDED_FOR) {
        Some(before) => format!("{before}, {}", context.peer),
        None => context.peer.to_string(),
    };
    set(headers, FORWARDED_FOR, client);
    set(
        headers,
        FORWARDED_PROTO,
        if https { "https" } else { "http" },
    );
    if !headers.contains_key(FORWARDED_HOST) {
        set(headers, FORWARDED_HOST, context.authority);
    }
    let request_id =
        received_id(headers).unwrap_or_else(|| format!("{:032x}", context.generated_id));
    set(headers, REQUEST_ID, request_id.as_str());
    let trace = TraceContext::take(headers, context.generated_id, context.generated_span);
    Rewritten {
        https,
        request_id,
        trace,
    }
}

/// Prepares the header fields of a request for the connection to another node. Everything else stays: the other node treats
/// it as if the client had sent it there.
pub fn rewrite_forwarded(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    headers.remove(EXPECT);
    headers.remove(HOST);
}

/// Removes the fields that belong to the connection to another node from its response. Keeps the announcement of trailers
/// if they can follow.
pub fn rewrite_forwarded_response(headers: &mut HeaderMap, trailers: bool) {
    let announced = announced_trailers(headers).filter(|_| trailers);
    remove_hop_by_hop(headers);
    if let Some(names) = announced {
        headers.insert(TRAILER, names);
    }
}

/// Rewrites the header fields of a call for the called function. The caller is a function of the same namespace, so it may
/// pass on what it knows of its client: only the fields of the connection and of the node are removed. A call has the id of
/// the caller's request, `request_id`, unless the caller sets another one.
pub fn rewrite_call(headers: &mut HeaderMap, authority: &str, request_id: &str) -> Rewritten {
    remove_hop_by_hop(headers);
    headers.remove(EXPECT);
    remove_where(headers, is_node_header);
    let https = headers
        .get(FORWARDED_PROTO)
        .is_some_and(|proto| proto == "https");
    if !headers.contains_key(FORWARDED_PROTO) {
        set(headers, FORWARDED_PROTO, "http");
    }
    if !headers.contains_key(FORWARDED_HOST) {
        set(headers, FORWARDED_HOST, authority);
    }
    let request_id = received_id(headers).unwrap_or_else(|| request_id.to_owned());
    set(headers, REQUEST_ID, request_id.as_str());
    // the caller's trace was added before, so no trace starts here
    let trace = TraceContext::take(headers, 0, 0);
    Rewritten {
        https,
        request_id,
        trace,
    }
}

/// Removes the fields from a guest's response that only the node may set, such as framing and `date`.
/// Adds `cache-control: no-store` to a response that sets a cookie and has no caching policy, so that no
/// cache serves it to another client.
pub fn rewrite_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    let reserved: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("selvage-") || *name == http::header::HOST)
        .cloned()
        .collect();
    for name in reserved {
        headers.remove(name);
    }
    headers.remove(http::header::DATE);
    if headers.contains_key(SET_COOKIE) && !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Removes all trailers except those that cannot change how the message is interpreted.
pub fn filter_trailers(trailers: &mut HeaderMap) {
    let refused: Vec<_> = trailers
        .keys()
        .filter(|name| !is_allowed_trailer(name.as_str()))
        .cloned()
        .collect();
    for name in refused {
        trailers.remove(name);
    }
}

/// Returns the allowed names that a response announces in its `trailer` fields; `None` without any.
#[must_use]
pub fn announced_trailers(headers: &HeaderMap) -> Option<HeaderValue> {
    let named = headers
        .get_all(TRAILER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok());
    comma_separated(named.filter(|name| is_allowed_trailer(name.as_str())))
}

/// Returns the names of a trailer section as the value of a `trailer` field; `None` when it is empty.
#[must_use]
pub fn trailer_names(trailers: &HeaderMap) -> Option<HeaderValue> {
    comma_separated(trailers.keys().cloned())
}

/// Returns whether the client accepts trailers according to its `te` field.
#[must_use]
pub fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

fn comma_separated(names: impl Iterator<Item = HeaderName>) -> Option<HeaderValue> {
    let names: Vec<HeaderName> = names.collect();
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::from_str(&names.join(", "))
        .ok()
        .filter(|value| !value.is_empty())
}

pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // most messages have none, and to look at each of their few names is cheaper than to look up each of these
    if !headers.keys().any(is_of_connection) {
        return;
    }
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| *name != http::header::HOST && *name != http::header::CONTENT_LENGTH)
            .collect();
        // `te` is handled below according to its value
        for name in named.into_iter().filter(|name| *name != TE) {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    let trailers = headers
        .get_all(TE)
        .iter()
        .any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    for name in [TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    let hop: Vec<_> = headers
        .keys()
        .filter(|name| is_hop_by_hop(name.as_str()))
        .cloned()
        .collect();
    for name in hop {
        headers.remove(name);
    }
}

/// Returns whether a field concerns only the connection.
fn is_of_connection(name: &HeaderName) -> bool {
    [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || is_hop_by_hop(name.as_str())
}

fn is_hop_by_hop(name: &str) -> bool {
    name.starts_with("proxy-") || name == "keep-alive" || name == "http2-settings"
}

/// Returns whether a field describes the client, the trace or the node.
fn is_forwarding_header(name: &HeaderName) -> bool {
    let about = |name: &str| {
        name.starts_with("x-forwarded-")
            || matches!(
                name,
                "forwarded" | "x-real-ip" | "x-request-id" | "traceparent" | "tracestate"
            )
    };
    in_any_spelling(name, about) || is_node_header(name)
}

/// Returns whether a field has a name that is reserved for nodes.
pub(crate) fn is_node_header(name: &HeaderName) -> bool {
    in_any_spelling(name, |name| {
        name.starts_with("x-selvage-") || name.starts_with("selvage-")
    })
}

/// Some gateways spell names with `_` in place of `-`.
fn in_any_spelling(name: &HeaderName, about: impl Fn(&str) -> bool) -> bool {
    let name = name.as_str();
    about(name) || (name.contains('_') && about(&name.replace('_', "-")))
}

pub(crate) fn remove_where(headers: &mut HeaderMap, removed: impl Fn(&HeaderName) -> bool) {
    let names: Vec<_> = headers
        .keys()
        .filter(|name| removed(name))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// Returns the valid request id of a request.
fn received_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    is_valid_request_id(id).then(|| id.to_owned())
}

fn is_allowed_trailer(name: &str) -> bool {
    let client = name.starts_with("x-forwarded-") || name == "x-real-ip";
    matches!(name, "content-digest" | "repr-digest" | "server-timing")
        || name.starts_with("grpc-")
        || (name.starts_with("x-") && !client)
}

fn joined_values(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Returns whether a request id is a token of 1 to 64 bytes.
fn is_valid_request_id(id: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=64).contains(&id.len()) && id.bytes().all(token)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: impl TryInto<HeaderValue>) {
    match value.try_into() {
        Ok(value) => {
            headers.insert(name, value);
        }
        Err(_) => {
            headers.remove(name);
        }
    }
}
