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

#[test]
fn hg_5_recursion_traps_and_the_host_goes_on() {
    let node = Node::serve(&guests::RECURSE);
    for _ in 0..3 {
        assert_eq!(get(node.address(), "/").told(), (500, "trap"));
    }
    assert_eq!(node.outcomes(3), ["trap 5xx 3"]);
    node.is_quiet();
}

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
