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
        generated_span: 0xcd,
    }
}

const ROOT: &str = "traceparent: 00-000000000000000000000000000000ab-00000000000000cd-00";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

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
    assert!(!rewritten.https);
    assert_eq!(rewritten.request_id, format!("{:032x}", 0xab));
    assert_eq!(rewritten.trace.trace_id(), format!("{:032x}", 0xab));
    assert_eq!(
        text(&headers),
        [
            ROOT,
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
        ("traceparent", PARENT),
        ("tracestate", "a=1"),
        // it was signed for the node, and the function must not learn it
        ("selvage-hops", "9"),
    ]);
    let rewritten = rewrite_request(&mut headers, context(true));
    assert_eq!((rewritten.https, &*rewritten.request_id), (true, "id-1"));
    assert_eq!(
        text(&headers),
        [
            &*format!("traceparent: {PARENT}"),
            "tracestate: a=1",
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

/// A caller passes on what it knows of its client, and nothing that only nodes say.
#[test]
fn a_call_has_the_fields_of_its_caller() {
    let mut headers = map(&[
        ("traceparent", PARENT),
        ("x-forwarded-for", "1.1.1.1"),
        ("connection", "x-mine"),
        ("x-mine", "1"),
        ("te", "trailers"),
        ("expect", "100-continue"),
        ("selvage-override", "r1"),
        ("x_selvage_shadow", "1"),
        ("x-request-id", "a b"),
    ]);
    let rewritten = rewrite_call(&mut headers, "f.ns.selvage.internal", "id-1");
    assert_eq!((rewritten.https, &*rewritten.request_id), (false, "id-1"));
    assert_eq!(
        text(&headers),
        [
            "te: trailers",
            &*format!("traceparent: {PARENT}"),
            "x-forwarded-for: 1.1.1.1",
            "x-forwarded-host: f.ns.selvage.internal",
            "x-forwarded-proto: http",
            "x-request-id: id-1",
        ]
    );
    let mut headers = map(&[("x-request-id", "id-2"), ("x-forwarded-proto", "https")]);
    let rewritten = rewrite_call(&mut headers, "f.ns.selvage.internal", "id-1");
    assert_eq!((rewritten.https, &*rewritten.request_id), (true, "id-2"));
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
            ROOT,
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
