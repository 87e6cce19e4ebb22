//! Calls between functions of one table.

use node_api::v1::Caller;

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

/// The record of the called function decides about each call. It is on the disk of the node, and a record without the grant
/// replaces it at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_of_another_namespace_is_part_of_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let caller = Call::get("prices.catalog.selvage.internal").guest();
    let operator = Operator::start().await;
    operator.blob(&caller);
    operator.blob(&ONE);
    let mut calls = definition("r1", &caller, via_operator());
    calls.egress = vec!["function://catalog/prices".into()];
    let f = function("f", 1, vec![calls], 0);
    let prices = |serial: u64, callers: Vec<Caller>| {
        let definitions = vec![definition("r1", &ONE, via_operator())];
        let mut record = function("prices", serial, definitions, 0);
        record.key.as_mut().unwrap().namespace = "catalog".into();
        record.callers = callers;
        record
    };
    let granted = Caller {
        namespace: "ns".into(),
        name: "f".into(),
    };
    operator
        .snapshot(7, vec![f, prices(1, vec![granted])])
        .await;
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
    operator.delta(202, vec![prices(2, Vec::new())]).await;
    // the error code of a denied request
    node.answers("f", 215, "p").await;
    node.drain().await;
}
