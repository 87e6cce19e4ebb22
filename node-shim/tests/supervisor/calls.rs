//! Calls between functions of one table.

use crate::node::{Environment, Node, ONE};
use crate::operator::{Operator, definition, function, via_operator};
use crate::outbound::Call;

/// The permission is part of the revision, so it is on the disk of the node. A function that is removed is not called.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_calls_another_of_the_table_as_long_as_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let caller = Call::get("g.ns.selvage.internal").guest();
    let operator = Operator::start().await;
    operator.blob(&caller);
    operator.blob(&ONE);
    let mut calls = definition("r1", &caller, via_operator());
    calls.egress = vec!["function://ns/g".into()];
    let f = function("f", 1, vec![calls], 0);
    let g = function("g", 1, vec![definition("r1", &ONE, via_operator())], 0);
    operator.snapshot(7, vec![f, g]).await;
    let environment = || Environment {
        operator: Some(&operator),
        registry: None,
    };
    let node = Node::start(folder.path(), environment()).await;
    node.answers("f", 200, "one").await;
    node.drain().await;

    let alone = Node::start(folder.path(), Environment::default()).await;
    alone.answers("f", 200, "one").await;
    alone.drain().await;

    let node = Node::start(folder.path(), environment()).await;
    node.answers("f", 200, "one").await;
    // above the version of the records
    operator.remove(201, "g").await;
    // the error code of a refused connection
    node.answers("f", 206, "g").await;
    node.drain().await;
}
