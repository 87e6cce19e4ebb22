//! Guests that take too much: time, memory, stack.

use std::time::Duration;

use crate::guests;
use crate::support::node::{Node, Setup};
use crate::support::wire::get;

#[test]
fn an_ordinary_guest_answers() {
    let node = Node::serve(&guests::ANSWER);
    let reply = get(node.address(), "/");
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello\n"));
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
    node.is_quiet();
}

/// HG-1: 504 `deadline` for `cpu`, and another request of the same thread is answered meanwhile.
#[test]
fn hg_1_endless_computation_meets_the_cpu_limit_and_starves_nobody() {
    let node = Setup::limits(|l| l.cpu = Duration::from_millis(100)).start(&guests::SPIN);
    let address = node.address();
    let spinning = std::thread::spawn(move || get(address, "/"));
    // the same thread answers others meanwhile
    let other = get(node.address(), "/.well-known/selvage/ready");
    assert_eq!(other.status, 200);
    assert_eq!(spinning.join().unwrap().told(), (504, "deadline"));
    assert_eq!(node.outcomes(1), ["deadline 5xx 1"]);
    assert_eq!(node.failures(), ["cpu 1"]);
    node.is_quiet();
}

/// HG-2: 504 for `wall` and for `first_byte`; the slot comes back.
#[test]
fn hg_2_waiting_for_ever_meets_the_wall_limit_and_holds_nothing_after() {
    let short = Duration::from_millis(200);
    let node = Setup::limits(|l| l.timeout = short).start(&guests::SLEEP);
    assert_eq!(get(node.address(), "/").told(), (504, "deadline"));
    assert_eq!(node.outcomes(1), ["deadline 5xx 1"]);
    assert_eq!(node.failures(), ["wall 1"]);
    node.is_quiet();

    let node = Setup::limits(|l| l.first_byte = short).start(&guests::SLEEP);
    assert_eq!(get(node.address(), "/").told(), (504, "deadline"));
    node.outcomes(1);
    assert_eq!(node.failures(), ["first_byte 1"]);
    node.is_quiet();
}

/// HG-3: −1 at the limit and 200; `oom` only after a trap.
#[test]
fn hg_3_refused_memory_is_no_failure_until_the_guest_traps() {
    let small = |l: &mut node_shim_core::table::Limits| l.memory = 8 << 20;
    let node = Setup::limits(small).start(&guests::GROW);
    let reply = get(node.address(), "/");
    assert_eq!((reply.status, reply.text().as_str()), (200, "refused"));
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);

    let node = Setup::limits(small).start(&guests::OOM);
    assert_eq!(get(node.address(), "/").told(), (500, "out_of_memory"));
    assert_eq!(node.outcomes(1), ["oom 5xx 1"]);
    assert_eq!(node.failures(), ["memory 1"]);
    node.is_quiet();
}

/// HG-5: `trap`, and the same thread runs the next one.
#[test]
fn hg_5_recursion_traps_and_the_host_goes_on() {
    let node = Node::serve(&guests::RECURSE);
    for _ in 0..3 {
        assert_eq!(get(node.address(), "/").told(), (500, "trap"));
    }
    assert_eq!(node.outcomes(3), ["trap 5xx 3"]);
    node.is_quiet();
}

/// HG-13, FN-9, without a breaker: each request is one 500 of its own.
#[test]
fn hg_13_a_guest_that_always_traps_fails_each_request_alone() {
    let node = Node::serve(&guests::TRAP);
    for _ in 0..20 {
        assert_eq!(get(node.address(), "/").told(), (500, "trap"));
    }
    assert_eq!(node.outcomes(20), ["trap 5xx 20"]);
    assert_eq!(node.failures(), ["trap 20"]);
    node.is_quiet();
}

#[test]
fn hg_4_hg_12_what_cannot_be_served_is_refused_before_traffic() {
    use node_shim::counters::CounterTable;
    use node_shim::engine::{Compiler, LoadError};
    use node_shim::revision::RevisionError;

    use crate::support::component;
    use crate::support::node::ENGINE;

    let refused = |wasm: &[u8]| ENGINE.compile_in_process(wasm).err().unwrap();
    let sockets = component::guest(
        r#"(import "wasi:sockets/instance-network@0.2.12" "instance-network" (func $net (result i32)))"#,
        "(drop (call $net))",
    );
    let error = refused(&sockets);
    let Some(LoadError::WorldMismatch(list)) = error.downcast_ref() else {
        panic!("{error:#}")
    };
    assert!(list[0].contains("wasi:sockets/"), "{list:?}");
    assert_eq!(
        Compiler::new().unwrap().missing_imports(&sockets).unwrap(),
        *list
    );

    let no_handler = wat::parse_str("(component)").unwrap();
    let error = refused(&no_handler);
    let Some(LoadError::WorldMismatch(list)) = error.downcast_ref() else {
        panic!("{error:#}")
    };
    assert!(list[0].contains("incoming-handler"), "{list:?}");

    let threads = wat::parse_str("(component (core module (memory 1 2 shared)))").unwrap();
    assert!(format!("{:#}", refused(&threads)).contains("threads"));
    assert!(
        ENGINE
            .compile_in_process(&wat::parse_str("(module)").unwrap())
            .is_err()
    );

    let setup = Setup::limits(|l| l.memory = 128 << 10);
    let spec = node_shim::revision::RevisionSpec {
        function: node_shim_core::table::FunctionKey::new("ns", "f"),
        name: node_shim_core::table::RevisionName::new("r").unwrap(),
        limits: setup.limits,
        env: Vec::new(),
        config: Vec::new(),
    };
    let loaded = ENGINE.compile_in_process(&guests::ANSWER).unwrap();
    let error = node_shim::revision::Revision::new(spec, loaded, &CounterTable::new()).unwrap_err();
    assert_eq!(
        error,
        RevisionError::Memory {
            needs: 256 << 10,
            limit: 128 << 10
        }
    );
}

/// HG-6, HG-7: handles without end and a gigabyte of dice are a `trap` for `host_limit`.
#[test]
fn hg_6_hg_7_handles_and_host_calls_are_bounded() {
    use crate::support::component::guest;

    let hoarder = guest("", "(loop $on (drop (call $fields)) (br $on))");
    let node = Node::serve(&hoarder);
    assert_eq!(get(node.address(), "/").told(), (500, "trap"));
    assert_eq!(node.outcomes(1), ["trap 5xx 1"]);
    assert_eq!(node.failures(), ["host_limit 1"]);
    node.is_quiet();

    let greedy = guest(
        r#"(import "wasi:random/random@0.2.12" "get-random-bytes" (func $random (param i64 i32)))"#,
        "(call $random (i64.const 1073741824) (i32.const 16))",
    );
    let node = Node::serve(&greedy);
    assert_eq!(get(node.address(), "/").told(), (500, "trap"));
    assert_eq!(node.failures(), ["host_limit 1"]);
    node.is_quiet();
}
