//! Rewriting of header fields: which of them pass between client and guest, and which the node sets
//! itself.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{
    CACHE_CONTROL, CONNECTION, COOKIE, EXPECT, HeaderName, HeaderValue, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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
    /// Request id to use when a trusted peer did not send one.
    pub generated_id: u128,
}

/// Facts established while rewriting a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Whether the client used HTTPS.
    pub https: bool,
    /// Id of the request, also sent to the guest as `x-request-id`.
    pub request_id: String,
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
    if !context.trusted {
        let untrusted: Vec<_> = headers
            .keys()
            .filter(|name| is_forwarding_header(name))
            .cloned()
            .collect();
        for name in untrusted {
            headers.remove(name);
        }
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
    set(headers, FORWARDED_FOR, &client);
    set(
        headers,
        FORWARDED_PROTO,
        if https { "https" } else { "http" },
    );
    if !headers.contains_key(FORWARDED_HOST) {
        set(headers, FORWARDED_HOST, context.authority);
    }
    let received = headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let request_id = match received.filter(|id| is_valid_request_id(id)) {
        Some(id) => id.to_owned(),
        None => format!("{:032x}", context.generated_id),
    };
    set(headers, REQUEST_ID, &request_id);
    Rewritten { https, request_id }
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

fn is_hop_by_hop(name: &str) -> bool {
    name.starts_with("proxy-") || name == "keep-alive" || name == "http2-settings"
}

/// Returns whether a field describes the client, the trace or the node. Some gateways spell such names
/// with `_` in place of `-`.
fn is_forwarding_header(name: &HeaderName) -> bool {
    let about = |name: &str| {
        name.starts_with("x-forwarded-")
            || name.starts_with("x-selvage-")
            || name.starts_with("selvage-")
            || matches!(
                name,
                "forwarded" | "x-real-ip" | "x-request-id" | "traceparent" | "tracestate"
            )
    };
    let name = name.as_str();
    about(name) || (name.contains('_') && about(&name.replace('_', "-")))
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

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.insert(name, value);
        }
        Err(_) => {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        map
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(k, v)| format!("{k}: {}", v.to_str().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    fn context(trusted: bool) -> ForwardingContext<'static> {
        let peer = "192.0.2.7".parse().unwrap();
        ForwardingContext {
            peer,
            trusted,
            tls: false,
            authority: "h.example:80",
            generated_id: 0xab,
        }
    }

    #[test]
    fn cookies_are_joined_in_order() {
        let mut headers = map(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3")]);
        join_cookies(&mut headers);
        assert_eq!(text(&headers), ["cookie: a=1; b=2; c=3", "x: y"]);
        join_cookies(&mut headers);
        assert_eq!(headers.get_all("cookie").iter().count(), 1);
        let mut none = map(&[("x", "y")]);
        join_cookies(&mut none);
        assert_eq!(text(&none), ["x: y"]);
    }

    /// HH-8: in every spelling.
    #[test]
    fn forwarding_headers_of_untrusted_peers_are_removed() {
        let mut headers = map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("X-Forwarded-Proto", "https"),
            ("x_forwarded_host", "evil"),
            ("forwarded", "for=1"),
            ("x-real-ip", "1.1.1.1"),
            ("x-request-id", "mine"),
            ("traceparent", "00-aa"),
            ("tracestate", "a=b"),
            ("selvage-override", "r1"),
            ("x-selvage-shadow", "1"),
            ("selvage_hops", "9"),
            ("x-kept", "yes"),
        ]);
        let rewritten = rewrite_request(&mut headers, context(false));
        assert_eq!(
            rewritten,
            Rewritten {
                https: false,
                request_id: format!("{:032x}", 0xab)
            }
        );
        assert_eq!(
            text(&headers),
            [
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: h.example:80",
                "x-forwarded-proto: http",
                "x-kept: yes",
                "x-request-id: 000000000000000000000000000000ab",
            ]
        );
    }

    /// HH-8: forwarding headers of a trusted peer are kept, and an invalid request id is replaced.
    #[test]
    fn forwarding_headers_of_a_trusted_proxy_are_kept() {
        let mut headers = map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outer.example"),
            ("x-request-id", "id-1"),
            ("traceparent", "00-aa"),
        ]);
        let rewritten = rewrite_request(&mut headers, context(true));
        assert_eq!(
            rewritten,
            Rewritten {
                https: true,
                request_id: "id-1".into()
            }
        );
        assert_eq!(
            text(&headers),
            [
                "traceparent: 00-aa",
                "x-forwarded-for: 1.1.1.1, 192.0.2.7",
                "x-forwarded-host: outer.example",
                "x-forwarded-proto: https",
                "x-request-id: id-1",
            ]
        );
        for bad in ["", "a b", &"x".repeat(65)] {
            let mut headers = map(&[("x-request-id", bad)]);
            assert_eq!(
                rewrite_request(&mut headers, context(true))
                    .request_id
                    .len(),
                32,
                "{bad}"
            );
        }
    }

    /// HG-18, HH-8: a `connection` header cannot remove the fields that the node sets.
    #[test]
    fn a_connection_header_cannot_remove_the_nodes_fields() {
        let mut headers = map(&[
            ("connection", "close, x-forwarded-for, x-mine"),
            ("connection", "x-request-id"),
            ("x-mine", "1"),
            ("keep-alive", "1"),
            ("proxy-authorization", "s"),
            ("proxy-anything", "s"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("http2-settings", "s"),
            ("expect", "100-continue"),
        ]);
        rewrite_request(&mut headers, context(false));
        assert_eq!(
            text(&headers),
            [
                "te: trailers",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: h.example:80",
                "x-forwarded-proto: http",
                "x-request-id: 000000000000000000000000000000ab",
            ]
        );
        let mut headers = map(&[("te", "gzip")]);
        rewrite_request(&mut headers, context(false));
        assert!(!headers.contains_key(TE));
    }

    /// HH-10: caches do not store a response with a cookie unless the guest allows it.
    #[test]
    fn responses_with_cookies_are_not_cached() {
        for (response, expected) in [
            (&[("set-cookie", "a=1")][..], Some("no-store")),
            (
                &[("set-cookie", "a=1"), ("cache-control", "max-age=5")],
                Some("max-age=5"),
            ),
            (&[("x-b", "2")], None),
        ] {
            let mut headers = map(response);
            rewrite_response(&mut headers);
            let policy = headers.get(CACHE_CONTROL).map(|v| v.to_str().unwrap());
            assert_eq!(policy, expected, "{response:?}");
        }
    }

    /// HG-18: fields that only the node may set are removed from responses and trailers.
    #[test]
    fn reserved_fields_are_removed_from_responses_and_trailers() {
        let mut headers = map(&[
            ("connection", "x-a"),
            ("x-a", "1"),
            ("selvage-error", "x"),
            ("date", "d"),
            ("x-b", "2"),
        ]);
        rewrite_response(&mut headers);
        assert_eq!(text(&headers), ["x-b: 2"]);
        let mut trailers = map(&[
            ("grpc-status", "0"),
            ("x-sum", "1"),
            ("x-forwarded-for", "1"),
            ("host", "h"),
            ("content-length", "3"),
        ]);
        filter_trailers(&mut trailers);
        assert_eq!(text(&trailers), ["grpc-status: 0", "x-sum: 1"]);
    }

    #[test]
    fn allowed_trailers_are_announced() {
        let none: Option<&str> = None;
        for (lines, announced) in [
            (
                vec![("trailer", "x-sum, Grpc-Status")],
                Some("x-sum, grpc-status"),
            ),
            (
                vec![("trailer", "x-sum"), ("trailer", "server-timing")],
                Some("x-sum, server-timing"),
            ),
            (vec![("trailer", "host, content-length, x-real-ip")], none),
            (vec![("trailer", ",, a b,")], none),
            (vec![("x-sum", "1")], none),
        ] {
            let value = announced_trailers(&map(&lines));
            let text = value.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(text, announced, "{lines:?}");
        }
        let all = map(&[("grpc-status", "0"), ("x-sum", "1"), ("x-sum", "2")]);
        assert_eq!(trailer_names(&all).unwrap(), "grpc-status, x-sum");
        assert_eq!(trailer_names(&HeaderMap::new()), None);
    }

    #[test]
    fn te_is_read_as_a_list() {
        for yes in ["trailers", "Trailers", "gzip;q=0.5, trailers"] {
            assert!(accepts_trailers(&map(&[("te", yes)])), "{yes}");
        }
        for no in ["", "gzip", "trailersx"] {
            assert!(!accepts_trailers(&map(&[("te", no)])), "{no}");
        }
    }
}
