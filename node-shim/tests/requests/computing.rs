//! Guests that compute for long run on other threads. A client that has received the end of a response finds everything
//! returned that its guest held, as with guests that compute for a moment.

use std::time::Duration;

use crate::metrics::page;
use crate::support::component::guest;
use crate::support::node::{Node, Setup};
use crate::support::service::service;
use crate::support::wire::Wire;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
/// Computes for some milliseconds.
const COMPUTE: &str = "
    (local.set $n (i32.const 5000000))
    (loop $on (br_if $on (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))";
const HELLO: &str = r#"(data (i32.const 4096) "hello")"#;
/// Writes a body in more pieces than a response in one piece has.
const BODY: &str = "
    (local.set $b (call $body (local.get $r)))
    (call $set (local.get $out) (local.get $r))
    (local.set $s (call $open (local.get $b)))
    (local.set $n (i32.const 3))
    (loop $more
      (drop (call $write (local.get $s) (i32.const 8192) (i32.const 4096)))
      (br_if $more (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (call $stream-drop (local.get $s))
    (drop (call $finish (local.get $b)))";

/// Returns guests that compute, with their names and the statuses of their responses.
fn computing() -> Vec<(&'static str, Vec<u8>, u16)> {
    let whole = "(call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 5))";
    let streamed = format!("{COMPUTE} (local.set $r (call $make (i32.const 200))) {BODY}");
    let declared = format!(
        "{COMPUTE}
        (local.set $i (call $fields))
        (drop (call $header (local.get $i) (i32.const 4096) (i32.const 14) (i32.const 4128) (i32.const 5)))
        (local.set $r (call $response (local.get $i))) {BODY}"
    );
    let length = r#"(data (i32.const 4096) "content-length") (data (i32.const 4128) "12288")"#;
    let answer = "(call $answer (i32.const 200) (i32.const 4096) (i32.const 5))";
    let long_answer = "(call $answer (i32.const 200) (i32.const 4096) (i32.const 20000))";
    vec![
        ("whole", guest(HELLO, &format!("{COMPUTE} {whole}")), 200),
        ("streamed", guest("", &streamed), 200),
        ("with a declared length", guest(length, &declared), 200),
        ("trap", guest("", &format!("{COMPUTE} unreachable")), 500),
        ("no response", guest("", COMPUTE), 502),
        (
            "service",
            service(HELLO, &format!("{COMPUTE} {answer}")),
            200,
        ),
        (
            "streamed service",
            service(HELLO, &format!("{COMPUTE} {long_answer}")),
            200,
        ),
    ]
}

/// Starts a node that runs one guest at a time and lets no request wait.
fn one_at_a_time(wasm: &[u8]) -> Node {
    let setup = Setup::limits(|l| {
        l.concurrency = 1;
        l.queue_length = 0;
        l.timeout = Duration::from_secs(60);
    });
    setup.start(wasm)
}

#[test]
fn one_permit_is_enough_for_one_request_after_another() {
    for (name, wasm, status) in computing() {
        let node = one_at_a_time(&wasm);
        let mut wire = Wire::connect(node.address());
        let mut refused = 0;
        for _ in 0..100 {
            let reply = wire.send(GET).read().expect("a response");
            assert!(reply.whole, "{name}");
            if reply.status != status {
                assert_eq!(reply.status_and_error(), (503, "overloaded"), "{name}");
                refused += 1;
            }
        }
        assert_eq!(refused, 0, "{name}");
    }
}

/// The abort of a response follows the end of its guest, too.
#[test]
fn a_permit_has_returned_when_a_response_is_aborted() {
    let wasm = guest(
        "",
        &format!(
            "{COMPUTE}
            (local.set $r (call $make (i32.const 200)))
            (local.set $b (call $body (local.get $r)))
            (call $set (local.get $out) (local.get $r))
            (local.set $s (call $open (local.get $b)))
            (drop (call $write (local.get $s) (i32.const 8192) (i32.const 4096)))
            (drop (call $write (local.get $s) (i32.const 8192) (i32.const 4096)))
            unreachable"
        ),
    );
    let node = one_at_a_time(&wasm);
    for _ in 0..50 {
        let reply = Wire::connect(node.address()).send(GET).read().unwrap();
        assert_eq!((reply.status, reply.whole), (200, false));
    }
}

/// The next request finds the instance, and the metrics have the CPU time.
#[test]
fn an_instance_and_its_cpu_time_are_returned_before_the_end_of_the_response() {
    for wasm in [
        crate::reuse::counting(COMPUTE),
        crate::services::reuse::counting(COMPUTE),
    ] {
        let node = crate::reuse::setup(9).start(&wasm);
        let mut wire = Wire::connect(node.address());
        let mut before = 0.0;
        for count in 1..=9 {
            let reply = wire.send(GET).read().expect("a response");
            assert_eq!(reply.text(), count.to_string());
            let used = cpu_seconds(&node);
            assert!(used > before, "{used} after {before}");
            before = used;
        }
    }
}

fn cpu_seconds(node: &Node) -> f64 {
    let page = page(node);
    let name = "selvage_guest_cpu_seconds_total{";
    let line = page.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
