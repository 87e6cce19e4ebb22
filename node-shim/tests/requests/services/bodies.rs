//! Bodies of components of WASI 0.3 stream in both directions, and an incomplete one never looks complete.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};

use super::{BEGIN, HELLO};
use crate::support::h2;
use crate::support::node::{Node, Setup};
use crate::support::service::service;
use crate::support::wire::{Wire, get, once};

/// Sends the request body back while it arrives. Traps when it breaks off.
fn echo() -> Vec<u8> {
    service(
        "",
        "(local.set $i (call $body-of (local.get $req)))
         (call $respond (call $fields) (i32.const 200))
         (block $end (loop $more
           (local.set $n (call $read (local.get $i) (i32.const 32768) (i32.const 32768)))
           (br_if $end (i32.eqz (call $write (i32.const 32768) (i32.shr_u (local.get $n) (i32.const 4)))))
           (br_if $more (i32.eqz (i32.and (local.get $n) (i32.const 15))))))
         (if (call $broken) (then unreachable))
         (call $end (i32.const 0))",
    )
}

/// Passes the stream of the request body on as that of the response.
fn pass_on() -> Vec<u8> {
    service(
        "",
        "(local.set $i (call $body-of (local.get $req)))
         (local.set $n (i32.wrap_i64 (call $trailers-new)))
         (call $response-new (call $fields) (i32.const 1) (local.get $i) (local.get $n) (i32.const 16))
         (call $return (i32.const 0) (i32.load (i32.const 16)) (i32.const 0) (i64.const 0)
           (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
    )
}

/// Each event has arrived before the next one is sent.
#[test]
fn events_arrive_one_by_one() {
    for guest in [echo(), pass_on()] {
        let node = Node::serve(&guest);
        let mut wire = Wire::connect(node.address());
        wire.send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
        wire.send("9\r\ndata: 0\n\n\r\n");
        assert_eq!(wire.line().as_deref(), Some("HTTP/1.1 200 OK"));
        while wire.line().is_some_and(|line| !line.is_empty()) {}
        for event in 1..4 {
            let mut received = Vec::new();
            while !received.ends_with(b"\n\n") {
                received.extend(wire.chunk());
            }
            assert_eq!(received, format!("data: {}\n\n", event - 1).as_bytes());
            wire.send(format!("9\r\ndata: {event}\n\n\r\n"));
        }
        wire.send("0\r\n\r\n");
        while !wire.chunk().is_empty() {}
        assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
        node.is_quiet();
    }
}

/// A body that exceeds every window on its way, in both directions at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_echo_streams_through_all_windows() {
    for guest in [echo(), pass_on()] {
        let node = Node::serve(&guest);
        let sent: Bytes = (0..6_u32 << 20).map(|at| (at % 251) as u8).collect();
        let request = Request::post("http://h.example/")
            .body(Full::new(sent.clone()))
            .unwrap();
        let mut client = h2::connect(node.address()).await;
        let response = client.send_request(request).await.unwrap();
        let received = response.into_body().collect().await.unwrap().to_bytes();
        assert!(received == sent, "{} bytes", received.len());
        assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
    }
}

#[test]
fn trailers_follow_the_body() {
    let trailers = r#"(data (i32.const 4112) "grpc-status0")"#;
    let body = format!(
        "{BEGIN}
         (local.set $h (call $fields))
         (call $header (local.get $h) (i32.const 4112) (i32.const 11) (i32.const 4123) (i32.const 1))
         (call $end (local.get $h))"
    );
    let node = Node::serve(&service(&format!("{HELLO} {trailers}"), &body));
    let reply = once(
        node.address(),
        "GET / HTTP/1.1\r\nhost: h\r\nte: trailers\r\n\r\n",
    );
    assert_eq!((reply.text().as_str(), reply.whole), ("hello\n", true));
    assert_eq!(reply.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// A guest that traps in its body: the head may have been sent before that or not.
#[test]
fn a_body_that_a_trap_ends_is_incomplete() {
    let pause = "(call $sleep (i64.const 100000000))";
    let length = r#"(data (i32.const 4112) "content-length12")"#;
    let promised = "
        (local.set $h (call $fields))
        (call $header (local.get $h) (i32.const 4112) (i32.const 14) (i32.const 4126) (i32.const 2))
        (call $respond (local.get $h) (i32.const 200))
        (drop (call $write (i32.const 4096) (i32.const 6)))";
    for begin in [
        BEGIN.to_owned(),
        format!("{BEGIN} {pause}"),
        promised.to_owned(),
        format!("{promised} {pause}"),
    ] {
        let guest = service(
            &format!("{HELLO} {length}"),
            &format!("{begin} unreachable"),
        );
        let node = Node::serve(&guest);
        let reply = get(node.address(), "/");
        assert!(reply.status == 500 || !reply.whole, "{begin}: {reply:?}");
        assert!(node.outcomes(1)[0].starts_with("trap "), "{begin}");
        assert_eq!(node.failures(), ["trap 1"], "{begin}");
        node.is_quiet();
    }
}

#[test]
fn a_body_shorter_than_its_length_is_an_error() {
    let length = r#"(data (i32.const 4112) "content-length9")"#;
    let body = "
        (local.set $h (call $fields))
        (call $header (local.get $h) (i32.const 4112) (i32.const 14) (i32.const 4126) (i32.const 1))
        (call $respond (local.get $h) (i32.const 200))
        (drop (call $write (i32.const 4096) (i32.const 6)))
        (call $end (i32.const 0))";
    let node = Node::serve(&service(&format!("{HELLO} {length}"), body));
    let reply = get(node.address(), "/");
    assert!(reply.status == 502 || !reply.whole, "{reply:?}");
    assert!(node.outcomes(1)[0].starts_with("guest_error "));
    assert_eq!(node.failures(), ["bad_length 1"]);
    node.is_quiet();
}

#[test]
fn a_request_body_above_the_limit_is_an_error_to_the_guest() {
    is_not_blamed_for_a_large_body(&echo());
}

/// The node waits with the head for the turn of a guest that computes, and the guest traps on the error meanwhile, unless its
/// turns were long. That is a fault of the client, not of the revision.
#[test]
fn a_guest_that_fails_because_of_its_client_is_not_at_fault() {
    let body = format!(
        "(local.set $i (call $body-of (local.get $req)))
         {BEGIN}
         (local.set $n (i32.const 20000000))
         (loop $on (br_if $on (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
         (loop $more
           (local.set $n (call $read (local.get $i) (i32.const 32768) (i32.const 32768)))
           (br_if $more (i32.eqz (i32.and (local.get $n) (i32.const 15)))))
         (if (call $broken) (then unreachable))
         (call $end (i32.const 0))"
    );
    is_not_blamed_for_a_large_body(&service(HELLO, &body));
}

fn is_not_blamed_for_a_large_body(guest: &[u8]) {
    let node = Setup::limits(|l| l.request_body = 10).start(guest);
    let reply = once(
        node.address(),
        "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n0\r\n\r\n",
    );
    assert!(!reply.whole || reply.status == 413, "{reply:?}");
    assert!(node.outcomes(1)[0].starts_with("client "));
    assert_eq!(node.failures(), ["body_too_large 1"]);
    node.is_quiet();
}

/// What the guest writes is discarded, and a guest that writes without end is stopped.
#[test]
fn a_response_to_head_has_no_body() {
    let flood = "(call $respond (call $fields) (i32.const 200))
        (loop $more (br_if $more (call $write (i32.const 4096) (i32.const 4096))))";
    let node = Setup::limits(|l| l.timeout = Duration::from_secs(20)).start(&service("", flood));
    let mut wire = Wire::connect(node.address());
    wire.send("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(wire.read_head_only().unwrap().status, 200);
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
    node.is_quiet();
}
