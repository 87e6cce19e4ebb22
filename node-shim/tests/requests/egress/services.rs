//! Outbound requests of components of WASI 0.3: they pass the same checks and counters.

use std::sync::mpsc::channel;

use parking_lot::Mutex;

use super::hops::field;
use super::origin::{PUBLIC, TestNetwork, origin};
use super::{HELLO, PATIENCE, answering, counted, messages, setup};
use crate::support::node::eventually;
use crate::support::service::service;
use crate::support::wire::{Wire, get, once};

/// Returns a guest that sends the body of its request to a server and passes the response on. An error code becomes status
/// 200 + code.
fn guest(authority: &str) -> Vec<u8> {
    declaring("", authority)
}

/// Is [`guest`] with an outbound request that declares a length of one digit, unless it is empty.
fn declaring(length: &str, authority: &str) -> Vec<u8> {
    let declare = if length.is_empty() {
        ""
    } else {
        "(call $header (local.get $h) (i32.const 4608) (i32.const 14) (i32.const 4622) (i32.const 1))"
    };
    let items = format!(
        r#"
        (import "wasi:http/types@0.3.0" "[static]request.new" (func $request-new (param i32 i32 i32 i32 i32 i32 i32)))
        (import "wasi:http/types@0.3.0" "[future-new-1][static]request.new" (func $request-trailers-new (result i64)))
        (import "wasi:http/types@0.3.0" "[future-drop-readable-2][static]request.new" (func $uploaded-drop (param i32)))
        (import "wasi:http/types@0.3.0" "[method]request.set-method" (func $set-method (param i32 i32 i32 i32) (result i32)))
        (import "wasi:http/types@0.3.0" "[method]request.set-scheme" (func $set-scheme (param i32 i32 i32 i32 i32) (result i32)))
        (import "wasi:http/types@0.3.0" "[method]request.set-authority" (func $set-authority (param i32 i32 i32 i32) (result i32)))
        (import "wasi:http/types@0.3.0" "[method]request.set-path-with-query" (func $set-path (param i32 i32 i32 i32) (result i32)))
        (import "wasi:http/types@0.3.0" "[method]response.get-status-code" (func $status (param i32) (result i32)))
        (import "wasi:http/types@0.3.0" "[static]response.consume-body" (func $response-consume (param i32 i32 i32)))
        (import "wasi:http/types@0.3.0" "[future-new-0][static]response.consume-body" (func $response-consumed-new (result i64)))
        (import "wasi:http/types@0.3.0" "[async-lower][stream-read-1][static]response.consume-body" (func $response-read-start (param i32 i32 i32) (result i32)))
        (import "wasi:http/client@0.3.0" "send" (func $send (param i32 i32)))
        (data (i32.const 4096) "/v1?x=1{authority}") (data (i32.const 4608) "content-length{length}")"#
    );
    let body = format!(
        "(local.set $h (call $fields)) {declare}
         (call $request-new (local.get $h) (i32.const 1) (call $body-of (local.get $req))
           (i32.wrap_i64 (call $request-trailers-new)) (i32.const 0) (i32.const 0) (i32.const 16))
         (call $uploaded-drop (i32.load (i32.const 20)))
         (local.set $i (i32.load (i32.const 16)))
         (drop (call $set-method (local.get $i) (i32.const 2) (i32.const 0) (i32.const 0)))
         (drop (call $set-scheme (local.get $i) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
         (drop (call $set-authority (local.get $i) (i32.const 1) (i32.const 4103) (i32.const {})))
         (drop (call $set-path (local.get $i) (i32.const 1) (i32.const 4096) (i32.const 7)))
         (call $send (local.get $i) (i32.const 64))
         (if (i32.load8_u (i32.const 64)) (then
           (call $answer (i32.add (i32.const 200) (i32.load8_u (i32.const 72))) (i32.const 0) (i32.const 0))
           (return (i32.const 0))))
         (local.set $i (i32.load (i32.const 72)))
         (call $respond (call $fields) (call $status (local.get $i)))
         (call $response-consume (local.get $i) (i32.wrap_i64 (call $response-consumed-new)) (i32.const 16))
         (local.set $i (i32.load (i32.const 16)))
         (block $end (loop $more
           (local.set $n (call $await (local.get $i) (call $response-read-start (local.get $i) (i32.const 32768) (i32.const 32768))))
           (br_if $end (i32.eqz (call $write (i32.const 32768) (i32.shr_u (local.get $n) (i32.const 4)))))
           (br_if $more (i32.eqz (i32.and (local.get $n) (i32.const 15))))))
         (call $end (i32.const 0))",
        authority.len()
    );
    service(&items, &body)
}

#[test]
fn an_allowed_request_of_a_service_is_sent_with_its_host() {
    let (address, heads) = answering(HELLO);
    let network = TestNetwork::to(address);
    let node = setup(&network, &["http://api.example:8080"]).start(&guest("API.example.:8080"));
    let reply = get(node.address(), "/");
    assert_eq!((reply.status, reply.text().as_str()), (201, "hello"));
    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with("POST /v1?x=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: api.example:8080\r\n"), "{head}");
    assert_eq!(network.connected(), [format!("{PUBLIC}:8080")]);
    assert_eq!(counted(&node), ["requests_total outcome=response 1"]);
    node.is_quiet();
}

#[test]
fn a_request_of_a_service_that_no_entry_allows_is_denied() {
    let (address, _heads) = answering(HELLO);
    let network = TestNetwork::to(address);
    let node = setup(&network, &["http://other.example"]).start(&guest("api.example"));
    // the code is `HTTP-request-denied`
    assert_eq!(get(node.address(), "/").status, 215);
    assert_eq!(counted(&node), ["denied_total reason=not_allowed 1"]);
    assert!(network.connected().is_empty());
    eventually("the denial is in the log", || {
        messages(&node)
            .iter()
            .any(|message| message.contains(r#"egress.allow: ["http://api.example"]"#))
    });
    node.is_quiet();
}

/// The server has not answered when the body ends, so the function learns what was wrong with its request.
#[test]
fn a_body_that_has_not_the_declared_length_is_an_error_with_its_size() {
    let address = origin(|mut exchange| {
        let _ = exchange.until("\r\n\r\nalphabet");
    });
    let network = TestNetwork::to(address);
    let guest = declaring("4", "api.example");
    let node = setup(&network, &["http://api.example"]).start(&guest);
    for body in ["abc", "alpha"] {
        let mut wire = Wire::connect(node.address());
        let length = body.len();
        wire.send(format!(
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
        // the code is `HTTP-request-body-size`
        assert_eq!(wire.read().unwrap().status, 217, "{body}");
    }
    node.is_quiet();
}

#[test]
fn both_bodies_of_a_service_are_streamed() {
    let (seen, parts) = channel();
    let (go, gate) = channel::<()>();
    let (seen, gate) = (Mutex::new(seen), Mutex::new(gate));
    let address = origin(move |mut exchange| {
        let head = exchange.head().unwrap();
        for end in ["first\r\n", "second\r\n", "0\r\n\r\n"] {
            let part = exchange.until(end).unwrap();
            let _ = seen.lock().send(format!("{head}{part}"));
        }
        exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nalpha\r\n");
        let _ = gate.lock().recv_timeout(PATIENCE);
        exchange.send("4\r\nbeta\r\n0\r\n\r\n");
    });
    let network = TestNetwork::to(address);
    let node = setup(&network, &["http://api.example"]).start(&guest("api.example"));
    let mut wire = Wire::connect(node.address());
    wire.send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    parts.recv_timeout(PATIENCE).unwrap();
    wire.send("6\r\nsecond\r\n0\r\n\r\n");
    parts.recv_timeout(PATIENCE).unwrap();
    while wire.line().unwrap() != "alpha" {}
    go.send(()).unwrap();
    while wire.line().unwrap() != "beta" {}
    node.outcomes(1);
    node.is_quiet();
}

/// Sends `GET /` to `api.example` and keeps nothing of its requests and responses, unless `drop` is empty.
fn asking(drop: &str) -> Vec<u8> {
    let items = format!(
        r#"
        (import "wasi:http/types@0.3.0" "[resource-drop]request" (func $request-drop (param i32)))
        (import "wasi:http/types@0.3.0" "[resource-drop]response" (func $response-drop (param i32)))
        (import "wasi:http/types@0.3.0" "[static]request.new" (func $request-new (param i32 i32 i32 i32 i32 i32 i32)))
        (import "wasi:http/types@0.3.0" "[future-new-1][static]request.new" (func $request-trailers-new (result i64)))
        (import "wasi:http/types@0.3.0" "[async-lower][future-write-1][static]request.new" (func $request-trailers-write-start (param i32 i32) (result i32)))
        (import "wasi:http/types@0.3.0" "[future-drop-writable-1][static]request.new" (func $request-trailers-drop (param i32)))
        (import "wasi:http/types@0.3.0" "[future-drop-readable-2][static]request.new" (func $uploaded-drop (param i32)))
        (import "wasi:http/types@0.3.0" "[method]request.set-scheme" (func $set-scheme (param i32 i32 i32 i32 i32) (result i32)))
        (import "wasi:http/types@0.3.0" "[method]request.set-authority" (func $set-authority (param i32 i32 i32 i32) (result i32)))
        (import "wasi:http/types@0.3.0" "[method]request.set-path-with-query" (func $set-path (param i32 i32 i32 i32) (result i32)))
        (import "wasi:http/client@0.3.0" "send" (func $send (param i32 i32)))
        (global $count (mut i32) (i32.const 199))
        (data (i32.const 4096) "api.example/")
        (func $ask
          (local $trailers i64) (local $i i32) (local $end i32) (local $written i32)
          (local.set $trailers (call $request-trailers-new))
          (call $request-new (call $fields) (i32.const 0) (i32.const 0) (i32.wrap_i64 (local.get $trailers))
            (i32.const 0) (i32.const 0) (i32.const 16))
          (call $uploaded-drop (i32.load (i32.const 20)))
          (local.set $i (i32.load (i32.const 16)))
          (drop (call $set-scheme (local.get $i) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
          (drop (call $set-authority (local.get $i) (i32.const 1) (i32.const 4096) (i32.const 11)))
          (drop (call $set-path (local.get $i) (i32.const 1) (i32.const 4107) (i32.const 1)))
          ;; the body ends when the host reads this
          (local.set $end (i32.wrap_i64 (i64.shr_u (local.get $trailers) (i64.const 32))))
          (local.set $written (call $request-trailers-write-start (local.get $end) (i32.const 2048)))
          (call $send (local.get $i) (i32.const 64))
          (if (i32.load8_u (i32.const 64)) (then unreachable))
          {drop}
          (drop (call $await (local.get $end) (local.get $written)))
          (call $request-trailers-drop (local.get $end)))"#
    );
    let body = "
        (global.set $count (i32.add (global.get $count) (i32.const 1)))
        (call $request-drop (local.get $req))
        (call $ask)
        (call $answer (global.get $count) (i32.const 0) (i32.const 0))";
    service(&items, body)
}

const DROP_RESPONSE: &str = "(call $response-drop (i32.load (i32.const 72)))";

/// The outbound requests of a used instance belong to the request that it answers.
#[test]
fn a_used_instance_of_a_service_sends_requests_for_its_own_request() {
    let (address, heads) = answering(HELLO);
    let network = TestNetwork::to(address);
    let mut setup = setup(&network, &["http://api.example"]);
    setup.options.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    setup.reuse.max_requests = 9;
    setup.reuse.idle_timeout = PATIENCE;
    let keeping = setup.clone().start(&asking(""));
    assert_eq!(get(keeping.address(), "/").status, 200);
    keeping.has_idle(0);
    assert_eq!(keeping.drops(), ["resources 1"], "the response is kept");
    heads.recv_timeout(PATIENCE).unwrap();

    let node = setup.start(&asking(DROP_RESPONSE));
    for (trace, status) in [("a", 200), ("b", 201), ("c", 202)] {
        let trace = trace.repeat(32);
        let request = format!(
            "GET / HTTP/1.1\r\nhost: h\r\ntraceparent: 00-{trace}-b7ad6b7169203331-01\r\n\r\n"
        );
        assert_eq!(once(node.address(), &request).status, status);
        node.has_idle(1);
        let head = heads.recv_timeout(PATIENCE).unwrap();
        let parent = field(&head, "traceparent").unwrap();
        assert!(parent.contains(&trace), "{parent}");
    }
    assert_eq!(counted(&node), ["requests_total outcome=response 3"]);
}
