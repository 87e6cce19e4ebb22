//! Instances and memory of the node are shared fairly between namespaces.

use std::time::Duration;

use node_shim::counters::CounterTable;
use node_shim::engine::{Engine, EngineOptions};
use node_shim_core::table::{FunctionKey, Route};

use crate::guests;
use crate::support::component::guest;
use crate::support::node::{Node, Setup, eventually, served};
use crate::support::wire::Wire;

/// Grows its memory by 16 MiB, and traps if that fails. Then waits for days.
fn large() -> Vec<u8> {
    guest(
        "",
        "
        (if (i32.eq (memory.grow (i32.const 256)) (i32.const -1)) (then (unreachable)))
        (call $sleep (i64.const 1000000000000000))",
    )
}

/// Serves `greedy.example` with [`large`] and `modest.example` with a guest that answers, in two namespaces.
fn two_tenants(options: &EngineOptions) -> Node {
    let mut setup = Setup {
        engine: Engine::new(options).unwrap(),
        ..Setup::default()
    };
    setup.limits.timeout = Duration::from_secs(3_600);
    setup.limits.first_byte = Duration::from_secs(3_600);
    let counters = CounterTable::new();
    let node = setup.start_empty(counters.clone());
    let function = |namespace: &str, wasm: &[u8]| {
        let key = FunctionKey::new(namespace, "f");
        let revision = setup.revision_of(key, "r1", wasm, &counters);
        let route = Route {
            hosts: vec![format!("{namespace}.example")],
            ..Route::default()
        };
        served(&revision, vec![route])
    };
    node.publish(vec![
        function("greedy", &large()),
        function("modest", &guests::ANSWER),
    ]);
    node
}

fn request(node: &Node, namespace: &str) -> Wire {
    let mut wire = Wire::connect(node.address());
    wire.send(format!(
        "GET / HTTP/1.1\r\nhost: {namespace}.example\r\n\r\n"
    ));
    wire
}

fn assert_only_greedy_is_refused(node: &Node, reason: &str) {
    let refused = request(node, "greedy").read().unwrap();
    assert_eq!(refused.status_and_error(), (503, "overloaded"));
    node.outcomes(1);
    assert_eq!(node.failures(), [format!("{reason} 1")]);
    assert_eq!(request(node, "modest").read().unwrap().status, 200);
}

#[test]
fn a_namespace_does_not_take_the_last_instance_slots() {
    let node = two_tenants(&EngineOptions {
        max_slots: 20,
        memory_limit: 8 << 30,
        ..EngineOptions::small()
    });
    let slots = node.slots();
    let mut held = Vec::new();
    while slots - held.len() > 2 {
        held.push(request(&node, "greedy"));
    }
    eventually("all but two slots are taken", || {
        node.plane.free_instance_slots() == 2
    });
    assert_only_greedy_is_refused(&node, "pool");
}

/// The greedy function stays below its own limits: together its instances would need more than the node has.
#[test]
fn a_namespace_does_not_take_the_last_memory() {
    let node = two_tenants(&EngineOptions {
        memory_limit: 64 << 20,
        ..EngineOptions::small()
    });
    let all = node.plane.free_guest_memory();
    assert_eq!(all, 40 << 20);
    let held: Vec<_> = (0..2).map(|_| request(&node, "greedy")).collect();
    eventually("two guests have their memory", || {
        node.plane.free_guest_memory() < 8 << 20
    });
    assert_only_greedy_is_refused(&node, "memory_pressure");
    held.into_iter().for_each(Wire::reset);
    eventually("the memory is given back", || {
        node.plane.free_guest_memory() == all
    });
}
