//! Requests that hyper rejects before the node-shim sees them.

use crate::guests;
use crate::support::node::Node;
use crate::support::wire::Wire;

/// HH-1: the responses have the fields of all responses of the node-shim, arrive even when the client sends more
/// than is read, and close the connection.
#[test]
fn hh_1_unparsable_requests_are_answered_and_close_the_connection() {
    let node = Node::serve(&guests::ANSWER);
    let many = "x: y\r\n".repeat(101);
    let large = format!("x: {}\r\n", "y".repeat(40 << 10));
    let huge = format!("x: {}\r\n", "y".repeat(4 << 20));
    let host = "HTTP/1.1\r\nhost: a\r\n";
    let bad = (400, "bad_request");
    let long = (431, "headers_too_large");
    let rows = [
        (format!("POST / {host}content-length: +1\r\n\r\nx"), bad),
        (format!("POST / {host}content-length: 1, 1\r\n\r\nx"), bad),
        (
            format!("POST / {host}content-length: 1\r\ncontent-length: 2\r\n\r\nx"),
            bad,
        ),
        (
            "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            bad,
        ),
        (
            format!("POST / {host}transfer-encoding: identity\r\n\r\n"),
            bad,
        ),
        (format!("GET / {host}x : y\r\n\r\n"), bad),
        (format!("GET / {host} folded\r\n\r\n"), bad),
        ("G@T / HTTP/1.1\r\nhost: a\r\n\r\n".into(), bad),
        ("GET /<a> HTTP/1.1\r\nhost: a\r\n\r\n".into(), bad),
        ("GET / HTTP/3.0\r\nhost: a\r\n\r\n".into(), bad),
        (format!("GET / {host}{many}\r\n"), long),
        (format!("GET / {host}{large}\r\n"), long),
        (format!("GET / {host}{huge}\r\n"), long),
    ];
    for before in ["", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
        for (request, expected) in &rows {
            let start = &request[..request.len().min(80)];
            let mut wire = Wire::connect(node.address());
            wire.send(format!("{before}{request}"));
            if !before.is_empty() {
                assert_eq!(wire.read().expect("the first response").status, 200);
            }
            let reply = wire.read().expect("a response");
            assert_eq!(reply.status_and_error(), *expected, "{start:?}");
            assert_eq!(reply.header("cache-control"), Some("no-store"), "{start:?}");
            assert_eq!(reply.header("connection"), Some("close"), "{start:?}");
            assert_eq!(reply.header("content-length"), Some("0"), "{start:?}");
            assert!(reply.header("date").is_some(), "{start:?}");
            assert!(wire.is_closed(), "{start:?}");
        }
    }
    let rejections: u64 = node
        .plane
        .node_counters()
        .rejections()
        .map(|(_, n)| n)
        .sum();
    assert_eq!(rejections, 2 * rows.len() as u64);
}

/// HH-1: a response of a guest that looks like one of hyper is sent as it is.
#[test]
fn hh_1_an_empty_bad_request_of_a_guest_is_its_own() {
    let node = Node::serve(&guests::empty(400));
    for (request, closes) in [
        (
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            true,
        ),
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nhost: a\r\n\r\n", true),
        (
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 10\r\n\r\nabc",
            true,
        ),
    ] {
        let mut wire = Wire::connect(node.address());
        let reply = wire.send(request).read().expect("a response");
        assert_eq!(reply.status_and_error(), (400, ""), "{request:?}");
        assert_eq!(reply.header("cache-control"), None, "{request:?}");
        if closes {
            wire.shutdown_write();
            assert!(wire.is_closed(), "{request:?}");
        } else {
            assert_eq!(wire.send(request).read().unwrap().status, 400);
        }
    }
}
