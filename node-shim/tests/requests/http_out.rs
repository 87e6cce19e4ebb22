//! Responses: complete ones arrive completely, incomplete ones are visibly incomplete.

use std::time::Duration;

use http_body_util::BodyExt;

use crate::guests;
use crate::support::node::{Node, Setup};
use crate::support::wire::{Reply, Wire, get};
use crate::support::{component, h2};

#[test]
fn a_complete_response_has_a_length_and_keeps_the_connection() {
    let node = Node::serve(&guests::ANSWER);
    let mut wire = Wire::connect(node.address());
    let mut asked = 0;
    // if an epoch ends inside the guest, the head is sent before the length is known
    loop {
        wire.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        let reply = wire.read().unwrap();
        asked += 1;
        assert_eq!((reply.text().as_str(), reply.whole), ("hello\n", true));
        assert!(reply.header("date").is_some());
        if asked >= 3 && reply.header("content-length") == Some("6") {
            break;
        }
        assert!(asked < 100, "none of {asked} responses had a length");
    }
    assert_eq!(node.outcomes(asked), [format!("ok 2xx {asked}")]);
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_served() {
    let node = Node::serve(&guests::ANSWER);
    let response = h2::get(node.address(), "/").await;
    assert_eq!(response.status(), 200);
    assert_eq!(h2::body(response).await.unwrap(), "hello\n");
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// HG-14: a guest without a response gets 502; a second response counts as `trap`.
#[test]
fn hg_14_a_guest_without_a_response_gets_an_error_response() {
    for guest in [&guests::SILENT, &guests::DROP_OUT] {
        let node = Node::serve(guest);
        assert_eq!(
            get(node.address(), "/").status_and_error(),
            (502, "guest_error")
        );
        assert_eq!(node.outcomes(1), ["guest_error 5xx 1"]);
        assert_eq!(node.failures(), ["no_response 1"]);
        node.is_quiet();
    }
    for guest in [&guests::TWICE, &guests::TRAP_AFTER_SET] {
        let node = Node::serve(guest);
        broken(&get(node.address(), "/"), (500, "trap"));
        assert!(node.outcomes(1)[0].starts_with("trap "));
        node.is_quiet();
    }
}

/// Checks the response of a guest that fails while it sends its body: an error response if the failure is
/// detected before the head is sent, else a visibly incomplete response.
fn broken(reply: &Reply, expected: (u16, &str)) {
    assert!(
        reply.status_and_error() == expected || (reply.status == 200 && !reply.whole),
        "{reply:?}"
    );
}

/// HG-14: an unfinished response becomes a 502 or is visibly incomplete.
#[test]
fn hg_14_an_unfinished_body_is_a_guest_error() {
    let node = Node::serve(&guests::UNFINISHED);
    broken(&get(node.address(), "/"), (502, "guest_error"));
    assert!(node.outcomes(1)[0].starts_with("guest_error "));
    assert_eq!(node.failures(), ["unfinished 1"]);
}

/// HG-14, FN-14: missing last chunk on HTTP/1.1, reset on HTTP/1.0, counted once.
#[test]
fn hg_14_a_trap_after_the_head_aborts_the_response() {
    let node = Node::serve(&guests::TRAP_IN_BODY);
    let reply = get(node.address(), "/");
    assert_eq!(
        (reply.status, reply.text().as_str(), reply.whole),
        (200, "part", false)
    );
    assert_eq!(node.outcomes(1), ["trap 2xx 1"]);

    // the end of the connection ends an HTTP/1.0 body, so only a reset shows that it is incomplete
    let mut old = Wire::connect(node.address());
    let reply = old
        .send("GET / HTTP/1.0\r\nhost: h\r\n\r\n")
        .read()
        .unwrap();
    assert_eq!((reply.status, reply.whole), (200, false));
    node.outcomes(2);
    node.is_quiet();
}

/// HG-14, FN-14: `RST_STREAM(INTERNAL_ERROR)` on HTTP/2, counted once.
#[tokio::test]
async fn hg_14_a_trap_after_the_head_resets_the_stream() {
    let node = Node::serve(&guests::TRAP_IN_BODY);
    let response = h2::get(node.address(), "/").await;
    assert_eq!(response.status(), 200);
    let (part, error) = h2::body(response).await.unwrap_err();
    assert_eq!(part, "part");
    assert!(error.contains("INTERNAL_ERROR"), "{error}");
    assert_eq!(node.outcomes(1), ["trap 2xx 1"]);
    node.is_quiet();
}

/// HG-15: the timeout stops it, and it never looks complete.
#[test]
fn hg_15_an_endless_body_is_stopped_by_the_timeout() {
    let setup = Setup::limits(|l| l.timeout = Duration::from_millis(500));
    let node = setup.start(&guests::ENDLESS);
    let reply = get(node.address(), "/");
    assert_eq!((reply.status, reply.whole), (200, false));
    assert!(!reply.body.is_empty());
    assert_eq!(node.outcomes(1), ["deadline 2xx 1"]);
    assert_eq!(node.failures(), ["wall 1"]);
    node.is_quiet();
}

/// HG-16: nothing is sent for an empty chunk, and the CPU limit stops the guest.
#[tokio::test]
async fn hg_16_empty_chunks_are_dropped_until_the_cpu_limit() {
    let setup = Setup::limits(|l| l.cpu = Duration::from_millis(300));
    let node = setup.start(&guests::EMPTY_CHUNKS);
    let response = h2::get(node.address(), "/").await;
    let (part, _) = h2::body(response).await.unwrap_err();
    assert!(part.is_empty());
    assert_eq!(node.outcomes(1), ["deadline 2xx 1"]);
    assert_eq!(node.failures(), ["cpu 1"]);
    node.is_quiet();
}

/// HG-17: a body of the wrong length becomes a 502 or is visibly incomplete.
#[test]
fn hg_17_a_body_of_the_wrong_length_is_an_error() {
    let node = Node::serve(&guests::length(4, 4));
    let mut wire = Wire::connect(node.address());
    for _ in 0..2 {
        let reply = wire
            .send("GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            .read()
            .unwrap();
        assert_eq!(
            (reply.status, reply.body.len(), reply.whole),
            (200, 4, true)
        );
        assert_eq!(reply.header("transfer-encoding"), None);
    }
    for (declared, sent) in [(4, 2), (4, 6), (4, 0), (0, 3)] {
        let node = Node::serve(&guests::length(declared, sent));
        let reply = get(node.address(), "/");
        // with a declared length of 0, a head that is sent first is the complete response
        if declared == 0 && (reply.status, reply.whole, reply.body.len()) == (200, true, 0) {
            assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
            continue;
        }
        broken(&reply, (502, "guest_error"));
        let outcomes = node.outcomes(1);
        assert!(
            outcomes[0].starts_with("guest_error "),
            "{declared}, {sent}: {outcomes:?}"
        );
        assert_eq!(node.failures(), ["bad_length 1"]);
    }
}

/// HG-17: after HEAD and 204, the next request gets its own response.
#[test]
fn hg_17_the_connection_stays_usable_after_responses_without_body() {
    let node = Node::serve(&guests::length(4, 4));
    let mut wire = Wire::connect(node.address());
    let reply = wire
        .send("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n")
        .read_head_only()
        .unwrap();
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (200, Some("4"))
    );
    let reply = wire
        .send("GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        .read()
        .unwrap();
    assert_eq!((reply.status, reply.body.len()), (200, 4));
    assert_eq!(node.outcomes(2), ["ok 2xx 2"]);

    let node = Node::serve(&guests::NO_CONTENT);
    let mut wire = Wire::connect(node.address());
    for _ in 0..2 {
        let reply = wire
            .send("GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            .read()
            .unwrap();
        assert_eq!((reply.status, reply.header("content-length")), (204, None));
    }
    assert_eq!(node.outcomes(2), ["ok 2xx 2"]);
}

/// HG-18: CR, LF, NUL and hop-by-hop names are rejected; names reserved for the node are removed.
#[test]
fn hg_18_invalid_fields_are_rejected_and_reserved_ones_removed() {
    for (name, value) in [
        ("x-a", "a\r\nx-b: c"),
        ("x-a", "a\0"),
        ("x a", "1"),
        ("connection", "x-b"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("host", "evil"),
    ] {
        let node = Node::serve(&guests::header(name, value));
        let reply = get(node.address(), "/");
        assert_eq!(reply.status, 418, "{name}: {value:?}");
        assert_eq!(reply.header("x-b"), None);
    }
    for (name, value) in [("selvage-error", "mine"), ("selvage-x", "1")] {
        let node = Node::serve(&guests::header(name, value));
        let reply = get(node.address(), "/");
        assert_eq!((reply.status, reply.header(name)), (200, None), "{name}");
    }
    let node = Node::serve(&guests::header("x-mine", "kept"));
    assert_eq!(get(node.address(), "/").header("x-mine"), Some("kept"));
}

#[test]
fn bodies_of_any_size_stream_in_both_directions() {
    let node = Setup::limits(|l| {
        l.request_body = 64 << 20;
        l.cpu = Duration::from_secs(60);
        l.timeout = Duration::from_secs(60);
    })
    .start(&guests::ECHO);
    for size in [0_usize, 1, 4_095, 65_536, 3 << 20] {
        let body: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let mut wire = Wire::connect(node.address());
        wire.send(format!(
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {size}\r\n\r\n"
        ));
        // the response starts before the request ends, so both bodies are streamed concurrently
        let reply = std::thread::scope(|scope| {
            let mut writer = wire.again();
            let sent = &body;
            scope.spawn(move || writer.send(sent).is_sent());
            wire.read().unwrap()
        });
        assert_eq!((reply.status, reply.whole), (200, true));
        assert!(
            reply.body == body,
            "{size} bytes came back as {}",
            reply.body.len()
        );
    }
    node.is_quiet();
}

#[tokio::test]
async fn a_single_event_is_sent_at_once() {
    let node = Setup::limits(|l| l.timeout = Duration::from_secs(20)).start(&guests::SLEEP_IN_BODY);
    let mut response = h2::get(node.address(), "/").await;
    let first = response
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    assert_eq!(first, "part");
}

/// HG-23: its own variables, no arguments, and an empty stdin.
#[test]
fn hg_23_a_guest_sees_only_its_own_environment() {
    let wasm = component::guest(ENVIRONMENT, ENVIRONMENT_BODY);
    let node = Setup {
        env: vec![("A".into(), "1".into())],
        ..Setup::default()
    }
    .start(&wasm);
    // one variable, no arguments, empty stdin
    assert_eq!(get(node.address(), "/").status, 201);
    let node = Node::serve(&wasm);
    assert_eq!(get(node.address(), "/").status, 200);
}

/// Responds with status 200 + number of variables, + 100 for arguments, + 50 for data on stdin.
const ENVIRONMENT: &str = r#"
(import "wasi:cli/environment@0.2.12" "get-environment" (func $env (param i32)))
(import "wasi:cli/environment@0.2.12" "get-arguments" (func $args (param i32)))
(import "wasi:cli/stdin@0.2.12" "get-stdin" (func $stdin (result i32)))
"#;

const ENVIRONMENT_BODY: &str = "
    (call $env (i32.const 64))
    (local.set $n (i32.add (i32.const 200) (i32.load (i32.const 68))))
    (call $args (i32.const 64))
    (local.set $n (i32.add (local.get $n) (i32.mul (i32.const 100) (i32.load (i32.const 68)))))
    (call $blocking-read (call $stdin) (i64.const 10) (i32.const 64))
    (if (i32.eqz (i32.load8_u (i32.const 64))) (then (local.set $n (i32.add (local.get $n) (i32.const 50)))))
    (call $answer (local.get $out) (local.get $n) (i32.const 4096) (i32.const 1))";

/// HE-1, HE-2: without entries in `egress.allow`, every request is denied before its address is examined, and counted.
#[test]
fn outbound_requests_are_denied_and_counted() {
    let wasm = component::guest(CALL_OUT, CALL_OUT_BODY);
    let node = Node::serve(&wasm);
    // error-code 15 is HTTP-request-denied
    let reply = get(node.address(), "/");
    assert_eq!(reply.status, 200 + 15, "{:?}", node.failures());
    let identity = node_shim::metrics::NodeIdentity {
        node_name: "n".into(),
        started_ms: 1,
    };
    let page = node_shim::metrics::Metrics::new(identity)
        .page(&node.plane, Vec::new(), "")
        .text;
    let denied = page
        .lines()
        .find(|l| l.starts_with("selvage_egress_denied_total{"))
        .unwrap();
    assert!(denied.ends_with(" 1"), "{denied}");
}

const CALL_OUT: &str = r#"
(import "wasi:http/types@0.2.12" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-request.set-authority" (func $set-authority (param i32 i32 i32 i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-request.set-path-with-query" (func $set-path (param i32 i32 i32 i32) (result i32)))
(import "wasi:http/outgoing-handler@0.2.12" "handle" (func $send (param i32 i32 i32 i32)))
(import "wasi:http/types@0.2.12" "[method]future-incoming-response.subscribe" (func $subscribe (param i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]future-incoming-response.get" (func $future-get (param i32 i32)))
(data (i32.const 4096) "127.0.0.1/")
"#;

/// Responds with status 200 + the number of the error code. Layout of `get`: option, result, result, error-code.
const CALL_OUT_BODY: &str = "
    (local.set $r (call $request (call $fields)))
    (drop (call $set-authority (local.get $r) (i32.const 1) (i32.const 4096) (i32.const 9)))
    (drop (call $set-path (local.get $r) (i32.const 1) (i32.const 4105) (i32.const 1)))
    (call $send (local.get $r) (i32.const 0) (i32.const 0) (i32.const 64))
    (local.set $i (i32.load (i32.const 72)))
    (call $block (call $subscribe (local.get $i)))
    (call $future-get (local.get $i) (i32.const 128))
    (local.set $n (i32.load8_u (i32.const 152)))
    (call $answer (local.get $out) (i32.add (i32.const 200) (local.get $n)) (i32.const 4096) (i32.const 1))";

/// HG-20: bounded, escaped, and with the number of dropped lines.
#[test]
fn hg_20_a_flood_of_output_is_bounded_escaped_and_reported() {
    let wasm = component::guest(FLOOD, FLOOD_BODY);
    let node = Setup::limits(|l| l.cpu = Duration::from_secs(30)).start(&wasm);
    assert_eq!(get(node.address(), "/").status, 200);
    // lines are written by a separate thread
    crate::support::node::eventually("lines are written", || node.log().len() > 3);
    let log = node.log();
    // the zeros of a line of 8 KiB become six characters each
    let written: usize = log.iter().map(|line| line.to_string().len()).sum();
    assert!(written < 600 << 10, "{written} bytes of 12 MiB");
    let line = &log[0];
    assert_eq!(line["stream"], "stderr");
    assert_eq!(
        (
            &line["function_namespace"],
            &line["function"],
            &line["revision"]
        ),
        (&"ns".into(), &"f".into(), &"r1".into())
    );
    assert!(
        line["msg"].as_str().unwrap().starts_with("\u{1b}[31m\\xff"),
        "{line}"
    );
    // the next line within the rate reports how many were dropped
    let reported = || {
        node.log()
            .iter()
            .any(|line| line["msg"].as_str().unwrap().ends_with(" lines dropped"))
    };
    crate::support::node::eventually("the dropped lines are reported", || {
        assert_eq!(get(node.address(), "/").status, 200);
        reported()
    });
}

/// HG-20: endless empty writes are stopped by the CPU limit and produce no lines.
#[test]
fn hg_20_empty_writes_produce_no_lines() {
    let wasm = component::guest(
        FLOOD,
        "(local.set $s (call $stderr))
         (loop $on (br_if $on (i32.eqz (call $write (local.get $s) (i32.const 4096) (i32.const 0)))))",
    );
    let node = Setup::limits(|l| l.cpu = Duration::from_millis(300)).start(&wasm);
    assert_eq!(
        get(node.address(), "/").status_and_error(),
        (504, "deadline")
    );
    node.outcomes(1);
    assert_eq!(node.failures(), ["cpu 1"]);
    crate::support::node::eventually("the reason is written", || !node.log().is_empty());
    let log = node.log();
    assert!(log.iter().all(|line| line["stream"] == "shim"), "{log:?}");
    node.is_quiet();
}

const FLOOD: &str = r#"
(import "wasi:cli/stderr@0.2.12" "get-stderr" (func $stderr (result i32)))
(data (i32.const 4096) "\1b[31m\ff")
"#;

/// 512 × 4 KiB and as many empty writes, one line.
const FLOOD_BODY: &str = "
    (local.set $s (call $stderr))
    (local.set $n (i32.const 512))
    (loop $more
      (drop (call $write (local.get $s) (i32.const 4096) (i32.const 4096)))
      (drop (call $write (local.get $s) (i32.const 4096) (i32.const 0)))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $more (local.get $n)))
    (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 1))";
