//! Calls into other namespaces, which the called function has to grant.

use std::sync::Arc;
use std::time::Duration;

use node_shim_core::table::Caller;

use super::calls::{Functions, ask};
use super::{counted, messages};
use crate::guests;
use crate::support::node::{Node, eventually};
use crate::support::outbound::Call;
use crate::support::wire::Wire;

/// Host of the function that all functions of these tests call.
const PRICES: &str = "prices.catalog.selvage.internal";
const DENIED: &str = "denied_total reason=not_granted 1";

fn caller(namespace: &str, name: Option<&str>) -> Caller {
    Caller {
        namespace: namespace.into(),
        name: name.map(Into::into),
    }
}

/// Functions `ns/a`, which calls `catalog/prices`, and that function, which is this guest and admits these callers.
fn calling_prices(wasm: &[u8], callers: Vec<Caller>) -> Functions {
    let mut functions = Functions::allowing(&["function://catalog/prices"]);
    functions.add("ns", "a", &Call::get(PRICES).guest());
    functions.add("catalog", "prices", wasm);
    admit(&mut functions, callers);
    functions
}

/// Sets the callers of the function that was added last.
fn admit(functions: &mut Functions, callers: Vec<Caller>) {
    functions.change(|served| {
        let mut entry = (*served.entry).clone();
        entry.callers = callers;
        served.entry = Arc::new(entry);
    });
}

/// Asks `ns/a`, and returns its status, what is counted, and what is logged.
fn refused(node: &Node) -> (u16, Vec<String>, Vec<String>) {
    let status = ask(node, "a.example").status;
    eventually("the denial is logged", || !messages(node).is_empty());
    (status, counted(node), messages(node))
}

#[test]
fn a_function_calls_one_of_another_namespace_that_names_it() {
    for callers in [
        vec![caller("ns", None)],
        vec![caller("ns", Some("a"))],
        vec![
            caller("other", None),
            caller("ns", Some("b")),
            caller("ns", Some("a")),
        ],
    ] {
        let node = calling_prices(&guests::ANSWER, callers).start();
        assert_eq!(ask(&node, "a.example").status, 200);
        assert_eq!(node.outcomes(2), ["ok 2xx 1", "ok 2xx 1"]);
        assert_eq!(counted(&node), ["requests_total outcome=response 1"]);
        node.is_quiet();
    }
}

/// HK-2: without a grant the caller receives the same whether the function exists, grants others, is suspended, or is not
/// there at all.
#[test]
fn hk_2_nothing_is_learned_about_a_namespace_that_grants_nothing() {
    let mut absent = Functions::allowing(&["function://catalog/prices"]);
    absent.add("ns", "a", &Call::get(PRICES).guest());
    let expected = refused(&absent.start());
    // error code 15 is HTTP-request-denied
    assert_eq!(
        (expected.0, expected.1.as_slice()),
        (215, &[DENIED.to_owned()][..])
    );
    let [line] = expected.2.as_slice() else {
        panic!("{expected:?}")
    };
    let advice = r#"add callers: [{namespace: "ns", name: "a"}] to the spec of catalog/prices"#;
    assert!(line.contains(advice), "{line}");
    for callers in [
        vec![],
        vec![caller("other", None)],
        vec![caller("ns", Some("b"))],
        vec![
            caller("ns.a", None),
            caller("n", None),
            caller("catalog", Some("a")),
        ],
    ] {
        for suspended in [false, true] {
            let mut functions = calling_prices(&guests::ANSWER, callers.clone());
            functions.change(|served| {
                let mut entry = (*served.entry).clone();
                entry.suspended = suspended;
                served.entry = Arc::new(entry);
            });
            let node = functions.start();
            assert_eq!(refused(&node), expected, "{callers:?}");
            assert_eq!(node.outcomes(1).len(), 1, "no function was called");
            node.is_quiet();
        }
    }
}

/// The present table decides about each call, not the one with which the caller began.
#[test]
fn a_grant_that_is_withdrawn_ends_with_the_next_call() {
    let mut functions = calling_prices(&guests::ANSWER, vec![caller("ns", None)]);
    let node = functions.start();
    for (callers, status) in [
        (vec![caller("ns", None)], 200),
        (vec![], 215),
        (vec![caller("ns", Some("a"))], 200),
    ] {
        admit(&mut functions, callers);
        functions.publish(&node);
        assert_eq!(ask(&node, "a.example").status, status);
    }
    // a caller that waits for the body of its own request calls afterwards
    let call = Call {
        post: true,
        ..Call::get(PRICES)
    };
    let mut functions = Functions::allowing(&["function://catalog/prices"]);
    functions.add("ns", "a", &call.guest());
    functions.add("catalog", "prices", &guests::SINK);
    admit(&mut functions, vec![caller("ns", None)]);
    let node = functions.start();
    let mut running = Wire::connect(node.address());
    running.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 2\r\n\r\nx");
    let slots = node.slots();
    eventually("the call runs", || {
        slots - node.plane.free_instance_slots() >= 2
    });
    admit(&mut functions, Vec::new());
    functions.publish(&node);
    running.send("y");
    // a call that was admitted ends as any other
    assert_eq!(running.read().unwrap().status, 200);
    node.is_quiet();
}

/// The grant of a namespace is for calls only: `egress.allow` of the caller decides as well.
#[test]
fn a_grant_does_not_replace_the_entry_of_the_caller() {
    let mut functions = Functions::allowing(&["function://ns/b"]);
    functions.add("ns", "a", &Call::get(PRICES).guest());
    functions.add("catalog", "prices", &guests::ANSWER);
    admit(&mut functions, vec![caller("ns", None)]);
    let node = functions.start();
    assert_eq!(ask(&node, "a.example").status, 215);
    assert_eq!(counted(&node), ["denied_total reason=not_allowed 1"]);
}

/// HG-21: a loop through two namespaces ends like one within a namespace, and a call has at most the time of its caller.
#[test]
fn hg_21_bounds_of_calls_hold_between_namespaces() {
    let mut functions = Functions::allowing(&["function://catalog/prices", "function://ns/a"]);
    functions.add("ns", "a", &Call::get(PRICES).guest());
    admit(&mut functions, vec![caller("catalog", None)]);
    functions.add(
        "catalog",
        "prices",
        &Call::get("a.ns.selvage.internal").guest(),
    );
    admit(&mut functions, vec![caller("ns", None)]);
    let node = functions.start();
    assert_eq!(ask(&node, "a.example").status, 508);
    node.outcomes(9);
    node.is_quiet();

    let mut functions = Functions::allowing(&["function://catalog/prices"]);
    functions.change_setup(|setup| setup.limits.timeout = Duration::from_millis(300));
    functions.add("ns", "a", &Call::get(PRICES).guest());
    functions.change_setup(|setup| setup.limits.timeout = Duration::from_secs(3_600));
    functions.change_setup(|setup| setup.limits.first_byte = Duration::from_secs(3_600));
    functions.add("catalog", "prices", &guests::SLEEP);
    admit(&mut functions, vec![caller("ns", None)]);
    let node = functions.start();
    assert_eq!(
        ask(&node, "a.example").status_and_error(),
        (504, "deadline")
    );
    node.is_quiet();
}
