//! Tests of `wasi:keyvalue`; those of this file have stores in memory.

mod guests;
mod in_redis;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use node_api::store_label;
use node_shim::counters::CounterTable;
use node_shim::metrics::{Metrics, NodeIdentity};
use node_shim::routing_table::ServedFunction;
use node_shim_core::key_value::MemoryLimits;
use node_shim_core::table::{FunctionKey, Route};

use crate::program::start;
use crate::support::key_value::{DRAFT2, counter, counter_in};
use crate::support::node::{Node, Setup, memory, served};
use crate::support::wire::{Reply, get, once};
use guests::{asks, fills, hoards, swapper, tour, writes};

const DRAFT1: &str = "0.2.0-draft";
const SPENT: &str = "the request has used its 1000 operations on key-value stores";

fn setup() -> Setup {
    Setup {
        key_value: vec!["other", "cart"],
        ..Setup::default()
    }
}

fn serve(wasm: &[u8]) -> Node {
    setup().start(wasm)
}

/// Starts a node with a function for each namespace and name, which serves the host `NAME.NAMESPACE.example`.
fn serve_all(setup: &Setup, functions: &[(&str, &str, &[u8])]) -> Node {
    let counters = CounterTable::new();
    let node = setup.start_empty(counters.clone());
    let function = |(namespace, name, wasm): &(&str, &str, &[u8])| {
        let key = FunctionKey::new(*namespace, *name);
        let revision = setup.revision_of(key, "r1", wasm, &counters);
        served(
            &revision,
            vec![host(&format!("{name}.{namespace}.example"))],
        )
    };
    let functions: Vec<ServedFunction> = functions.iter().map(function).collect();
    node.publish(functions);
    node
}

fn host(name: &str) -> Route {
    Route {
        hosts: vec![name.to_owned()],
        ..Route::default()
    }
}

fn ask(address: SocketAddr, host: &str) -> (u16, String) {
    let reply = once(
        address,
        format!("GET / HTTP/1.1\r\nhost: {host}.example\r\n\r\n"),
    );
    seen(&reply)
}

fn seen(reply: &Reply) -> (u16, String) {
    (reply.status, reply.text())
}

#[test]
fn every_function_of_both_drafts_works() {
    for draft in node_api::world::KEY_VALUE_VERSIONS {
        let node = serve(&tour(draft));
        assert_eq!(get(node.address(), "/").status, 200, "{draft}");
        assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
    }
}

/// Each client reads, waits and swaps. A lost update would give two of them the same number.
#[test]
fn parallel_swaps_lose_no_update() {
    const CLIENTS: u32 = 16;
    const REQUESTS: u32 = 8;
    let node = serve(&swapper());
    let address = node.address();
    let swap = move || {
        let reply = get(address, "/");
        assert_eq!(reply.status, 200, "{}", reply.text());
        u32::from_le_bytes(reply.body.try_into().unwrap())
    };
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| std::thread::spawn(move || (0..REQUESTS).map(|_| swap()).collect::<Vec<_>>()))
        .collect();
    let numbers = clients
        .into_iter()
        .flat_map(|client| client.join().unwrap());
    let numbers: BTreeSet<u32> = numbers.collect();
    assert_eq!(numbers, (1..=CLIENTS * REQUESTS).collect());
}

#[test]
fn numbers_are_shared_by_both_drafts_and_only_the_second_has_negative_ones() {
    let first = |delta| counter(DRAFT1, delta);
    let second = |delta| counter(DRAFT2, delta);
    let functions: [(&str, &str, &[u8]); 4] = [
        ("ns", "up", &first(3)),
        ("ns", "down", &second(-5)),
        ("ns", "zero", &first(0)),
        ("ns", "huge", &first(-1)),
    ];
    let node = serve_all(&setup(), &functions);
    let out_of_range = (500, "the sum is out of range".to_owned());
    for (function, expected) in [
        ("up", (200, "3".to_owned())),
        ("down", (200, "-2".to_owned())),
        ("zero", out_of_range.clone()),
        // only the sum must not be negative
        ("up", (200, "1".to_owned())),
        // the number is 2^64 - 1 in this draft
        ("huge", out_of_range),
        ("up", (200, "4".to_owned())),
    ] {
        assert_eq!(
            ask(node.address(), &format!("{function}.ns")),
            expected,
            "{function}"
        );
    }
}

#[test]
fn functions_of_a_namespace_share_a_label_and_namespaces_are_apart() {
    let count = counter(DRAFT2, 1);
    let functions: [(&str, &str, &[u8]); 3] = [
        ("shop", "a", &count),
        ("shop", "b", &count),
        ("bank", "a", &count),
    ];
    let node = serve_all(&setup(), &functions);
    for (function, expected) in [
        ("a.shop", "1"),
        ("b.shop", "2"),
        ("a.bank", "1"),
        ("a.shop", "3"),
    ] {
        let answer = ask(node.address(), function);
        assert_eq!(answer, (200, expected.to_owned()), "{function}");
    }
}

/// Labels are the names that components have in their source, and each one is a store of its own.
#[test]
fn a_component_opens_a_store_by_any_label() {
    let longest = "l".repeat(store_label::MAX_LABEL);
    let labels = [
        "",
        "cart",
        "Cart",
        "in_memory",
        "cart/1",
        "wasi:kv/a.b",
        &longest,
    ];
    for draft in node_api::world::KEY_VALUE_VERSIONS {
        let counters = CounterTable::new();
        let setup = setup();
        let node = setup.start_empty(counters.clone());
        let function = |(index, label): (usize, &&str)| {
            assert!(store_label::is_label(label));
            let setup = Setup {
                stores: labels.iter().map(|label| memory(label)).collect(),
                ..Setup::default()
            };
            let key = FunctionKey::new("ns", format!("f{index}"));
            let wasm = counter_in(label, draft, 1);
            let revision = setup.revision_of(key, "r1", &wasm, &counters);
            served(&revision, vec![host(&format!("f{index}.example"))])
        };
        node.publish(labels.iter().enumerate().map(function).collect());
        for count in ["1", "2"] {
            for (index, label) in labels.iter().enumerate() {
                let answer = ask(node.address(), &format!("f{index}"));
                assert_eq!(answer, (200, count.to_owned()), "{label:?}");
            }
        }
    }
}

#[test]
fn entries_survive_a_new_revision() {
    let setup = setup();
    let counters = CounterTable::new();
    let node = setup.start_empty(counters.clone());
    for (name, draft, expected) in [("r1", DRAFT1, "1"), ("r2", DRAFT2, "2")] {
        let revision = setup.revision(name, &counter(draft, 1), &counters);
        node.publish(vec![served(&revision, setup.routes.clone())]);
        let answer = seen(&get(node.address(), "/"));
        assert_eq!(answer, (200, expected.to_owned()));
    }
}

#[test]
fn a_label_that_the_function_does_not_have_is_no_store() {
    for labels in [vec![], vec!["carts", "Cart", "car", "", "cart/"]] {
        let setup = Setup {
            key_value: labels,
            ..Setup::default()
        };
        let node = setup.start(&counter(DRAFT2, 1));
        assert_eq!(seen(&get(node.address(), "/")), (404, String::new()));
        assert_eq!(node.outcomes(1), ["ok 4xx 1"]);
    }
}

/// HG-29: operations are limited per request, `open` included. The guest gets an error and can answer.
#[test]
fn hg_29_a_request_has_1000_operations() {
    for (times, expected) in [(999, (200, "cart")), (1_000, (500, SPENT))] {
        let node = serve(&asks(times));
        let answer = (expected.0, expected.1.to_owned());
        for _ in 0..2 {
            assert_eq!(seen(&get(node.address(), "/")), answer, "{times}");
        }
        assert_eq!(node.failures(), [""; 0]);
    }
    // HG-6: handles are operations too
    let node = serve(&hoards());
    assert_eq!(seen(&get(node.address(), "/")), (500, SPENT.to_owned()));
}

/// HG-30: keys and values beyond their limits are errors, and nothing is written.
#[test]
fn hg_30_keys_and_values_have_limits() {
    const MIB: u32 = 1 << 20;
    for (key, value, error) in [
        (1_024, MIB, None),
        (0, 0, None),
        (1_025, 1, Some("the key has 1025 bytes; the limit is 1024")),
        (
            1,
            MIB + 1,
            Some("the value has 1048577 bytes; the limit is 1048576"),
        ),
    ] {
        let node = serve(&writes(key, value));
        let expected = error.map_or((200, "cart"), |error| (500, error));
        let answer = seen(&get(node.address(), "/"));
        assert_eq!(answer, (expected.0, expected.1.to_owned()));
        let entries = node.plane.key_value_usage().entries;
        assert_eq!(entries, u64::from(error.is_none()), "{key} {value}");
    }
}

/// HG-31: a namespace that fills its store evicts its own entries and not those of others.
#[test]
fn hg_31_a_namespace_fills_only_its_own_memory() {
    let mut setup = setup();
    setup.options.key_value = MemoryLimits {
        total: 64 << 10,
        namespace: 48 << 10,
    };
    let functions: [(&str, &str, &[u8]); 3] = [
        ("greedy", "f", &fills()),
        ("hungry", "f", &fills()),
        ("modest", "f", &counter(DRAFT2, 1)),
    ];
    let node = serve_all(&setup, &functions);
    assert_eq!(ask(node.address(), "f.modest"), (200, "1".to_owned()));
    for _ in 0..3 {
        assert_eq!(ask(node.address(), "f.greedy").0, 200);
        assert_eq!(ask(node.address(), "f.hungry").0, 200);
    }
    assert_eq!(ask(node.address(), "f.modest"), (200, "2".to_owned()));
    let usage = node.plane.key_value_usage();
    assert!(usage.memory <= 64 << 10, "{usage:?}");
    assert!(usage.evictions.iter().all(|(_, count)| *count > 0));
    let node = {
        setup.options.key_value.namespace = 100;
        setup.start(&counter(DRAFT2, 1))
    };
    let full = "the entry does not fit into the memory that the namespace may use on this node";
    assert_eq!(seen(&get(node.address(), "/")), (500, full.to_owned()));
}

/// Returns the metrics of a node as Prometheus reads them.
fn metrics_page(node: &Node) -> String {
    let identity = NodeIdentity {
        node_name: "n1".into(),
        started_ms: 1,
    };
    Metrics::new(identity)
        .page(&node.plane, Vec::new(), "")
        .text
}

#[test]
fn operations_and_memory_are_exported() {
    let node = serve(&counter(DRAFT2, 1));
    get(node.address(), "/");
    let page = metrics_page(&node);
    for line in [
        r#"selvage_key_value_operations_total{store="memory",outcome="ok"} 2"#,
        r#"selvage_key_value_operations_total{store="memory",outcome="timeout"} 0"#,
        r#"selvage_key_value_evictions_total{reason="namespace"} 0"#,
        "selvage_key_value_memory_bytes 258",
        "selvage_key_value_memory_limit_bytes 67108864",
        "selvage_key_value_entries 1",
    ] {
        assert!(page.lines().any(|one| one == line), "{line}\nin\n{page}");
    }
}

#[test]
fn serve_has_the_stores_that_its_flags_name() {
    let cart = counter(DRAFT2, 1);
    let unnamed = counter_in("", DRAFT1, 1);
    let in_memory = counter_in("in_memory", DRAFT1, 1);
    let flags = ["--key-value", "sessions", "--key-value", "cart"];
    for (guest, flags, expected) in [
        (&cart, &flags[..], (200, "2")),
        (&cart, &flags[..2], (404, "")),
        (&unnamed, &["--key-value", ""], (200, "2")),
        (&unnamed, &["--key-value="], (200, "2")),
        (&unnamed, &flags, (404, "")),
        (&in_memory, &["--key-value=in_memory"], (200, "2")),
    ] {
        let (mut child, address) = start(guest, flags);
        get(address, "/");
        let answer = seen(&get(address, "/"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(answer, (expected.0, expected.1.to_owned()));
    }
}
