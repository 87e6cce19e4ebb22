//! Requests over HTTP/1.1: validation, timeouts, body limits and forwarding headers.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use node_shim_core::table::Route;

use crate::guests;
use crate::support::h2;
use crate::support::node::{Node, Setup};
use crate::support::wire::{Reply, Wire, get, once};

fn summary(node: &Node, request: &str) -> (u16, String, bool) {
    let mut wire = Wire::connect(node.address());
    let reply = wire.send(request).read().expect("a response");
    let closes = reply.header("connection") == Some("close");
    (
        reply.status,
        reply.header("selvage-error").unwrap_or("").to_owned(),
        closes,
    )
}

fn assert_rejected(node: &Node, requests: &[&str], (status, error): (u16, &str), closes: bool) {
    for request in requests {
        let got = summary(node, request);
        assert_eq!(got, (status, error.to_owned(), closes), "{request:?}");
    }
}

/// HH-1: hosts that are missing, ambiguous or malformed.
#[test]
fn hh_1_invalid_hosts_are_rejected() {
    let node = Node::serve(&guests::ANSWER);
    let requests = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost:\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a,b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a:65536\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: \u{fc}\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
    ];
    assert_rejected(&node, &requests, (400, "bad_host"), true);
}

/// HH-1: paths that servers could read differently.
#[test]
fn hh_1_invalid_paths_are_rejected() {
    let node = Node::serve(&guests::ANSWER);
    let requests = [
        "GET /a/../b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /%2e/b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /\u{fc} HTTP/1.1\r\nhost: a\r\n\r\n",
    ];
    assert_rejected(&node, &requests, (400, "bad_path"), false);
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(9 << 10));
    assert_rejected(&node, &[&long], (414, "target_too_long"), false);
}

/// HH-1, HH-6: methods, upgrades, expectations and bodies that are not supported.
#[test]
fn hh_1_unsupported_requests_are_rejected() {
    let node = Node::serve(&guests::ANSWER);
    let codings = [
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    assert_rejected(&node, &codings, (400, "bad_framing"), true);
    let methods = [
        "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    ];
    assert_rejected(&node, &methods, (405, "method"), false);
    let unknown = ["BREW / HTTP/1.1\r\nhost: a\r\n\r\n"];
    assert_rejected(&node, &unknown, (501, "method"), false);
    let upgrade =
        ["GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"];
    assert_rejected(&node, &upgrade, (501, "upgrade"), false);
    let tea = ["GET / HTTP/1.1\r\nhost: a\r\nexpect: tea\r\n\r\n"];
    assert_rejected(&node, &tea, (417, "expect"), true);
    let large = ["POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n"];
    assert_rejected(&node, &large, (413, "body_too_large"), true);
    // only the body length is checked after routing, so only this rejection counts for the function
    assert_eq!(node.outcomes(1), ["client 4xx 1"]);
}

/// HH-1: the following bytes are not interpreted as a second request.
#[test]
fn hh_1_a_length_with_chunked_coding_is_ignored_and_the_connection_closed() {
    let node = Node::serve(&guests::ECHO);
    let mut wire = Wire::connect(node.address());
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    wire.send(format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{smuggled}"
    ));
    let reply = wire.read().unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "abc"));
    assert!(wire.is_closed());
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// HH-1, HH-9: the guest sees invalid chunk sizes as an error.
#[test]
fn hh_1_malformed_chunks_never_form_a_complete_body() {
    let chunks = [
        "zz\r\nabc\r\n",
        "-1\r\nabc\r\n",
        "ffffffffffffffffff\r\n",
        "3\r\nabcdef\r\n0\r\n\r\n",
    ];
    for chunk in chunks {
        let node = Node::serve(&guests::SINK);
        let request =
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
        let reply = Wire::connect(node.address()).send(request).read();
        assert!(reply.is_none_or(|r| r.status != 200), "{chunk:?}");
        assert!(node.outcomes(1)[0].starts_with("client "), "{chunk:?}");
        node.is_quiet();
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let node = Node::serve(&guests::MIRROR);
    let mut wire = Wire::connect(node.address());
    for path in ["/1", "/2", "/3"] {
        wire.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
    }
    for path in ["/1", "/2", "/3"] {
        assert!(wire.read().unwrap().text().starts_with(path));
    }
}

/// HH-3: an unknown host, an unmatched path, an IP address and a deleted function get the same 404.
#[test]
fn hh_3_unknown_hosts_and_paths_get_identical_responses() {
    let route = Route {
        hosts: vec!["h.example".into()],
        paths: vec![node_shim_core::table::PathMatch::Prefix("/only".into())],
        ..Route::default()
    };
    let node = Setup {
        routes: vec![route],
        ..Setup::default()
    }
    .start(&guests::ANSWER);
    let strip = |reply: Reply| {
        let headers: Vec<_> = reply
            .headers
            .into_iter()
            .filter(|(name, _)| name != "date")
            .collect();
        (reply.status, headers, reply.body)
    };
    let unknown_host = strip(once(
        node.address(),
        "GET /only HTTP/1.1\r\nhost: other.example\r\n\r\n",
    ));
    let unmatched_path = strip(get(node.address(), "/else"));
    let address = strip(once(
        node.address(),
        "GET /only HTTP/1.1\r\nhost: 10.0.0.1\r\n\r\n",
    ));
    assert_eq!(get(node.address(), "/only").status, 200);
    node.publish(Vec::new());
    let deleted = strip(get(node.address(), "/only"));
    assert_eq!(deleted.0, 404);
    assert!(
        deleted
            .1
            .contains(&("selvage-error".into(), "no_route".into()))
    );
    for other in [unknown_host, unmatched_path, address] {
        assert_eq!(other, deleted);
    }
}

/// HH-4: each has its own timeout.
#[test]
fn hh_4_slow_heads_and_idle_connections_time_out() {
    let node = Setup::connections(|c| {
        c.head_read = Duration::from_millis(500);
        c.idle = Duration::from_secs(2);
    })
    .start(&guests::ANSWER);
    let mut slow = Wire::connect(node.address());
    slow.send("GET / HTT");
    assert!(slow.is_closed());
    let mut silent = Wire::connect(node.address());
    assert!(silent.is_closed());
    let mut idle = Wire::connect(node.address());
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(idle.read().unwrap().status, 200);
    assert!(idle.is_closed());
    let mut second = Wire::connect(node.address());
    second.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(second.read().unwrap().status, 200);
    second.send("GET / HTT");
    assert!(second.is_closed());
}

/// HH-4: 408, closed, outcome `client`.
#[test]
fn hh_4_a_slow_body_counts_as_client_fault() {
    let node = Setup::limits(|l| l.idle = Duration::from_millis(200)).start(&guests::SINK);
    let mut wire = Wire::connect(node.address());
    wire.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc");
    assert_eq!(wire.read().unwrap().status_and_error(), (408, "body_slow"));
    assert!(wire.is_closed());
    assert_eq!(node.outcomes(1), ["client 4xx 1"]);
    assert_eq!(node.failures(), ["body_slow 1"]);
    node.is_quiet();
}

/// HH-4: resources of a client that does not read are freed.
#[test]
fn hh_4_a_slow_reader_is_disconnected() {
    let mut setup = Setup::connections(|c| c.write_stall = Duration::from_millis(300));
    setup.limits.cpu = Duration::from_secs(60);
    let node = setup.start(&guests::ENDLESS);
    let mut wire = Wire::connect(node.address());
    wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    // nothing is read until the request has been counted
    assert_eq!(node.outcomes(1), ["client 2xx 1"]);
    assert!(!wire.read().unwrap().whole);
    node.is_quiet();
}

/// HH-6: CONNECT gets 405, an upgrade to h2c is ignored, an uncommon method passes when the route lists it.
#[test]
fn hh_6_upgrades_and_tunnels_are_not_supported() {
    let node = Node::serve(&guests::MIRROR);
    let connect = summary(&node, "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n");
    assert_eq!((connect.0, connect.1.as_str()), (405, "method"));
    let upgrade = once(
        node.address(),
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    assert_eq!(upgrade.status, 200);
    assert!(!upgrade.text().contains("upgrade") && !upgrade.text().contains("http2-settings"));
    let named = Route {
        hosts: vec!["*".into()],
        methods: vec!["BREW".into()],
        ..Route::default()
    };
    let node = Setup {
        routes: vec![named],
        ..Setup::default()
    }
    .start(&guests::ANSWER);
    assert_eq!(summary(&node, "BREW / HTTP/1.1\r\nhost: a\r\n\r\n").0, 200);
}

/// HH-8: forwarding headers of untrusted peers do not reach the guest.
#[test]
fn hh_8_forwarding_headers_of_untrusted_peers_are_removed() {
    let request = "GET /a?b=c HTTP/1.1\r\nhost: h.example:81\r\nx-forwarded-for: 9.9.9.9\r\nx_forwarded_proto: https\r\nforwarded: for=1\r\ntraceparent: 00-1\r\nselvage-override: r9\r\nx-selvage-shadow: 1\r\nx-kept: yes\r\n\r\n";
    let node = Node::serve(&guests::MIRROR);
    let text = once(node.address(), request).text();
    let mut lines: Vec<_> = text.lines().collect();
    assert_eq!(&lines[..2], ["/a?b=c", "h.example:81"]);
    lines.drain(..2);
    lines.retain(|line| !line.starts_with("x-request-id: "));
    // of a trace that the node has started
    let started = |line: &str| line.starts_with("traceparent: 00-") && line.len() == 68;
    assert_eq!(
        lines.iter().filter(|line| started(line)).count(),
        1,
        "{text}"
    );
    lines.retain(|line| !started(line));
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: h.example:81",
            "x-forwarded-proto: http",
            "x-kept: yes"
        ]
    );
    let mut setup = Setup::default();
    setup.options.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let node = setup.start(&guests::MIRROR);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let valid = request.replace("00-1", parent);
    let text = once(node.address(), valid).text();
    assert!(
        text.contains("x-forwarded-for: 9.9.9.9, 127.0.0.1\n"),
        "{text}"
    );
    assert!(text.contains(&format!("traceparent: {parent}\n")), "{text}");
    let text = once(node.address(), request).text();
    assert!(!text.contains("traceparent: 00-1\n"), "{text}");
}

/// HH-9: a chunked body above the limit gets 413; an incomplete body fails.
#[test]
fn hh_9_a_body_that_is_too_large_or_incomplete_is_an_error() {
    let setup = Setup::limits(|l| l.request_body = 10_000);
    let node = setup.clone().start(&guests::SINK);
    let mut wire = Wire::connect(node.address());
    wire.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    for _ in 0..4 {
        wire.send(&chunk);
    }
    assert_eq!(
        wire.read().unwrap().status_and_error(),
        (413, "body_too_large")
    );
    assert!(wire.is_closed());
    assert_eq!(node.outcomes(1), ["client 4xx 1"]);
    assert_eq!(node.failures(), ["body_too_large 1"]);

    let node = setup.start(&guests::SINK);
    for cut in [
        "content-length: 100\r\n\r\nonly this",
        "transfer-encoding: chunked\r\n\r\n4\r\nonly\r\n",
        "transfer-encoding: chunked\r\n\r\n4\r\nonly\r\n0\r\n",
    ] {
        let mut wire = Wire::connect(node.address());
        wire.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{cut}"))
            .shutdown_write();
        assert!(wire.read().is_none_or(|reply| reply.status != 200), "{cut}");
    }
    let outcomes = node.outcomes(3);
    assert!(
        outcomes.iter().all(|one| one.starts_with("client ")),
        "{outcomes:?}"
    );
    node.is_quiet();
}

/// HH-9: a body above the limit gets 413 on HTTP/2.
#[tokio::test]
async fn hh_9_a_body_above_the_limit_is_rejected_on_http_2() {
    let node = Setup::limits(|l| l.request_body = 10).start(&guests::SINK);
    let body = Full::new(Bytes::from(vec![b'x'; 100]));
    let request = Request::post("http://h.example/").body(body).unwrap();
    let response = h2::connect(node.address())
        .await
        .send_request(request)
        .await
        .unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(node.outcomes(1), ["client 4xx 1"]);
}

#[test]
fn continue_is_sent_when_the_guest_reads_the_body() {
    let expecting =
        "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    let node = Node::serve(&guests::SINK);
    let mut wire = Wire::connect(node.address());
    wire.send(expecting);
    assert_eq!(wire.line().as_deref(), Some("HTTP/1.1 100 Continue"));
    wire.send("abc");
    wire.line();
    assert_eq!(wire.read().unwrap().status, 200);

    // a guest that responds without reading gets no 100 Continue, and the body is not awaited
    let node = Node::serve(&guests::ANSWER);
    let mut wire = Wire::connect(node.address());
    wire.send(expecting);
    assert_eq!(wire.line().as_deref(), Some("HTTP/1.1 200 OK"));
}

/// HH-7: a stream whose window stays 0 is closed by the write timeout.
#[tokio::test]
async fn hh_7_a_stalled_stream_is_closed() {
    let mut setup = Setup::connections(|c| c.write_stall = Duration::from_millis(300));
    setup.limits.cpu = Duration::from_secs(60);
    let node = setup.start(&guests::ENDLESS);
    let response = h2::get(node.address(), "/").await;
    assert_eq!(response.status(), 200);
    // nothing is read, so the window of the stream closes while the connection stays alive
    let (node, outcomes) = tokio::task::spawn_blocking(move || {
        let outcomes = node.outcomes(1);
        (node, outcomes)
    })
    .await
    .unwrap();
    assert_eq!(outcomes, ["client 2xx 1"]);
    assert!(h2::body(response).await.is_err());
    tokio::task::spawn_blocking(move || node.is_quiet())
        .await
        .unwrap();
}
