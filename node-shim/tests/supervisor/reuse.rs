//! Reuse of instances as the operator sees it.

use node_api::v1::LoadState;

use crate::component::guest;
use crate::node::{Environment, Node};
use crate::operator::{Operator, definition, function, via_operator};

/// Responds with `1` to the first request of an instance and traps at the second one.
fn once() -> Vec<u8> {
    guest(
        r#"(import "wasi:http/types@0.2.12" "[resource-drop]incoming-request" (func $request-drop (param i32)))
        (global $used (mut i32) (i32.const 0))
        (data (i32.const 4096) "1")"#,
        "(call $request-drop (local.get $req))
        (if (global.get $used) (then (unreachable)))
        (global.set $used (i32.const 1))
        (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 1))",
    )
}

/// Clients do not notice, and the operator learns that the field has no effect.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_does_not_stand_reuse_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let wasm = once();
    let operator = Operator::start().await;
    operator.blob(&wasm);
    let mut reusing = definition("r1", &wasm, via_operator());
    reusing.reuse_max_requests = 100;
    reusing.reuse_idle_timeout = 3_600_000;
    let record = function("f", 1, vec![reusing], 0);
    operator.snapshot(7, vec![record]).await;
    let environment = Environment {
        operator: Some(&operator),
        registry: None,
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("f", 200, "1").await;
    let reruns = "selvage_instance_reruns_total 3";
    while !node.metrics().await.lines().any(|line| line == reruns) {
        assert_eq!(node.get("f").await, (200, "1".into()));
    }
    let report = operator
        .report("the exception", |report| !report.exceptions.is_empty())
        .await;
    let exception = &report.exceptions[0];
    assert_eq!(
        (exception.reason.as_str(), exception.revision.as_str()),
        ("ReuseUnsafe", "r1")
    );
    assert!(exception.since > 0, "{exception:?}");
    assert!(
        report.functions_failed == 0 && report.functions_loaded == 1,
        "{report:?}"
    );
    assert!(
        report
            .revisions
            .iter()
            .all(|revision| revision.state() == LoadState::Loaded)
    );
    let page = node.metrics().await;
    assert!(
        page.contains("selvage_exceptions{reason=\"ReuseUnsafe\"} 1"),
        "{page}"
    );
    node.drain().await;
}
