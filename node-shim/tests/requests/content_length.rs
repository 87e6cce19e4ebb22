//! Invalid `content-length` values of guests, and the next response on the same connection.

use crate::guests;
use crate::reuse::setup;
use crate::support::component::guest;
use crate::support::node::Node;
use crate::support::wire::{Wire, get};

/// Responds to the first request with `status`, a declared length of 4 and `sent` bytes of body, and to
/// every other request with `next`.
fn first(status: u16, sent: u32) -> Vec<u8> {
    ending(status, sent, "(drop (call $finish (local.get $b)))")
}

/// Is [`first`], with another end of the handler.
fn ending(status: u16, sent: u32, end: &str) -> Vec<u8> {
    guest(
        r#"(import "wasi:http/types@0.2.12" "[resource-drop]incoming-request" (func $request-drop (param i32)))
        (data (i32.const 4096) "content-length4") (data (i32.const 4128) "next")"#,
        &format!(
            "
        (call $request-path (local.get $req) (i32.const 64))
        (call $request-drop (local.get $req))
        (if (i32.ne (i32.load (i32.const 72)) (i32.const 1)) (then
          (call $answer (local.get $out) (i32.const 200) (i32.const 4128) (i32.const 4))
          (return)))
        (local.set $i (call $fields))
        (drop (call $header (local.get $i) (i32.const 4096) (i32.const 14) (i32.const 4110) (i32.const 1)))
        (local.set $r (call $response (local.get $i)))
        (drop (call $set-status (local.get $r) (i32.const {status})))
        (local.set $b (call $body (local.get $r)))
        (call $set (local.get $out) (local.get $r))
        (local.set $s (call $open (local.get $b)))
        (if (i32.const {sent}) (then (drop (call $write (local.get $s) (i32.const 4128) (i32.const {sent})))))
        (call $stream-drop (local.get $s))
        {end}"
        ),
    )
}

/// HG-17: a length on a response without a body does not affect the response to the next request.
#[test]
fn hg_17_a_length_without_a_body_does_not_affect_the_next_response() {
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 304)] {
        for sent in [0, 2, 4, 6] {
            let node = Node::serve(&first(status, sent));
            let mut wire = Wire::connect(node.address());
            wire.send(format!("{method} / HTTP/1.1\r\nhost: h\r\n\r\n"));
            let reply = wire.read_head_only().unwrap();
            assert_eq!(reply.status, status, "{method} {sent}");
            wire.send("GET /next HTTP/1.1\r\nhost: h\r\n\r\n");
            let reply = wire.read().unwrap();
            assert_eq!(
                (reply.status, reply.text().as_str()),
                (200, "next"),
                "{method} {status} {sent}"
            );
            node.is_quiet();
        }
    }
}

/// Frameworks answer HEAD with the length that the body of GET has, and fail when the end of their own one is refused.
#[test]
fn the_length_in_a_response_without_a_body_is_not_compared_with_its_body() {
    let strict = "(if (call $finish (local.get $b)) (then unreachable))";
    for (method, status, sent, expected) in [
        ("HEAD", 200, 0, (200, "")),
        ("HEAD", 200, 4, (200, "")),
        ("GET", 204, 0, (204, "")),
        ("GET", 304, 0, (304, "")),
        ("GET", 200, 4, (200, "")),
        ("GET", 200, 0, (500, "trap")),
    ] {
        let node = Node::serve(&ending(status, sent, strict));
        let mut wire = Wire::connect(node.address());
        wire.send(format!("{method} / HTTP/1.1\r\nhost: h\r\n\r\n"));
        let reply = wire.read_head_only().unwrap();
        assert_eq!(
            reply.status_and_error(),
            expected,
            "{method} {status} {sent}"
        );
        if method == "HEAD" {
            assert_eq!(reply.header("content-length"), Some("4"));
        }
        node.is_quiet();
        assert_eq!(node.failures().is_empty(), expected.1.is_empty());
    }
}

/// Each request of an instance decides about its own response.
#[test]
fn the_length_of_a_body_counts_again_after_a_request_without_one() {
    let strict = "(if (call $finish (local.get $b)) (then unreachable))";
    let node = setup(9).start(&ending(200, 0, strict));
    assert_eq!(get(node.address(), "/next").text(), "next");
    node.has_idle(1);
    let mut client = Wire::connect(node.address());
    client.send("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n");
    let reply = client.read_head_only().unwrap();
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (200, Some("4"))
    );
    node.has_idle(1);
    let counters = node.plane.node_counters();
    assert_eq!((counters.reuses(), counters.reruns()), (1, 0));
    let reply = get(node.address(), "/");
    assert_eq!(reply.status_and_error(), (500, "trap"));
    assert_eq!(counters.reuses(), 2);
}

/// HG-17: a length that is not a number, or a second length, is rejected.
#[test]
fn hg_17_an_invalid_length_is_not_sent() {
    for value in ["", "+4", "-1", " 4", "4, 4", "0x4", "99999999999999999999"] {
        let node = Node::serve(&guests::header("content-length", value));
        let mut wire = Wire::connect(node.address());
        let reply = wire
            .send("GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            .read()
            .unwrap();
        assert_eq!(reply.status, 418, "{value:?}");
    }
    for second in ["4", "5"] {
        let text = format!(
            r#"(data (i32.const 4096) "content-length4") (data (i32.const 4128) "{second}")"#
        );
        let node = Node::serve(&guest(
            &text,
            "
            (local.set $i (call $fields))
            (drop (call $header (local.get $i) (i32.const 4096) (i32.const 14) (i32.const 4110) (i32.const 1)))
            (local.set $n (call $header (local.get $i) (i32.const 4096) (i32.const 14) (i32.const 4128) (i32.const 1)))
            (call $answer (local.get $out) (i32.add (i32.const 200) (local.get $n)) (i32.const 4096) (i32.const 4))",
        ));
        let mut wire = Wire::connect(node.address());
        let reply = wire
            .send("GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            .read()
            .unwrap();
        assert_eq!(reply.status, 201, "{second}");
    }
}
