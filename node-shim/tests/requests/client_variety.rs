//! Requests that real clients send and that a strict reading of the specifications would refuse, and
//! responses in the form in which they expect them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use node_shim_core::table::{HeaderMatch, Route};

use crate::guests;
use crate::support::h2;
use crate::support::node::{Node, PATIENCE, Setup};
use crate::support::wire::{Wire, once};

/// Returns the first line that the guest `MIRROR` writes: the target as the guest sees it.
fn target(node: &Node, target: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nhost: h.example\r\nconnection: close\r\n\r\n");
    let reply = once(node.address(), request);
    match reply.status {
        200 => reply.text().lines().next().unwrap_or_default().to_owned(),
        _ => format!("{} {}", reply.status, reply.status_and_error().1),
    }
}

/// HH-15: an HTTP/2 client may split its cookies into several fields. Routes and guests see one.
#[tokio::test]
async fn hh_15_split_cookies_are_joined() {
    let only = HeaderMatch::Exact {
        name: "cookie".into(),
        value: "a=1; b=2; c=3".into(),
    };
    let setup = Setup {
        routes: vec![Route {
            hosts: vec!["*".into()],
            headers: vec![only],
            ..Route::default()
        }],
        ..Setup::default()
    };
    let node = setup.start(&guests::MIRROR);
    let request = Request::get("http://h.example/")
        .header("cookie", "a=1")
        .header("x-between", "1")
        .header("cookie", "b=2")
        .header("cookie", "c=3")
        .body(Full::default())
        .unwrap();
    let mut sender = h2::connect(node.address()).await;
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = h2::body(response).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let cookies: Vec<_> = text.lines().filter(|l| l.starts_with("cookie")).collect();
    assert_eq!(cookies, ["cookie: a=1; b=2; c=3"]);
}

/// HH-15: the same for a proxy that passes the fields on to HTTP/1.1, and for more cookies than a request may
/// have fields.
#[test]
fn hh_15_many_cookie_fields_are_one() {
    let node = Node::serve(&guests::MIRROR);
    let many = "cookie: a=1\r\n".repeat(90);
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n");
    let text = once(node.address(), request).text();
    let joined = format!("cookie: {}\n", vec!["a=1"; 90].join("; "));
    assert!(text.contains(&joined), "{text}");
}

/// HH-16: the query is not used for routing, so it passes byte for byte.
#[test]
fn hh_16_the_query_reaches_the_guest_as_sent() {
    let node = Node::serve(&guests::MIRROR);
    for query in [
        "%",
        "100%",
        "a=%u00e9",
        "a=%00",
        "a=%zz&b=%2",
        "a=\\b",
        "a=../..",
        "a='[]{}|^`~",
        "",
        "?",
    ] {
        let sent = format!("/p?{query}");
        assert_eq!(target(&node, &sent), sent);
    }
    // raw UTF-8, as some clients send it
    assert_eq!(target(&node, "/p?a=\u{e9}"), "/p?a=\u{e9}");
    for path in ["/%", "/%u00e9", "/%00", "/a\\b", "/../?a"] {
        assert_eq!(target(&node, path), "400 bad_path", "{path}");
    }
    for request in [
        "GET /p?a\u{1} HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /p?a b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /p?a\u{7f} HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        assert_eq!(once(node.address(), request).status, 400, "{request:?}");
    }
}

/// HH-16: a target in absolute form without a path means `/`.
#[test]
fn hh_16_a_query_without_a_path_belongs_to_the_root() {
    let node = Node::serve(&guests::MIRROR);
    assert_eq!(target(&node, "http://h.example?x=1"), "/?x=1");
    assert_eq!(target(&node, "http://h.example"), "/");
    assert_eq!(target(&node, "http://h.example/?x=1"), "/?x=1");
}

/// HH-17: the probe of load balancers needs no host, and any method and version.
#[test]
fn hh_17_the_readiness_probe_needs_no_host() {
    let node = Node::serve(&guests::ANSWER);
    let path = "/.well-known/selvage/ready";
    for request in [
        format!("GET {path} HTTP/1.0\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\nhost:\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\nhost: [fe80::1%eth0]\r\n\r\n"),
        format!("GET {path}?x HTTP/1.1\r\nhost: a\r\n\r\n"),
        format!("HEAD {path} HTTP/1.0\r\n\r\n"),
        format!("HEAD {path} HTTP/1.1\r\nhost:\r\n\r\n"),
    ] {
        let mut wire = Wire::connect(node.address());
        let reply = wire.send(&request).read_head_only().expect("a response");
        assert_eq!(reply.status, 200, "{request:?}");
        node.plane.set_ready(false);
        let mut wire = Wire::connect(node.address());
        let reply = wire.send(&request).read_head_only().expect("a response");
        assert_eq!(reply.status_and_error(), (503, "not_ready"), "{request:?}");
        node.plane.set_ready(true);
    }
    assert_eq!(once(node.address(), "GET / HTTP/1.0\r\n\r\n").status, 400);
}

/// HH-9: a body whose framing is broken or that is cut short is the client's fault. A proxy must not send the
/// request again.
#[test]
fn hh_9_broken_framing_of_a_body_is_a_bad_request() {
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    for guest in [&guests::SINK, &guests::CONTINUES] {
        for (body, cut) in [
            ("zz\r\nabc\r\n", false),
            ("-1\r\nabc\r\n", false),
            ("ffffffffffffffffff\r\n", false),
            ("3\r\nabcdef\r\n0\r\n\r\n", false),
            ("3;a=\"\n\"\r\nabc\r\n0\r\n\r\n", false),
            ("4\r\nonly\r\n", true),
            ("4\r\nonly\r\n0\r\n", true),
            ("4\r\non", true),
        ] {
            let node = Node::serve(guest);
            let mut wire = Wire::connect(node.address());
            wire.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{chunked}{body}"));
            if cut {
                wire.shutdown_write();
            }
            let reply = wire.read().expect("a response");
            assert_eq!(reply.status_and_error(), (400, "bad_framing"), "{body:?}");
            assert_eq!(reply.header("connection"), Some("close"), "{body:?}");
            assert!(wire.is_closed(), "{body:?}");
            assert_eq!(node.outcomes(1), ["client 4xx 1"], "{body:?}");
            assert_eq!(node.failures(), ["bad_framing 1"], "{body:?}");
            node.is_quiet();
        }
        let node = Node::serve(guest);
        let mut wire = Wire::connect(node.address());
        wire.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nonly this")
            .shutdown_write();
        let reply = wire.read().expect("a response");
        assert_eq!(reply.status_and_error(), (400, "bad_framing"));
    }
}

/// HH-6: `upgrade` is a request to change the protocol only on HTTP/1.1 and together with `connection: upgrade`.
#[test]
fn hh_6_an_upgrade_that_is_not_requested_is_ignored() {
    let node = Node::serve(&guests::MIRROR);
    for (version, connection, status) in [
        ("1.1", "", 200),
        ("1.1", "connection: keep-alive\r\n", 200),
        ("1.0", "connection: upgrade\r\n", 200),
        ("1.1", "connection: upgrade\r\n", 501),
        ("1.1", "connection: keep-alive, Upgrade\r\n", 501),
        ("1.1", "connection: close\r\nconnection: upgrade\r\n", 501),
    ] {
        let reply = once(
            node.address(),
            format!("GET / HTTP/{version}\r\nhost: a\r\n{connection}upgrade: websocket\r\n\r\n"),
        );
        assert_eq!(reply.status, status, "{version} {connection:?}");
        assert!(!reply.text().contains("websocket"), "{connection:?}");
    }
}

/// A response with the status 205 has no content.
#[test]
fn a_response_that_resets_content_has_none() {
    let node = Node::serve(&guests::status(205));
    let mut wire = Wire::connect(node.address());
    for _ in 0..2 {
        wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let reply = wire.read().expect("a response");
        assert_eq!((reply.status, reply.text().as_str()), (205, ""));
        assert_eq!(reply.header("content-length"), Some("0"));
    }
    node.is_quiet();
}

/// A status without a registered reason phrase has an empty one.
#[test]
fn an_unregistered_status_has_an_empty_reason_phrase() {
    for status in [299, 420, 499, 599] {
        let node = Node::serve(&guests::status(status));
        let mut stream = TcpStream::connect(node.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().next().unwrap();
        assert_eq!(line, format!("HTTP/1.1 {status} "));
    }
}

/// An HTTP/1.0 connection that is announced as persistent stays open, and one that ends is announced as such.
#[test]
fn http_1_0_connections_do_as_they_announce() {
    for (guest, persistent) in [(guests::ANSWER.clone(), true), (guests::chunks(64), false)] {
        let node = Node::serve(&guest);
        let mut wire = Wire::connect(node.address());
        for _ in 0..2 {
            wire.send("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
            let reply = wire.read().expect("a response");
            assert_eq!((reply.status, reply.whole), (200, true));
            assert_eq!(reply.header("transfer-encoding"), None);
            let announced = reply.header("connection");
            assert_eq!(announced == Some("keep-alive"), persistent, "{announced:?}");
            if !persistent {
                assert!(wire.is_closed());
                break;
            }
        }
    }
}

/// HG-28: a guest whose response has no body does not run, with its permit, until its timeout.
#[test]
fn hg_28_a_response_without_a_body_ends_its_guest() {
    let long = |l: &mut node_shim_core::table::Limits| {
        l.timeout = Duration::from_secs(3_600);
        l.concurrency = 1;
        // a permit returns a moment after the rest of its guest
        l.queue_length = 1;
        l.queue_timeout = Duration::from_secs(10);
    };
    for (method, status, guest) in [
        ("HEAD", 200, guests::SLEEP_IN_BODY.clone()),
        ("HEAD", 200, guests::ENDLESS.clone()),
        ("GET", 204, guests::sleep_in_body(204)),
        ("GET", 304, guests::sleep_in_body(304)),
        ("GET", 205, guests::sleep_in_body(205)),
    ] {
        let mut setup = Setup::limits(long);
        setup.limits.cpu = Duration::from_secs(3_600);
        let node = setup.start(&guest);
        let mut wire = Wire::connect(node.address());
        for n in 1..=2 {
            wire.send(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n"));
            let reply = wire.read_head_only().expect("a response");
            assert_eq!(reply.status, status, "{method} {status}");
            node.is_quiet();
            let class = status / 100;
            assert_eq!(node.outcomes(n), [format!("ok {class}xx {n}")]);
        }
        assert!(node.log().is_empty(), "{:?}", node.log());
    }
}
