//! Tables from an operator, and the responses that clients receive.

use node_api::v1::{LoadState, PathMatch};

use crate::node::{Environment, Node, ONE, TWO};
use crate::operator::{Operator, definition, digest, function, share_of, via_operator};
use crate::registry::Registry;

fn loaded(report: &node_api::v1::Report, revision: &str) -> bool {
    report
        .revisions
        .iter()
        .any(|state| state.revision == revision && state.state() == LoadState::Loaded)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_function_is_pulled_compiled_served_and_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, registry) = (Operator::start().await, Registry::start().await);
    let source = registry.push("app", &ONE);
    operator
        .snapshot(
            7,
            vec![function("f", 1, vec![definition("r1", &ONE, source)], 0)],
        )
        .await;
    let environment = Environment {
        operator: Some(&operator),
        registry: Some(&registry),
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("f", 200, "one").await;
    assert_eq!(node.get("unknown").await.0, 404);
    let report = operator
        .report("all loaded", |report| loaded(report, "r1") && report.ready)
        .await;
    assert_eq!((report.applied_version, report.functions_loaded), (7, 1));
    assert!(report.exceptions.is_empty(), "{report:?}");
    let hello = operator.hellos().remove(0);
    assert_eq!((hello.node.as_str(), hello.have), ("node-1", 0));
    node.is_ready().await;
    let metrics = node.metrics().await;
    assert!(metrics.contains("selvage_table_version 7"), "{metrics}");
    assert!(
        metrics.contains("selvage_node_api_connected 1"),
        "{metrics}"
    );
    for (_, headers) in registry.asked() {
        assert!(
            headers.get("authorization").is_none(),
            "a node has no credential"
        );
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_follow_the_newest_token_and_a_hint_only_lowers_them() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    operator.blob(&ONE);
    operator.blob(&TWO);
    let definitions = vec![
        definition("r1", &ONE, via_operator()),
        definition("r2", &TWO, via_operator()),
    ];
    let record = function("f", 5, definitions, 0);
    operator.snapshot(7, vec![record.clone()]).await;
    let environment = Environment {
        operator: Some(&operator),
        registry: None,
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("f", 200, "one").await;
    operator
        .report("candidate loaded", |report| loaded(report, "r2"))
        .await;

    operator.split(8, share_of(&record, 6, 10_000)).await;
    node.answers("f", 200, "two").await;
    operator.split(9, share_of(&record, 4, 0)).await;
    operator
        .report("the older split received", |report| {
            report.applied_version == 9
        })
        .await;
    assert_eq!(
        node.get("f").await.1,
        "two",
        "an older decision changes nothing"
    );

    operator.hint(share_of(&record, 7, 0)).await;
    node.answers("f", 200, "one").await;
    operator.hint(share_of(&record, 8, 10_000)).await;
    operator.split(10, share_of(&record, 6, 10_000)).await;
    operator
        .report("both messages received", |report| {
            report.applied_version == 10
        })
        .await;
    assert_eq!(
        node.get("f").await.1,
        "one",
        "a hint does not raise the weight, and its token is not accepted again"
    );
    operator.split(11, share_of(&record, 9, 10_000)).await;
    node.answers("f", 200, "two").await;
    let report = operator
        .report("counters of a rollout", |report| {
            let frame = report.counters.as_ref();
            frame.is_some_and(|frame| frame.revisions.iter().any(|one| one.revision == "r2"))
        })
        .await;
    let frame = report.counters.unwrap();
    assert_eq!(frame.boot_id, 1);
    node.drain().await;
}

/// FD-5: an invalid record leaves its function unchanged, and the other records are applied.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_record_is_reported_and_affects_only_its_function() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    operator.blob(&ONE);
    operator.blob(&TWO);
    let one = || vec![definition("r1", &ONE, via_operator())];
    operator
        .snapshot(
            7,
            vec![function("f", 1, one(), 0), function("g", 1, one(), 0)],
        )
        .await;
    let environment = Environment {
        operator: Some(&operator),
        registry: None,
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("f", 200, "one").await;
    let mut invalid = function("f", 2, one(), 0);
    invalid.routes[0].paths = vec![PathMatch {
        r#type: 99,
        value: "/".into(),
    }];
    let two = vec![definition("r2", &TWO, via_operator())];
    operator
        .delta(8, vec![invalid, function("g", 2, two, 0)])
        .await;
    node.answers("g", 200, "two").await;
    assert_eq!(node.get("f").await, (200, "one".into()));
    let report = operator
        .report("the invalid record", |report| {
            report
                .exceptions
                .iter()
                .any(|exception| exception.reason == "RecordRefused")
        })
        .await;
    assert_eq!(report.applied_version, 8);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_many_functions_use_is_fetched_once() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, registry) = (Operator::start().await, Registry::start().await);
    let source = registry.push("app", &ONE);
    let functions = (0..20)
        .map(|n| {
            function(
                &format!("f{n}"),
                1,
                vec![definition("r1", &ONE, source.clone())],
                0,
            )
        })
        .collect();
    operator.snapshot(7, functions).await;
    let environment = Environment {
        operator: Some(&operator),
        registry: Some(&registry),
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("f0", 200, "one").await;
    node.answers("f19", 200, "one").await;
    let blobs = registry
        .asked()
        .iter()
        .filter(|(path, _)| path.contains(&digest(&ONE)))
        .count();
    assert_eq!(blobs, 1);
    node.drain().await;
}
