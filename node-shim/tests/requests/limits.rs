//! Guests that exceed their limits of time, memory and stack.

use std::time::Duration;

use node_shim::counters::CounterTable;
use node_shim::engine::LoadError;
use node_shim::revision::{Revision, RevisionError, RevisionSpec};
use node_shim_core::egress::AllowList;
use node_shim_core::instance_reuse::ReusePolicy;
use node_shim_core::table::{FunctionKey, RevisionName};

use crate::guests;
use crate::support::component;
use crate::support::node::{ENGINE, Node, Setup, eventually};
use crate::support::wire::get;

#[test]
fn an_ordinary_guest_responds() {
    let node = Node::serve(&guests::ANSWER);
    let reply = get(node.address(), "/");
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello\n"));
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
    node.is_quiet();
}

/// HG-1: 504 `deadline` for `cpu`, while another request is served on the same thread.
#[test]
fn hg_1_an_endless_loop_is_stopped_by_the_cpu_limit() {
    let setup = Setup::limits(|l| l.cpu = Duration::from_millis(100)).on_one_thread();
    let node = setup.start(&guests::SPIN);
    let address = node.address();
    let spinning = std::thread::spawn(move || get(address, "/"));
    // the only thread serves other requests meanwhile
    let other = get(node.address(), "/.well-known/selvage/ready");
    assert_eq!(other.status, 200);
    assert_eq!(
        spinning.join().unwrap().status_and_error(),
        (504, "deadline")
    );
    assert_eq!(node.outcomes(1), ["deadline 5xx 1"]);
    assert_eq!(node.failures(), ["cpu 1"]);
    node.is_quiet();
}

/// HG-2: 504 for `wall` and for `first_byte`, and the slot is freed.
#[test]
fn hg_2_endless_waiting_is_stopped_by_the_timeout() {
    let short = Duration::from_millis(200);
    let node = Setup::limits(|l| l.timeout = short).start(&guests::SLEEP);
    assert_eq!(
        get(node.address(), "/").status_and_error(),
        (504, "deadline")
    );
    assert_eq!(node.outcomes(1), ["deadline 5xx 1"]);
    assert_eq!(node.failures(), ["wall 1"]);
    node.is_quiet();

    let node = Setup::limits(|l| l.first_byte = short).start(&guests::SLEEP);
    assert_eq!(
        get(node.address(), "/").status_and_error(),
        (504, "deadline")
    );
    node.outcomes(1);
    assert_eq!(node.failures(), ["first_byte 1"]);
    node.is_quiet();
}

/// HG-3: −1 at the limit and 200; `oom` only after a trap.
#[test]
fn hg_3_denied_memory_growth_is_a_failure_only_if_the_guest_traps() {
    let small = |l: &mut node_shim_core::table::Limits| l.memory = 8 << 20;
    let node = Setup::limits(small).start(&guests::GROW);
    let reply = get(node.address(), "/");
    assert_eq!((reply.status, reply.text().as_str()), (200, "refused"));
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);

    let node = Setup::limits(small).start(&guests::OOM);
    assert_eq!(
        get(node.address(), "/").status_and_error(),
        (500, "out_of_memory")
    );
    assert_eq!(node.outcomes(1), ["oom 5xx 1"]);
    assert_eq!(node.failures(), ["memory 1"]);
    node.is_quiet();
}

/// HG-5: `trap`, and the same thread runs the next guest.
#[test]
fn hg_5_endless_recursion_traps() {
    let node = Setup::default().on_one_thread().start(&guests::RECURSE);
    for _ in 0..3 {
        assert_eq!(get(node.address(), "/").status_and_error(), (500, "trap"));
    }
    assert_eq!(node.outcomes(3), ["trap 5xx 3"]);
    node.is_quiet();
}

/// HG-13, FN-9: each request gets its own 500.
#[test]
fn hg_13_a_guest_that_always_traps_fails_every_request() {
    let node = Node::serve(&guests::TRAP);
    for _ in 0..20 {
        assert_eq!(get(node.address(), "/").status_and_error(), (500, "trap"));
    }
    assert_eq!(node.outcomes(20), ["trap 5xx 20"]);
    assert_eq!(node.failures(), ["trap 20"]);
    node.is_quiet();
}

/// The log has the names of the functions and the offsets in the component; clients see neither.
#[test]
fn the_log_names_the_functions_that_were_running_when_a_guest_trapped() {
    let render = "$_ZN5guest6render17h0123456789abcdefE";
    let items = format!("(func $collapse unreachable) (func {render} (call $collapse))");
    let wasm = component::guest(&items, &format!("(call {render})"));
    let node = Node::serve(&wasm);
    let reply = get(node.address(), "/");
    assert_eq!(reply.status_and_error(), (500, "trap"));
    assert!(!format!("{:?}{}", reply.headers, reply.text()).contains("collapse"));
    eventually("the reason is written", || !node.log().is_empty());
    let log = node.log();
    let (stream, text) = (&log[0]["stream"], log[0]["msg"].as_str().unwrap());
    assert_eq!(stream, "shim");
    let first = "trap: wasm trap: wasm `unreachable` instruction executed";
    assert!(text.starts_with(first), "{text}");
    let frame = |name: &str| {
        let line = text.lines().find(|line| line.ends_with(name));
        let line = line.unwrap_or_else(|| panic!("{name} in {text}"));
        assert!(line.contains(" 0x"), "{line}");
        line.trim_start().split(':').next().unwrap().to_owned()
    };
    assert_eq!(frame("!collapse"), "0");
    assert_eq!(frame("!guest::render"), "1");
    assert_eq!(log.len(), 1);
}

#[test]
fn hg_4_hg_12_unservable_components_are_rejected_before_traffic() {
    let refused = |wasm: &[u8]| ENGINE.compile_in_process(wasm).err().unwrap();
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
}

/// HG-4: the memory with which an instance starts includes tables, before traffic and while a request runs.
#[test]
fn a_component_runs_if_its_initial_memory_and_tables_fit_the_limit() {
    let guest = component::guest(
        "(table 1000 funcref)",
        "(call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 4))",
    );
    let new = |limit: u64| {
        let spec = RevisionSpec {
            function: FunctionKey::new("ns", "f"),
            name: RevisionName::new("r").unwrap(),
            limits: Setup::limits(|l| l.memory = limit).limits,
            env: Vec::new(),
            config: Vec::new(),
            key_value: Vec::new(),
            egress: AllowList::default(),
            authorities: None,
            reuse: ReusePolicy::default(),
        };
        let loaded = ENGINE.compile_in_process(&guest).unwrap();
        Revision::new(spec, loaded, &CounterTable::new())
    };
    let memory = 256 << 10;
    let Err(RevisionError::Memory { needs, limit }) = new(memory) else {
        panic!("the tables do not fit")
    };
    assert_eq!(limit, memory);
    assert!(needs >= memory + 16 * 1_000, "{needs}");
    assert_eq!(
        new(needs - 1).unwrap_err(),
        RevisionError::Memory {
            needs,
            limit: needs - 1
        }
    );
    let node = Setup::limits(|l| l.memory = needs).start(&guest);
    assert_eq!(get(node.address(), "/").status, 200);
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// HG-6, HG-7: unlimited handles and a gigabyte of random data are a `trap` for `host_limit`.
#[test]
fn hg_6_hg_7_handles_and_host_calls_are_bounded() {
    let hoarder = component::guest("", "(loop $on (drop (call $fields)) (br $on))");
    let node = Node::serve(&hoarder);
    assert_eq!(get(node.address(), "/").status_and_error(), (500, "trap"));
    assert_eq!(node.outcomes(1), ["trap 5xx 1"]);
    assert_eq!(node.failures(), ["host_limit 1"]);
    node.is_quiet();

    for bytes in [(1 << 20) + 1, 1 << 30] {
        let node = Node::serve(&random(bytes));
        assert_eq!(get(node.address(), "/").status_and_error(), (500, "trap"));
        node.outcomes(1);
        assert_eq!(node.failures(), ["host_limit 1"]);
        node.is_quiet();
    }
}

/// Requests `bytes` random bytes with one call, then responds with 200.
fn random(bytes: u64) -> Vec<u8> {
    component::guest(
        r#"(import "wasi:random/random@0.2.12" "get-random-bytes" (func $random (param i64 i32)))"#,
        &format!(
            "(drop (memory.grow (i32.const 32)))
             (call $random (i64.const {bytes}) (i32.const 16))
             (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 4))"
        ),
    )
}

#[test]
fn one_call_returns_up_to_a_mebibyte_of_random_bytes() {
    for bytes in [0, (64 << 10) + 1, 1 << 20] {
        let node = Node::serve(&random(bytes));
        assert_eq!(get(node.address(), "/").status, 200, "{bytes} bytes");
    }
}
