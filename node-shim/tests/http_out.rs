//! What leaves the edge: whole answers whole, broken ones visibly broken.

use std::time::Duration;

use http_body_util::BodyExt;

use crate::guests;
use crate::support::node::{Node, Setup};
use crate::support::wire::{Reply, Wire, get};
use crate::support::{component, h2};

#[test]
fn an_answer_that_is_all_there_has_a_length_and_the_connection_lives() {
    let node = Node::serve(&guests::ANSWER);
    let mut wire = Wire::connect(node.address());
    let mut asked = 0;
    // an epoch that ends inside the guest lets the head go first, and then the length is not known
    loop {
        wire.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        let reply = wire.read().unwrap();
        asked += 1;
        assert_eq!((reply.text().as_str(), reply.whole), ("hello\n", true));
        assert!(reply.header("date").is_some());
        if asked >= 3 && reply.header("content-length") == Some("6") {
            break;
        }
        assert!(asked < 100, "no answer of {asked} had a length");
    }
    assert_eq!(node.outcomes(asked), [format!("ok 2xx {asked}")]);
}

#[tokio::test]
async fn http_2_by_prior_knowledge_answers() {
    let node = Node::serve(&guests::ANSWER);
    let response = h2::get(node.address(), "/").await;
    assert_eq!(response.status(), 200);
    assert_eq!(h2::body(response).await.unwrap(), "hello\n");
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// HG-14: 502 without an answer, `trap` for a second one.
#[test]
fn hg_14_a_guest_without_an_answer_is_answered_for() {
    for guest in [&guests::SILENT, &guests::DROP_OUT] {
        let node = Node::serve(guest);
        assert_eq!(get(node.address(), "/").told(), (502, "guest_error"));
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

/// A guest that breaks its answer while sending it is answered for when that shows in time; an
/// epoch that ends just then lets the head go first, and then the answer is visibly cut.
fn broken(reply: &Reply, told: (u16, &str)) {
    assert!(
        reply.told() == told || (reply.status == 200 && !reply.whole),
        "{reply:?}"
    );
}

/// HG-14: an answer without an end is a 502 or visibly cut.
#[test]
fn hg_14_a_body_left_open_is_an_error_of_the_guest() {
    let node = Node::serve(&guests::UNFINISHED);
    broken(&get(node.address(), "/"), (502, "guest_error"));
    assert!(node.outcomes(1)[0].starts_with("guest_error "));
    assert_eq!(node.failures(), ["unfinished 1"]);
}

/// HG-14, FN-14: cut chunks on HTTP/1.1, a reset on HTTP/1.0, counted once.
#[test]
fn hg_14_a_trap_after_the_head_aborts_on_the_wire() {
    let node = Node::serve(&guests::TRAP_IN_BODY);
    let reply = get(node.address(), "/");
    assert_eq!(
        (reply.status, reply.text().as_str(), reply.whole),
        (200, "part", false)
    );
    assert_eq!(node.outcomes(1), ["trap 2xx 1"]);

    // the end of an HTTP/1.0 body is the end of the connection, so only a reset tells
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

/// HG-15: the wall limit cuts it, and it never looks whole.
#[test]
fn hg_15_an_endless_body_meets_the_wall_limit_and_never_looks_complete() {
    let setup = Setup::limits(|l| l.timeout = Duration::from_millis(500));
    let node = setup.start(&guests::ENDLESS);
    let reply = get(node.address(), "/");
    assert_eq!((reply.status, reply.whole), (200, false));
    assert!(!reply.body.is_empty());
    assert_eq!(node.outcomes(1), ["deadline 2xx 1"]);
    assert_eq!(node.failures(), ["wall 1"]);
    node.is_quiet();
}

/// HG-16: nothing is sent for an empty chunk, and the CPU limit ends it.
#[tokio::test]
async fn hg_16_empty_chunks_are_swallowed_until_the_cpu_limit() {
    let setup = Setup::limits(|l| l.cpu = Duration::from_millis(300));
    let node = setup.start(&guests::EMPTY_CHUNKS);
    let response = h2::get(node.address(), "/").await;
    let (part, _) = h2::body(response).await.unwrap_err();
    assert!(part.is_empty());
    assert_eq!(node.outcomes(1), ["deadline 2xx 1"]);
    assert_eq!(node.failures(), ["cpu 1"]);
    node.is_quiet();
}

/// HG-17: a body longer or shorter than promised is a 502 or visibly cut.
#[test]
fn hg_17_a_length_is_kept_or_the_answer_is_broken() {
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
        // nothing was promised, so a head that went first was all there is: the client has it whole
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

/// HG-17: after HEAD and 204 the next request gets its own answer.
#[test]
fn hg_17_head_and_bodiless_statuses_leave_the_connection_in_order() {
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

/// HG-18: CR, LF, NUL and hop-by-hop names are refused to the guest, names of ours removed.
#[test]
fn hg_18_bad_fields_are_the_guests_error_and_ours_are_not_theirs() {
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
fn bodies_stream_both_ways_whatever_their_size() {
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
        // the answer begins before the request is over, so both sides move at once
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
async fn an_event_is_not_held_back() {
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

/// HG-23: its own variables, no argument, stdin at its end.
#[test]
fn hg_23_a_guest_sees_its_own_environment_and_nothing_else() {
    let wasm = component::guest(ENVIRONMENT, ENVIRONMENT_BODY);
    let node = Setup {
        env: vec![("A".into(), "1".into())],
        ..Setup::default()
    }
    .start(&wasm);
    // one variable, no argument, stdin at its end
    assert_eq!(get(node.address(), "/").status, 201);
    let node = Node::serve(&wasm);
    assert_eq!(get(node.address(), "/").status, 200);
}

/// Answers 200 + number of variables, + 100 for arguments, + 50 for anything on stdin.
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

/// HE-1, HE-2, as long as nobody may call out: every call is denied before any address is looked at, and counted.
#[test]
fn calls_out_are_denied_and_counted() {
    let wasm = component::guest(CALL_OUT, CALL_OUT_BODY);
    let node = Node::serve(&wasm);
    // error-code 15 is HTTP-request-denied
    let reply = get(node.address(), "/");
    assert_eq!(reply.status, 200 + 15, "{:?}", node.failures());
    let mut page = String::new();
    let identity = node_shim::metrics::NodeIdentity {
        node_name: "n".into(),
        started_ms: 1,
    };
    node_shim::metrics::Metrics::new(identity).write(&mut page, &node.plane);
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

/// Answers 200 + the number of the error code. Layout of `get`: option, result, result, error-code.
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

/// HG-20: bounded, escaped, and the number of dropped lines told.
#[test]
fn hg_20_a_flood_of_output_is_bounded_escaped_and_told() {
    let wasm = component::guest(FLOOD, FLOOD_BODY);
    let node = Setup::limits(|l| l.cpu = Duration::from_secs(30)).start(&wasm);
    assert_eq!(get(node.address(), "/").status, 200);
    // the writer is a thread of its own
    crate::support::node::eventually("lines are written", || node.log().len() > 20);
    let log = node.log();
    let written: usize = log
        .iter()
        .map(|line| line["msg"].as_str().unwrap().len())
        .sum();
    assert!(written < 600 << 10, "{written} bytes of 2 MiB");
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
    // the next line that fits tells how many did not
    let told = || {
        node.log()
            .iter()
            .any(|line| line["msg"].as_str().unwrap().ends_with(" lines dropped"))
    };
    crate::support::node::eventually("the dropped lines are told", || {
        assert_eq!(get(node.address(), "/").status, 200);
        told()
    });
}

/// HG-20: empty writes for ever end by the CPU limit, and not one of them is a line.
#[test]
fn hg_20_empty_writes_are_no_lines() {
    let wasm = component::guest(
        FLOOD,
        "(local.set $s (call $stderr))
         (loop $on (br_if $on (i32.eqz (call $write (local.get $s) (i32.const 4096) (i32.const 0)))))",
    );
    let node = Setup::limits(|l| l.cpu = Duration::from_millis(300)).start(&wasm);
    assert_eq!(get(node.address(), "/").told(), (504, "deadline"));
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
