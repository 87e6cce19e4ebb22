//! Instances of components of WASI 0.3 that answer more than one request, by the same rules as those of WASI 0.2
//! ([`crate::reuse`]).

use std::time::Duration;

use crate::reuse::{answered, at_once, post, reused_after_responses_without_a_body, second, setup};
use crate::support::node::eventually;
use crate::support::service::service;
use crate::support::wire::{Wire, get};

const DROP: &str = "(call $request-drop (local.get $req))";

/// Is [`crate::reuse::counting`] for WASI 0.3.
pub(crate) fn counting(act: &str) -> Vec<u8> {
    counting_with("", &format!("{act} {DROP}"), "")
}

/// `act` has to drop the request, and `after` runs after the response.
fn counting_with(items: &str, act: &str, after: &str) -> Vec<u8> {
    service(
        &format!(
            r#"(import "wasi:http/types@0.3.0" "[resource-drop]request" (func $request-drop (param i32)))
            {items}
            (global $count (mut i32) (i32.const 48))"#
        ),
        &format!(
            "
            (global.set $count (i32.add (global.get $count) (i32.const 1)))
            (i32.store8 (i32.const 4096) (global.get $count))
            {act}
            (call $answer (i32.const 200) (i32.const 4096) (i32.const 1))
            {after}"
        ),
    )
}

#[test]
fn an_instance_of_a_service_answers_as_many_requests_as_it_may() {
    let node = setup(3).start(&counting(""));
    answered(&node, "1");
    answered(&node, "2");
    assert_eq!(get(node.address(), "/").text(), "3");
    node.has_idle(0);
    assert_eq!(node.drops(), ["requests 1"]);
    answered(&node, "1");
    assert_eq!(node.plane.node_counters().reuses(), 2);
    assert_eq!(node.outcomes(4), ["ok 2xx 4"]);
}

#[test]
fn every_request_to_a_service_gets_a_fresh_instance_by_default() {
    let node = setup(1).start(&counting(""));
    for _ in 0..3 {
        assert_eq!(get(node.address(), "/").text(), "1");
        node.has_idle(0);
    }
    assert!(node.drops().is_empty());
}

#[test]
fn idle_instances_of_a_service_expire() {
    let mut setup = setup(9);
    setup.reuse.idle_timeout = Duration::from_millis(1);
    let node = setup.start(&counting(""));
    assert_eq!(get(node.address(), "/").text(), "1");
    eventually("the instance expires", || node.drops() == ["idle 1"]);
    node.has_idle(0);
}

/// Reads the body of the request and keeps nothing of it, nor of the request.
const READ_AND_DROP: &str = r#"
    (import "wasi:http/types@0.3.0" "[async-lower][future-write-0][static]request.consume-body" (func $consumed-write-start (param i32 i32) (result i32)))
    (import "wasi:http/types@0.3.0" "[future-drop-writable-0][static]request.consume-body" (func $consumed-drop (param i32)))
    (import "wasi:http/types@0.3.0" "[stream-drop-readable-1][static]request.consume-body" (func $contents-drop (param i32)))
    (import "wasi:http/types@0.3.0" "[future-drop-readable-2][static]request.consume-body" (func $received-drop (param i32)))
    (func $read-and-drop (param $req i32)
      (local $consumed i64) (local $i i32)
      (local.set $consumed (call $consumed-new))
      (call $consume (local.get $req) (i32.wrap_i64 (local.get $consumed)) (i32.const 16))
      (local.set $i (i32.load (i32.const 16)))
      (global.set $received-trailers (i32.load (i32.const 20)))
      (loop $more
        (br_if $more (i32.eqz (i32.and (call $read (local.get $i) (i32.const 32768) (i32.const 4096)) (i32.const 15)))))
      (call $contents-drop (local.get $i))
      (drop (call $broken))
      (call $received-drop (global.get $received-trailers))
      (local.set $i (i32.wrap_i64 (i64.shr_u (local.get $consumed) (i64.const 32))))
      (drop (call $await (local.get $i) (call $consumed-write-start (local.get $i) (i32.const 2048))))
      (call $consumed-drop (local.get $i)))"#;

#[test]
fn requests_to_a_service_at_the_same_time_have_instances_of_their_own() {
    let guest = counting_with(READ_AND_DROP, "(call $read-and-drop (local.get $req))", "");
    let node = setup(9).start(&guest);
    answered(&node, "1");
    assert_eq!(at_once(&node, "h", 3), ["1", "1", "2"]);
}

/// The clients get no body, whatever the guest writes.
#[test]
fn an_instance_of_a_service_is_reused_after_responses_without_a_body() {
    let third = format!(
        "(if (i32.eq (global.get $count) (i32.const 51)) (then
          {DROP}
          (call $answer (i32.const 204) (i32.const 4096) (i32.const 1))
          (return (i32.const 0))))"
    );
    reused_after_responses_without_a_body(&setup(9).start(&counting(&third)));
}

/// Entries of a key-value store tell what other requests have done.
const ENTRIES: &str = r#"
    (import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
    (import "wasi:keyvalue/store@0.2.0-draft2" "[resource-drop]bucket" (func $bucket-drop (param i32)))
    (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.get" (func $get (param i32 i32 i32 i32)))
    (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))
    (data (i32.const 4200) "cart") (data (i32.const 4208) "first") (data (i32.const 4216) "other")
    (func $cart (result i32)
      (call $open (i32.const 4200) (i32.const 4) (i32.const 64))
      (if (i32.load8_u (i32.const 64)) (then unreachable))
      (i32.load (i32.const 68)))
    (func $has (param $bucket i32) (param $key i32) (result i32)
      (call $get (local.get $bucket) (local.get $key) (i32.const 5) (i32.const 128))
      (if (i32.load8_u (i32.const 128)) (then unreachable))
      (i32.load8_u (i32.const 132)))
    (func $put (param $bucket i32) (param $key i32)
      (call $set (local.get $bucket) (local.get $key) (i32.const 5) (local.get $key) (i32.const 1) (i32.const 192)))"#;

/// The task of the first request waits, after its response, for another request.
#[test]
fn an_instance_that_works_after_its_response_is_reused_when_that_has_ended() {
    let act = format!(
        "(local.set $i (call $cart))
        (call $put (local.get $i)
          (if (result i32) (call $has (local.get $i) (i32.const 4208))
            (then (i32.const 4216)) (else (i32.const 4208))))
        {DROP}"
    );
    let after = "
        (loop $wait (if (i32.eqz (call $has (local.get $i) (i32.const 4216)))
          (then (call $sleep (i64.const 20000000)) (br $wait))))
        (call $bucket-drop (local.get $i))";
    let mut setup = setup(9);
    setup.key_value = vec!["cart"];
    let node = setup.start(&counting_with(ENTRIES, &act, after));
    assert_eq!(get(node.address(), "/").text(), "1");
    assert_eq!(node.plane.idle_instances(), 0);
    assert_eq!(get(node.address(), "/").text(), "1");
    node.has_idle(2);
    assert_eq!(node.plane.node_counters().reuses(), 0);
    assert_eq!(get(node.address(), "/").text(), "2");
}

/// An instance is dropped when it has grown, when something of its request is left, and when it turns away calls.
///
/// What is left is found by `Store::concurrent_state_table_size`, which wasmtime has for its own tests and does not document.
/// After an upgrade of wasmtime, it must exist, count each kind of leftover here, and be zero after a call that leaves
/// nothing, which the other tests and `e2e/tests/live/languages.rs` show.
#[test]
fn what_an_instance_of_a_service_may_not_keep_ends_it() {
    let items = r#"
        (import "wasi:http/types@0.3.0" "[method]request.get-headers" (func $request-headers (param i32) (result i32)))
        (import "wasi:clocks/monotonic-clock@0.3.0" "[async-lower]wait-for" (func $sleep-start (param i64) (result i32)))
        (import "$root" "[backpressure-inc]" (func $turn-away))"#;
    let keeps_the_request =
        format!("(if (i32.eq (global.get $count) (i32.const 49)) (then {DROP}))");
    let and_drops = |act: &str| format!("{} {DROP}", second(act));
    for (act, cause) in [
        (and_drops("(drop (memory.grow (i32.const 64)))"), "memory 1"),
        (keeps_the_request, "resources 1"),
        (
            and_drops("(drop (call $request-headers (local.get $req)))"),
            "resources 1",
        ),
        (
            and_drops("(drop (call $sleep-start (i64.const 3600000000000)))"),
            "resources 1",
        ),
        (and_drops("(drop (call $body-new))"), "resources 1"),
        (and_drops("(drop (call $set-new))"), "resources 1"),
        (and_drops("(call $turn-away)"), "resources 1"),
    ] {
        let node = setup(9).start(&counting_with(items, &act, ""));
        answered(&node, "1");
        assert_eq!(get(node.address(), "/").text(), "2", "{act}");
        node.has_idle(0);
        assert_eq!(node.drops(), [cause], "{act}");
    }
}

/// A guest that traps, that returns without a response, and that returns an error code.
#[test]
fn a_request_that_fails_on_a_used_instance_of_a_service_runs_again() {
    let error = "
        (call $return (i32.const 1) (i32.const 15) (i32.const 0) (i64.const 0)
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
        (return (i32.const 0))";
    for act in ["unreachable", "(return (i32.const 0))", error] {
        let node = setup(9).start(&counting(&second(act)));
        answered(&node, "1");
        answered(&node, "1");
        let reply = post(&node);
        assert_eq!(reply.text(), "1", "the body was not read");
        node.has_idle(1);
        let counters = node.plane.node_counters();
        assert_eq!((counters.reuses(), counters.reruns()), (2, 2), "{act}");
        assert_eq!(node.outcomes(3), ["ok 2xx 3"], "{act}");
        assert_eq!(node.drops(), ["failed 2"], "{act}");
    }
}

#[test]
fn a_request_to_a_service_does_not_run_again_after_its_body_or_its_head() {
    // the head is on its way when the first byte is taken
    let head = format!(
        "{DROP} (call $respond (call $fields) (i32.const 200))
        (drop (call $write (i32.const 4096) (i32.const 1))) unreachable"
    );
    let body = "(call $read-and-drop (local.get $req)) unreachable";
    for act in [head.as_str(), body] {
        let act = format!("{} {DROP}", second(act));
        let node = setup(9).start(&counting_with(READ_AND_DROP, &act, ""));
        answered(&node, "1");
        let reply = post(&node);
        assert!(reply.status == 500 || !reply.whole, "{reply:?}");
        node.has_idle(0);
        assert_eq!(node.drops(), ["failed 1"]);
        assert_eq!(node.plane.node_counters().reruns(), 0);
    }
}

/// The CPU time of a request, its timeout, and its end when the client leaves are those of a fresh instance.
#[test]
fn limits_hold_for_every_request_of_an_instance_of_a_service() {
    let short = Duration::from_millis(500);
    let sleep = second("(call $sleep (i64.const 3600000000000))");
    for (act, reason) in [
        (second("(loop $on (br $on))"), "cpu 1"),
        (sleep.clone(), "wall 1"),
    ] {
        let mut setup = setup(9);
        match reason {
            "cpu 1" => setup.limits.cpu = short,
            _ => setup.limits.timeout = short,
        }
        let node = setup.start(&counting(&act));
        answered(&node, "1");
        let reply = get(node.address(), "/");
        assert_eq!(reply.status_and_error(), (504, "deadline"));
        node.has_idle(0);
        assert_eq!(node.drops(), ["failed 1"]);
        assert_eq!(node.failures(), [reason]);
        answered(&node, "1");
    }

    let node = setup(9).start(&counting(&sleep));
    answered(&node, "1");
    let mut client = Wire::connect(node.address());
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    eventually("the guest runs", || node.plane.idle_instances() == 0);
    client.reset();
    eventually("the instance ends", || node.drops() == ["failed 1"]);
    node.outcomes(2);
    assert_eq!(node.failures(), ["client_gone 1"]);
}

/// The guest ends as if nothing had happened when the client leaves during the response.
#[test]
fn an_instance_whose_response_was_aborted_is_not_used_again() {
    let flood = format!(
        "{DROP} (call $respond (call $fields) (i32.const 200))
        (loop $more (br_if $more (call $write (i32.const 4096) (i32.const 4096))))
        (call $end (i32.const 0))
        (return (i32.const 0))"
    );
    let node = setup(9).start(&counting(&second(&flood)));
    answered(&node, "1");
    let mut client = Wire::connect(node.address());
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(client.line().as_deref(), Some("HTTP/1.1 200 OK"));
    client.reset();
    eventually("the instance ends", || node.drops() == ["failed 1"]);
    node.has_idle(0);
    answered(&node, "1");
}

/// Together, the requests compute for longer than one may.
#[test]
fn the_cpu_time_of_a_request_to_a_service_is_its_own() {
    let items = r#"
        (import "wasi:clocks/monotonic-clock@0.3.0" "now" (func $now (result i64)))
        (func $compute (local $end i64)
          (local.set $end (i64.add (call $now) (i64.const 200000000)))
          (loop $on (br_if $on (i64.lt_u (call $now) (local.get $end)))))"#;
    let mut setup = setup(9);
    setup.limits.cpu = Duration::from_millis(300);
    let node = setup.start(&counting_with(
        items,
        &format!("(call $compute) {DROP}"),
        "",
    ));
    for expected in 1..9 {
        answered(&node, &expected.to_string());
    }
}

/// Each request has its configuration, and may use 1,000 operations on stores.
#[test]
fn a_used_instance_of_a_service_has_what_belongs_to_its_request() {
    let items = format!(
        r#"(import "wasi:config/store@0.2.0-rc.1" "get" (func $config (param i32 i32 i32)))
        (data (i32.const 4224) "size") {ENTRIES}"#
    );
    let act = format!(
        "(i32.store (i32.const 268) (i32.const 0))
        (call $config (i32.const 4224) (i32.const 4) (i32.const 256))
        (if (i32.ne (i32.load (i32.const 268)) (i32.const 2)) (then unreachable))
        (local.set $n (i32.const 600))
        (loop $more
          (call $bucket-drop (call $cart))
          (br_if $more (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
        {DROP}"
    );
    let mut setup = setup(9);
    setup.config = vec![("size".to_owned(), "XL".to_owned())];
    setup.key_value = vec!["cart"];
    let node = setup.start(&counting_with(&items, &act, ""));
    for expected in ["1", "2", "3"] {
        answered(&node, expected);
    }
}

#[test]
fn lines_of_the_log_name_their_own_request_to_a_service() {
    let items = r#"
        (import "wasi:cli/stdout@0.3.0" "write-via-stream" (func $print (param i32) (result i32)))
        (import "wasi:cli/stdout@0.3.0" "[stream-new-0]write-via-stream" (func $out-new (result i64)))
        (import "wasi:cli/stdout@0.3.0" "[async-lower][stream-write-0]write-via-stream" (func $out-write-start (param i32 i32 i32) (result i32)))
        (import "wasi:cli/stdout@0.3.0" "[stream-drop-writable-0]write-via-stream" (func $out-drop (param i32)))
        (import "wasi:cli/stdout@0.3.0" "[future-drop-readable-1]write-via-stream" (func $printed-drop (param i32)))
        (data (i32.const 4200) "first\nopen")
        (func $log (local $out i64) (local $i i32)
          (local.set $out (call $out-new))
          (call $printed-drop (call $print (i32.wrap_i64 (local.get $out))))
          (local.set $i (i32.wrap_i64 (i64.shr_u (local.get $out) (i64.const 32))))
          (drop (call $await (local.get $i) (call $out-write-start (local.get $i) (i32.const 4200) (i32.const 10))))
          (call $out-drop (local.get $i)))"#;
    let act = format!("(call $log) {DROP}");
    let node = setup(9).start(&counting_with(items, &act, ""));
    answered(&node, "1");
    answered(&node, "2");
    eventually("four lines", || node.log().len() == 4);
    let lines = node.log();
    let field = |name: &str| -> Vec<_> {
        let texts = lines.iter().map(|line| line[name].as_str().unwrap());
        texts.map(str::to_owned).collect()
    };
    assert_eq!(field("msg"), ["first", "open", "first", "open"]);
    let ids = field("request_id");
    assert!(
        ids[0] == ids[1] && ids[2] == ids[3] && ids[1] != ids[2],
        "{ids:?}"
    );
}
