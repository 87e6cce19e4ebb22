//! Labels of stores in Redis.

use std::time::Duration;

use node_shim::counters::CounterTable;
use node_shim::key_value::StoreSpec;
use node_shim_core::table::FunctionKey;
use redis::TypedCommands;

use super::super::guests::reads;
use super::super::{ask, host};
use super::server::Server;
use super::{cached, ok};
use crate::support::key_value::{DRAFT2, counter_in};
use crate::support::node::{Setup, memory, served};

/// Labels have the characters that the labels of copies could have.
#[test]
fn no_label_opens_the_copies_of_another_store() {
    let server = Server::start(&[]);
    server.client().set("shop:k", 41).unwrap();
    let setup = cached(&server, Duration::from_secs(3_600));
    let counters = CounterTable::new();
    let node = setup.start_empty(counters.clone());
    let function = |(name, wasm, stores): (&str, Vec<u8>, Vec<StoreSpec>)| {
        let setup = Setup {
            stores,
            ..setup.clone()
        };
        let key = FunctionKey::new("ns", name);
        let revision = setup.revision_of(key, "r1", &wasm, &counters);
        served(&revision, vec![host(&format!("{name}.example"))])
    };
    let others = ["cart1", "cart/1", "cart:1", "cart.1", "cart-1", "cart_1"];
    let opens = |(index, label): (usize, &&str)| {
        let wasm = counter_in(label, DRAFT2, 1);
        function((&format!("f{index}"), wasm, vec![memory(label)]))
    };
    let mut functions: Vec<_> = others.iter().enumerate().map(opens).collect();
    functions.push(function(("reads", reads(), setup.stores.clone())));
    node.publish(functions);
    assert_eq!(ask(node.address(), "reads"), ok("41"));
    for (index, label) in others.iter().enumerate() {
        assert_eq!(
            ask(node.address(), &format!("f{index}")),
            ok("1"),
            "{label}"
        );
    }
    server.client().set("shop:k", 42).unwrap();
    assert_eq!(ask(node.address(), "reads"), ok("41"), "there is a copy");
}
