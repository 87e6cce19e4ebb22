//! Trailers of responses: which are allowed and how they are sent with each protocol.

use http_body_util::BodyExt;

use crate::support::node::{Node, eventually};
use crate::support::wire::{Reply, once};
use crate::support::{component, h2};

const DATA: &str = r#"
(data (i32.const 4096) "hello\n") (data (i32.const 4112) "grpc-status0")
(data (i32.const 4128) "host") (data (i32.const 4136) "x-forwarded-for")
(data (i32.const 4160) "trailer") (data (i32.const 4168) "Grpc-Status, x-forwarded-for")
(data (i32.const 4200) "content-length6")"#;

/// Sends a head with the fields that `fields` adds to `$i`, a body, `pause`, and the trailers `grpc-status` and
/// two that are not allowed.
pub(crate) fn guest(fields: &str, pause: &str) -> Vec<u8> {
    let body = format!(
        "
        (local.set $i (call $fields))
        {fields}
        (local.set $r (call $response (local.get $i)))
        (local.set $b (call $body (local.get $r)))
        (call $set (local.get $out) (local.get $r))
        (local.set $s (call $open (local.get $b)))
        (drop (call $write (local.get $s) (i32.const 4096) (i32.const 6)))
        (call $stream-drop (local.get $s))
        {pause}
        (local.set $i (call $fields))
        (drop (call $header (local.get $i) (i32.const 4112) (i32.const 11) (i32.const 4123) (i32.const 1)))
        (drop (call $header (local.get $i) (i32.const 4128) (i32.const 4) (i32.const 4123) (i32.const 1)))
        (drop (call $header (local.get $i) (i32.const 4136) (i32.const 15) (i32.const 4123) (i32.const 1)))
        (call $body-finish (local.get $b) (i32.const 1) (local.get $i) (i32.const 32))"
    );
    component::guest(DATA, &body)
}

pub(crate) const ANNOUNCED: &str = "
    (drop (call $header (local.get $i) (i32.const 4160) (i32.const 7) (i32.const 4168) (i32.const 28)))";
const LENGTH: &str = "
    (drop (call $header (local.get $i) (i32.const 4200) (i32.const 14) (i32.const 4214) (i32.const 1)))";
/// Pause that is long enough for the head to be sent first.
pub(crate) const PAUSE: &str = "(call $sleep (i64.const 100000000))";

fn ask(node: &Node, te: &str) -> Reply {
    let reply = once(
        node.address(),
        format!("GET / HTTP/1.1\r\nhost: h\r\n{te}\r\n"),
    );
    assert_eq!((reply.text().as_str(), reply.whole), ("hello\n", true));
    reply
}

fn sent(reply: &Reply) -> Vec<(&str, &str)> {
    let trailers = reply.trailers.iter();
    trailers
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

const TE: &str = "te: gzip, trailers\r\n";

/// HG-18: only allowed trailers are sent on HTTP/2.
#[tokio::test]
async fn hg_18_allowed_trailers_are_sent_on_http_2() {
    for pause in ["", PAUSE] {
        let node = Node::serve(&guest("", pause));
        let response = h2::get(node.address(), "/").await;
        let collected = response.into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap();
        assert_eq!(trailers.get("grpc-status").unwrap(), "0");
        assert_eq!(trailers.len(), 1, "{trailers:?}");
        assert_eq!(collected.to_bytes(), "hello\n");
        assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
    }
}

/// HG-18: on HTTP/1.1, allowed trailers are announced in the head.
#[test]
fn hg_18_trailers_of_a_complete_response_are_sent_on_http_1_if_accepted() {
    let node = Node::serve(&guest("", ""));
    // if an epoch ends inside the guest, the head is sent before the trailers are known
    eventually("a response with trailers", || {
        let reply = ask(&node, TE);
        assert_eq!(reply.header("content-length"), None);
        assert!(
            reply.header("trailer").is_some() || reply.trailers.is_empty(),
            "{reply:?}"
        );
        reply.header("trailer") == Some("grpc-status") && sent(&reply) == [("grpc-status", "0")]
    });
    let plain = ask(&node, "");
    assert_eq!((plain.header("trailer"), sent(&plain)), (None, vec![]));
}

/// HG-18: announced trailers are filtered like sent ones.
#[test]
fn hg_18_announced_trailers_are_sent_after_a_stream_on_http_1() {
    let node = Node::serve(&guest(ANNOUNCED, PAUSE));
    let reply = ask(&node, TE);
    assert_eq!(reply.header("trailer"), Some("grpc-status"));
    assert_eq!(sent(&reply), [("grpc-status", "0")]);
    let plain = ask(&node, "");
    assert_eq!((plain.header("trailer"), sent(&plain)), (None, vec![]));
    assert_eq!(node.outcomes(2), ["ok 2xx 2"]);
}

/// HG-18: trailers after a body with a declared length are dropped.
#[test]
fn hg_18_trailers_that_cannot_be_sent_are_dropped() {
    for fields in ["", LENGTH] {
        let node = Node::serve(&guest(fields, PAUSE));
        let reply = ask(&node, TE);
        assert_eq!((reply.header("trailer"), sent(&reply)), (None, vec![]));
        assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
    }
    let node = Node::serve(&guest(LENGTH, ""));
    let reply = ask(&node, TE);
    assert_eq!(reply.header("content-length"), Some("6"));
    assert_eq!((reply.header("trailer"), sent(&reply)), (None, vec![]));
}

#[test]
fn an_http_1_0_client_gets_no_trailers() {
    let node = Node::serve(&guest(ANNOUNCED, ""));
    let reply = once(
        node.address(),
        format!("GET / HTTP/1.0\r\nhost: h\r\n{TE}\r\n"),
    );
    assert_eq!((reply.text().as_str(), reply.whole), ("hello\n", true));
    assert_eq!(reply.header("trailer"), None);
}
