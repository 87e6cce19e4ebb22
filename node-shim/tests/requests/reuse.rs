//! Instances that answer more than one request (`instances.reuse`).

use std::time::Duration;

use node_shim::counters::CounterTable;
use node_shim::data_plane::LoadShedding;
use node_shim::engine::{Engine, EngineOptions};
use node_shim_core::instance_reuse::ReusePolicy;
use node_shim_core::memory_pressure::MemoryPressure;
use node_shim_core::table::{FunctionKey, Route};

use crate::guests;
use crate::support::component::guest;
use crate::support::node::{Node, Setup, eventually, served};
use crate::support::wire::{Reply, Wire, get, once};

/// Long enough that nothing expires during a test.
const LONG: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

/// Responds with the number of requests that the instance has answered, a digit. `act` runs before; the global `$count` is
/// then 49 (`1`) at the first request.
pub(crate) fn counting(act: &str) -> Vec<u8> {
    counting_with("", act)
}

fn counting_with(items: &str, act: &str) -> Vec<u8> {
    guest(
        &format!(
            r#"(import "wasi:http/types@0.2.12" "[resource-drop]incoming-request" (func $request-drop (param i32)))
            {items}
            (global $count (mut i32) (i32.const 48))"#
        ),
        &format!(
            "
            (global.set $count (i32.add (global.get $count) (i32.const 1)))
            (i32.store8 (i32.const 4096) (global.get $count))
            {act}
            (call $request-drop (local.get $req))
            (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 1))"
        ),
    )
}

/// Runs `act` from the second request of an instance on.
pub(crate) fn second(act: &str) -> String {
    format!("(if (i32.gt_u (global.get $count) (i32.const 49)) (then {act}))")
}

pub(crate) fn setup(max_requests: u32) -> Setup {
    Setup {
        reuse: ReusePolicy {
            max_requests,
            idle_timeout: LONG,
        },
        ..Setup::default()
    }
}

/// Sends a request and waits until its instance is idle.
pub(crate) fn answered(node: &Node, expected: &str) {
    assert_eq!(get(node.address(), "/").text(), expected);
    node.has_idle(1);
}

pub(crate) fn post(node: &Node) -> Reply {
    let request = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody";
    once(node.address(), request)
}

#[test]
fn an_instance_answers_as_many_requests_as_it_may() {
    let node = setup(3).start(&counting(""));
    answered(&node, "1");
    answered(&node, "2");
    assert_eq!(get(node.address(), "/").text(), "3");
    node.has_idle(0);
    assert_eq!(node.drops(), ["requests 1"]);
    answered(&node, "1");
    assert_eq!(node.plane.node_counters().reuses(), 2);
    assert_eq!(node.outcomes(4), ["ok 2xx 4"]);
    let page = crate::metrics::page(&node);
    assert!(page.contains("selvage_idle_instances 1\n"), "{page}");
    assert!(page.contains("selvage_instance_reuses_total 2\n"), "{page}");
    assert!(
        page.contains("selvage_instance_drops_total{cause=\"requests\"} 1\n"),
        "{page}"
    );
}

/// The guest answers its third request with 204, and writes a body to each response.
pub(crate) fn reused_after_responses_without_a_body(node: &Node) {
    answered(node, "1");
    let mut client = Wire::connect(node.address());
    client.send("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(client.read_head_only().unwrap().status, 200);
    node.has_idle(1);
    let reply = get(node.address(), "/");
    assert_eq!((reply.status, reply.text().as_str()), (204, ""));
    node.has_idle(1);
    answered(node, "4");
    let counters = node.plane.node_counters();
    assert_eq!((counters.reuses(), counters.reruns()), (3, 0));
    assert_eq!(node.failures(), [""; 0]);
}

#[test]
fn an_instance_is_reused_after_responses_without_a_body() {
    let third = "(if (i32.eq (global.get $count) (i32.const 51)) (then
        (call $request-drop (local.get $req))
        (call $answer (local.get $out) (i32.const 204) (i32.const 4096) (i32.const 1))
        (return)))";
    reused_after_responses_without_a_body(&setup(9).start(&counting(third)));
}

#[test]
fn every_request_gets_a_fresh_instance_by_default() {
    let node = Node::serve(&counting(""));
    for _ in 0..3 {
        assert_eq!(get(node.address(), "/").text(), "1");
        node.has_idle(0);
    }
    assert!(node.drops().is_empty());
    assert_eq!(node.plane.node_counters().reuses(), 0);
}

/// Reads the body of the request and keeps nothing of it.
const READ_AND_DROP: &str = "
    (call $consume (local.get $req) (i32.const 16))
    (local.set $b (i32.load (i32.const 20)))
    (call $incoming-stream (local.get $b) (i32.const 16))
    (local.set $i (i32.load (i32.const 20)))
    (loop $more
      (global.set $heap (i32.const 65536))
      (call $blocking-read (local.get $i) (i64.const 4096) (i32.const 16))
      (br_if $more (i32.eqz (i32.load8_u (i32.const 16)))))
    (call $input-drop (local.get $i))
    (call $incoming-drop (local.get $b))";
const BODY_DROPS: &str = r#"
    (import "wasi:io/streams@0.2.12" "[resource-drop]input-stream" (func $input-drop (param i32)))
    (import "wasi:http/types@0.2.12" "[resource-drop]incoming-body" (func $incoming-drop (param i32)))"#;

/// Sends requests of which all run at the same time, to a guest that reads their bodies. Returns the responses in order, when
/// all instances are idle.
pub(crate) fn at_once(node: &Node, host: &str, number: usize) -> Vec<String> {
    let mut clients: Vec<_> = (0..number)
        .map(|_| {
            let mut wire = Wire::connect(node.address());
            wire.send(format!(
                "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: 4\r\n\r\n"
            ));
            wire
        })
        .collect();
    eventually("all guests run", || {
        node.plane.idle_instances() == 0
            && node.plane.free_instance_slots() == node.slots() - number
    });
    let mut answers: Vec<_> = clients
        .iter_mut()
        .map(|client| client.send("body").read().unwrap().text())
        .collect();
    answers.sort();
    node.has_idle(number);
    answers
}

#[test]
fn requests_at_the_same_time_have_instances_of_their_own() {
    let node = setup(9).start(&counting_with(BODY_DROPS, READ_AND_DROP));
    answered(&node, "1");
    assert_eq!(at_once(&node, "h", 3), ["1", "1", "2"]);
}

/// An instance is dropped when it has grown, and when it keeps something of its request.
#[test]
fn what_an_instance_may_not_keep_ends_it() {
    let grows = second("(drop (memory.grow (i32.const 64)))");
    let node = setup(9).start(&counting(&grows));
    answered(&node, "1");
    assert_eq!(get(node.address(), "/").text(), "2");
    node.has_idle(0);
    assert_eq!(node.drops(), ["memory 1"]);

    let headers = second("(drop (call $request-headers (local.get $req)))");
    let body = second("(call $consume (local.get $req) (i32.const 16))");
    for act in [headers, body] {
        let node = setup(9).start(&counting(&act));
        answered(&node, "1");
        assert_eq!(get(node.address(), "/").text(), "2");
        node.has_idle(0);
        assert_eq!(node.drops(), ["resources 1"], "{act}");
    }
}

/// The CPU time of a request, and its end when the client leaves, are those of a fresh instance.
#[test]
fn limits_hold_for_every_request_of_an_instance() {
    let mut spins = setup(9);
    spins.limits.cpu = Duration::from_millis(300);
    let node = spins.start(&counting(&second("(loop $on (br $on))")));
    for round in 1..3 {
        answered(&node, "1");
        let reply = get(node.address(), "/");
        assert_eq!(reply.status_and_error(), (504, "deadline"));
        node.has_idle(0);
        assert_eq!(node.drops(), [format!("failed {round}")]);
    }
    assert_eq!(node.failures(), ["cpu 2"]);

    let node = setup(9).start(&counting(&second(
        "(call $sleep (i64.const 900000000000000))",
    )));
    answered(&node, "1");
    let mut client = Wire::connect(node.address());
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    eventually("the guest runs", || node.plane.idle_instances() == 0);
    client.reset();
    eventually("the instance ends", || node.drops() == ["failed 1"]);
    assert_eq!(node.plane.idle_instances(), 0);
    node.outcomes(2);
    assert_eq!(node.failures(), ["client_gone 1"]);
}

/// Each request may use 1,000 operations.
#[test]
fn operations_on_stores_are_counted_for_each_request() {
    let guest = counting_with(
        r#"(import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $kv-open (param i32 i32 i32)))
        (import "wasi:keyvalue/store@0.2.0-draft2" "[resource-drop]bucket" (func $kv-drop (param i32)))
        (data (i32.const 4200) "cart")"#,
        "(local.set $n (i32.const 600))
        (loop $more
          (call $kv-open (i32.const 4200) (i32.const 4) (i32.const 64))
          (if (i32.load8_u (i32.const 64)) (then (unreachable)))
          (call $kv-drop (i32.load (i32.const 68)))
          (local.set $n (i32.sub (local.get $n) (i32.const 1)))
          (br_if $more (local.get $n)))",
    );
    let mut setup = setup(9);
    setup.key_value = vec!["cart"];
    let node = setup.start(&guest);
    for expected in ["1", "2", "3", "4"] {
        answered(&node, expected);
    }
}

/// A stream that the guest keeps writes lines of the current request, and a line without an end is that of its request.
#[test]
fn lines_of_the_log_name_their_own_request() {
    let node = setup(9).start(&counting_with(
        r#"(import "wasi:cli/stdout@0.2.12" "get-stdout" (func $stdout (result i32)))
        (global $out-stream (mut i32) (i32.const -1))
        (data (i32.const 4200) "first\nopen")"#,
        "
        (if (i32.eq (global.get $out-stream) (i32.const -1))
          (then (global.set $out-stream (call $stdout))))
        (drop (call $write (global.get $out-stream) (i32.const 4200) (i32.const 10)))
        (drop (call $write (global.get $out-stream) (i32.const 4096) (i32.const 1)))",
    ));
    answered(&node, "1");
    answered(&node, "2");
    eventually("four lines", || node.log().len() == 4);
    let lines = node.log();
    let texts: Vec<_> = lines
        .iter()
        .map(|line| line["msg"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["first", "open1", "first", "open2"]);
    let ids: Vec<_> = lines
        .iter()
        .map(|line| line["request_id"].as_str().unwrap())
        .collect();
    assert!(
        ids[0] == ids[1] && ids[2] == ids[3] && ids[1] != ids[2],
        "{ids:?}"
    );
}

/// A guest that traps, that returns without a response, and that returns an error code.
#[test]
fn a_request_that_fails_on_a_used_instance_runs_again_on_a_fresh_one() {
    let error = "
        (call $outparam-set (local.get $out) (i32.const 1) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
        (return)";
    for (act, reason) in [
        ("(unreachable)", "trap"),
        ("(return)", "no_response"),
        (error, "no_response"),
    ] {
        let node = setup(9).start(&counting(&second(act)));
        answered(&node, "1");
        answered(&node, "1");
        let reply = post(&node);
        assert_eq!(reply.text(), "1", "the body was not read");
        node.has_idle(1);
        let counters = node.plane.node_counters();
        assert_eq!((counters.reuses(), counters.reruns()), (2, 2), "{reason}");
        assert_eq!(node.outcomes(3), ["ok 2xx 3"], "{reason}");
        let notice =
            format!("the request failed ({reason}) on an instance that had answered others (1)");
        eventually("the log says so", || {
            let lines = node.log();
            let notices = lines
                .iter()
                .filter(|line| line["msg"].as_str().unwrap().starts_with(&notice));
            notices.count() == 2
        });
    }
}

/// Nothing runs twice when the client may have noticed, or when its body is gone.
#[test]
fn a_request_does_not_run_again_after_its_body_or_its_head() {
    let reads = format!("{} (unreachable)", guests::READ_BODY);
    let node = setup(9).start(&counting(&second(&reads)));
    answered(&node, "1");
    assert_eq!(post(&node).status_and_error(), (500, "trap"));
    node.has_idle(0);
    answered(&node, "1");
    assert_eq!(
        get(node.address(), "/").text(),
        "1",
        "an empty body is not lost"
    );
    let counters = node.plane.node_counters();
    assert_eq!((counters.reuses(), counters.reruns()), (2, 1));

    let head = "(call $set (local.get $out) (call $make (i32.const 200))) (unreachable)";
    let node = setup(9).start(&counting(&second(head)));
    answered(&node, "1");
    assert_eq!(get(node.address(), "/").status_and_error(), (500, "trap"));
    assert_eq!(node.plane.node_counters().reruns(), 0);
    let fresh = Node::serve(&counting("(unreachable)"));
    assert_eq!(get(fresh.address(), "/").status, 500);
    assert_eq!(fresh.plane.node_counters().reruns(), 0);
}

#[test]
fn reuse_ends_when_requests_keep_failing_on_used_instances() {
    let node = setup(9).start(&counting(&second("(unreachable)")));
    for _ in 0..3 {
        answered(&node, "1");
    }
    assert_eq!(get(node.address(), "/").text(), "1");
    node.has_idle(0);
    for _ in 0..3 {
        assert_eq!(get(node.address(), "/").text(), "1");
        node.has_idle(0);
    }
    let counters = node.plane.node_counters();
    assert_eq!((counters.reuses(), counters.reruns()), (3, 3));
    assert_eq!(node.drops(), ["failed 3", "unsafe 4"]);
}

#[test]
fn idle_instances_expire() {
    let mut setup = setup(9);
    setup.reuse.idle_timeout = Duration::from_millis(1);
    let node = setup.start(&counting(""));
    assert_eq!(get(node.address(), "/").text(), "1");
    eventually("the instance expires", || node.drops() == ["idle 1"]);
    node.has_idle(0);
}

#[test]
fn a_new_revision_gets_no_instance_of_the_old_one() {
    let setup = setup(9);
    let counters = CounterTable::new();
    let wasm = counting("");
    let old = setup.revision("r1", &wasm, &counters);
    let node = setup.start_empty(counters.clone());
    let routes = || setup.routes.clone();
    node.publish(vec![served(&old, routes())]);
    answered(&node, "1");
    node.publish(vec![served(&old, routes())]);
    answered(&node, "2");
    let new = setup.revision("r2", &wasm, &counters);
    node.publish(vec![served(&new, routes())]);
    node.has_idle(0);
    assert_eq!(node.drops(), ["retired 1"]);
    answered(&node, "1");
}

#[test]
fn an_instance_whose_revision_left_during_its_request_is_not_kept() {
    let setup = setup(9);
    let counters = CounterTable::new();
    let wasm = counting("(call $sleep (i64.const 300000000))");
    let old = setup.revision("r1", &wasm, &counters);
    let node = setup.start_empty(counters);
    node.publish(vec![served(&old, setup.routes.clone())]);
    let mut client = Wire::connect(node.address());
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    eventually("the guest runs", || {
        node.plane.free_instance_slots() < node.slots()
    });
    node.publish(Vec::new());
    assert_eq!(client.read().unwrap().text(), "1");
    node.has_idle(0);
    assert_eq!(node.drops(), ["retired 1"]);
}

#[test]
fn memory_pressure_drops_idle_instances_and_keeps_none() {
    let node = setup(9).start(&counting(""));
    answered(&node, "1");
    let shed = |pressure| {
        node.plane.set_load_shedding(LoadShedding {
            pressure,
            ..LoadShedding::default()
        });
    };
    shed(MemoryPressure::High);
    node.has_idle(0);
    assert_eq!(get(node.address(), "/").text(), "1");
    node.has_idle(0);
    assert_eq!(node.drops(), ["memory_pressure 2"]);
    shed(MemoryPressure::None);
    answered(&node, "1");
    answered(&node, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_drops_idle_instances() {
    let node = setup(9).start(&counting(""));
    let address = node.address();
    let reply = tokio::task::spawn_blocking(move || get(address, "/").text());
    assert_eq!(reply.await.unwrap(), "1");
    node.has_idle(1);
    node.plane.drain(Duration::ZERO, MINUTE).await;
    node.has_idle(0);
    assert_eq!(node.drops(), ["drain 1"]);
}

/// Two functions in namespaces of their own.
fn two_functions(options: &EngineOptions, wasm: &[u8]) -> Node {
    let mut setup = setup(9);
    setup.engine = Engine::new(options).unwrap();
    let counters = CounterTable::new();
    let node = setup.start_empty(counters.clone());
    let function = |namespace: &str| {
        let key = FunctionKey::new(namespace, "f");
        let route = Route {
            hosts: vec![format!("{namespace}.example")],
            ..Route::default()
        };
        served(&setup.revision_of(key, "r1", wasm, &counters), vec![route])
    };
    node.publish(vec![function("a"), function("b")]);
    node
}

fn from(node: &Node, namespace: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: {namespace}.example\r\n\r\n");
    once(node.address(), request).text()
}

#[test]
fn idle_instances_give_way_to_requests_that_need_their_slots() {
    let small = EngineOptions {
        max_slots: 8,
        ..EngineOptions::small()
    };
    let node = two_functions(&small, &counting_with(BODY_DROPS, READ_AND_DROP));
    // a namespace may use all slots but one
    let all = node.slots() - 1;
    at_once(&node, "a.example", all);
    for request in 1..3 {
        assert_eq!(from(&node, "b"), request.to_string());
        node.has_idle(all);
        assert_eq!(node.drops(), ["evicted 1"]);
    }
    assert_eq!(from(&node, "a"), "2");
}

#[test]
fn idle_instances_give_way_to_guests_that_need_their_memory() {
    let small = EngineOptions {
        memory_limit: 64 << 20,
        ..EngineOptions::small()
    };
    // 24 of 40 MiB
    let node = two_functions(
        &small,
        &counting(
            "(if (i32.eq (global.get $count) (i32.const 49)) (then
            (if (i32.eq (memory.grow (i32.const 384)) (i32.const -1)) (then (unreachable)))))",
        ),
    );
    assert_eq!(from(&node, "a"), "1");
    node.has_idle(1);
    assert_eq!(from(&node, "b"), "1");
    node.has_idle(1);
    assert_eq!(node.drops(), ["evicted 1"]);
    assert_eq!(from(&node, "b"), "2");
}
