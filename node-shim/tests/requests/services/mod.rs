//! Components of WASI 0.3: the same requests, limits and outcomes as those of WASI 0.2.

mod bodies;
mod interfaces;
pub(crate) mod reuse;

use std::io::Write;
use std::time::Duration;

use node_shim::engine::Compiler;
use node_shim_core::table::Limits;

use crate::guests;
use crate::support::node::{ENGINE, Node, Setup, eventually};
use crate::support::service::service;
use crate::support::wire::{Wire, get};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const HELLO: &str = r#"(data (i32.const 4096) "hello\n")"#;
const ANSWER: &str = "(call $answer (i32.const 200) (i32.const 4096) (i32.const 6))";
/// Sends a head and the start of a body.
const BEGIN: &str = "(call $respond (call $fields) (i32.const 200))
    (drop (call $write (i32.const 4096) (i32.const 6)))";
const SPIN: &str = "(loop $on (br $on))";
const SLEEP: &str = "(call $sleep (i64.const 3600000000000))";

#[test]
fn an_ordinary_service_responds() {
    let node = Node::serve(&service(HELLO, ANSWER));
    for _ in 0..3 {
        let reply = get(node.address(), "/");
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello\n"));
    }
    assert_eq!(node.outcomes(3), ["ok 2xx 3"]);
    node.is_quiet();
}

/// The compiler chooses the settings of the component's world, and a node recognises them in the native code.
#[test]
fn native_code_of_both_worlds_is_loaded() {
    let compiler = Compiler::new().unwrap();
    assert_eq!(compiler.compatibility(), ENGINE.compatibility());
    for wasm in [service(HELLO, ANSWER), guests::ANSWER.clone()] {
        let code = compiler.precompile(&wasm).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&code).unwrap();
        ENGINE.load(file.path()).map(drop).unwrap();
        ENGINE.load_again(file.path()).map(drop).unwrap();
    }
}

/// HG-1: 504 `deadline` for `cpu`, while another request is served on the same thread.
#[test]
fn hg_1_an_endless_loop_is_stopped_by_the_cpu_limit() {
    for body in [SPIN.to_owned(), format!("{BEGIN} {SPIN}")] {
        let setup = Setup::limits(|l| l.cpu = Duration::from_millis(100)).on_one_thread();
        let node = setup.start(&service(HELLO, &body));
        let address = node.address();
        let spinning = std::thread::spawn(move || get(address, "/"));
        // the only thread serves other requests meanwhile
        let other = get(node.address(), "/.well-known/selvage/ready");
        assert_eq!(other.status, 200);
        let reply = spinning.join().unwrap();
        if reply.status == 504 {
            assert_eq!(reply.status_and_error(), (504, "deadline"));
        } else {
            assert!(!reply.whole, "the body looks complete");
        }
        assert!(node.outcomes(1)[0].starts_with("deadline "));
        assert_eq!(node.failures(), ["cpu 1"]);
        node.is_quiet();
    }
}

/// HG-2: 504 for `wall` and for `first_byte`, and the slot is freed.
#[test]
fn hg_2_endless_waiting_is_stopped_by_the_timeout() {
    let short = Duration::from_millis(200);
    let timeout: fn(&mut Limits, Duration) = |l, short| l.timeout = short;
    let first_byte: fn(&mut Limits, Duration) = |l, short| l.first_byte = short;
    for (limit, reason) in [(timeout, "wall 1"), (first_byte, "first_byte 1")] {
        let node = Setup::limits(|l| limit(l, short)).start(&service("", SLEEP));
        let reply = get(node.address(), "/");
        assert_eq!(reply.status_and_error(), (504, "deadline"));
        assert_eq!(node.outcomes(1), ["deadline 5xx 1"]);
        assert_eq!(node.failures(), [reason]);
        node.is_quiet();
    }
    let node =
        Setup::limits(|l| l.timeout = short).start(&service(HELLO, &format!("{BEGIN} {SLEEP}")));
    assert!(!get(node.address(), "/").whole);
    assert_eq!(node.outcomes(1), ["deadline 2xx 1"]);
    assert_eq!(node.failures(), ["wall 1"]);
    node.is_quiet();
}

/// HG-3: −1 at the limit and 200; `oom` only after a trap.
#[test]
fn hg_3_denied_memory_growth_is_a_failure_only_if_the_guest_traps() {
    let grow = "(block $refused (loop $more
        (br_if $refused (i32.eq (memory.grow (i32.const 16)) (i32.const -1))) (br $more)))";
    let small = |l: &mut Limits| l.memory = 8 << 20;
    let node = Setup::limits(small).start(&service(HELLO, &format!("{grow} {ANSWER}")));
    assert_eq!(get(node.address(), "/").status, 200);
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);

    let node = Setup::limits(small).start(&service("", &format!("{grow} unreachable")));
    let reply = get(node.address(), "/");
    assert_eq!(reply.status_and_error(), (500, "out_of_memory"));
    assert_eq!(node.outcomes(1), ["oom 5xx 1"]);
    assert_eq!(node.failures(), ["memory 1"]);
    node.is_quiet();
}

/// HG-13: each request gets its own 500, with the names of the functions in the log.
#[test]
fn hg_13_a_service_that_traps_fails_its_request() {
    let node = Node::serve(&service("(func $collapse unreachable)", "(call $collapse)"));
    for _ in 0..5 {
        assert_eq!(get(node.address(), "/").status_and_error(), (500, "trap"));
    }
    assert_eq!(node.outcomes(5), ["trap 5xx 5"]);
    assert_eq!(node.failures(), ["trap 5"]);
    node.is_quiet();
    eventually("the reason is written", || !node.log().is_empty());
    let text = node.log()[0]["msg"].as_str().unwrap().to_owned();
    assert!(text.contains("!collapse"), "{text}");
}

#[test]
fn a_service_without_a_response_is_an_error_of_the_guest() {
    let failed = "(call $return (i32.const 1) (i32.const 15) (i32.const 0) (i64.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))";
    for (body, reason) in [("", "no_response 1"), (failed, "error_code 1")] {
        let node = Node::serve(&service("", body));
        let reply = get(node.address(), "/");
        assert_eq!(reply.status_and_error(), (502, "guest_error"), "{reason}");
        assert_eq!(node.outcomes(1), ["guest_error 5xx 1"]);
        assert_eq!(node.failures(), [reason]);
        node.is_quiet();
    }
}

/// HG-19: outcome `client`, and all slots are freed, before the head is sent and after it.
#[test]
fn hg_19_disconnecting_clients_cancel_their_guests() {
    for body in [SLEEP.to_owned(), SPIN.to_owned()] {
        let node = Node::serve(&service("", &body));
        let mut wire = Wire::connect(node.address());
        wire.send(GET);
        eventually("the guest runs", || {
            node.plane.free_instance_slots() < node.slots()
        });
        wire.reset();
        assert_eq!(node.outcomes(1), ["client none 1"]);
        node.is_quiet();
    }
    let node = Node::serve(&service(HELLO, &format!("{BEGIN} {SLEEP}")));
    let mut wire = Wire::connect(node.address());
    wire.send(GET);
    assert_eq!(wire.line().as_deref(), Some("HTTP/1.1 200 OK"));
    wire.reset();
    assert_eq!(node.outcomes(1), ["client 2xx 1"]);
    node.is_quiet();
}

/// The guest may work after its response, which the client has by then.
#[test]
fn a_service_may_work_after_its_response() {
    let body = format!("{ANSWER} (call $sleep (i64.const 100000000)) unreachable");
    let node = Node::serve(&service(HELLO, &body));
    let reply = get(node.address(), "/");
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello\n"));
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
    node.is_quiet();
}
