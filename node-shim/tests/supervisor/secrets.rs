//! Values of Secrets over the life of a node. Only operators send them, and a missing value is never treated as an empty
//! one.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use node_api::ExceptionReason;
use node_api::v1::env_var::Kind;
use node_api::v1::{Definition, EnvVar, FunctionRecord, Report, SecretValue};

use crate::component::guest;
use crate::node::{Environment, Node, TIMEOUT, contains};
use crate::operator::{Operator, definition, function, via_operator};

/// Component that responds with the value of its first variable, or with 204 without variables.
static SHOW: LazyLock<Vec<u8>> = LazyLock::new(|| {
    guest(
        r#"(import "wasi:cli/environment@0.2.12" "get-environment" (func $env (param i32)))"#,
        "(call $env (i32.const 64))
         (local.set $i (i32.load (i32.const 64)))
         (if (i32.load (i32.const 68))
           (then (call $answer (local.get $out) (i32.const 200) (i32.load offset=8 (local.get $i)) (i32.load offset=12 (local.get $i))))
           (else (call $answer (local.get $out) (i32.const 204) (i32.const 4096) (i32.const 0))))",
    )
});

/// Returns a revision that refers to the key `url` of the Secret `db`.
fn with_secret(revision: &str, value: Option<&str>) -> Definition {
    let mut definition = definition(revision, &SHOW, via_operator());
    definition.env.push(EnvVar {
        name: "DB_URL".into(),
        kind: Some(Kind::Secret(SecretValue {
            reference: "db/url".into(),
            value: value.map(|value| value.as_bytes().to_vec()),
        })),
    });
    definition
}

fn record(serial: u64, value: Option<&str>) -> FunctionRecord {
    function("f", serial, vec![with_secret("r1", value)], 0)
}

async fn operator() -> Operator {
    let operator = Operator::start().await;
    operator.blob(&SHOW);
    operator
}

async fn node(folder: &Path, operator: &Operator) -> Node {
    let environment = Environment {
        operator: Some(operator),
        registry: None,
    };
    Node::start(folder, environment).await
}

fn unavailable(report: &Report) -> Option<&str> {
    let mut exceptions = report.exceptions.iter();
    let found = exceptions.find(|one| one.reason == ExceptionReason::SecretsUnavailable.name());
    found.map(|one| one.message.as_str())
}

/// A pod is replaced: the new process starts next to the old one and takes over the folder, whose table has no values.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_takes_over_the_folder_keeps_its_secret_values() {
    let folder = tempfile::tempdir().unwrap();
    let operator = operator().await;
    operator.snapshot(7, vec![record(1, Some("one"))]).await;
    let old = node(folder.path(), &operator).await;
    old.answers("f", 200, "one").await;
    let new = node(folder.path(), &operator).await;
    new.is_ready().await;
    assert_eq!(new.get("f").await, (200, "one".into()));
    old.drain().await;
    // Only the owner of the folder writes to it, after it has read the table.
    let g = function("g", 1, vec![definition("r1", &SHOW, via_operator())], 0);
    operator.delta(8, vec![g]).await;
    let inherited = tokio::time::timeout(TIMEOUT, async {
        while !contains(&folder.path().join("state"), b"g.test") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    inherited.await.unwrap();
    for _ in 0..50 {
        assert_eq!(new.get("f").await, (200, "one".into()));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    new.drain().await;
}

/// An operator that started after the Secret was changed does not have the value with which the revision was created.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_without_a_value_does_not_remove_it_from_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let operator = operator().await;
    operator.snapshot(7, vec![record(1, Some("one"))]).await;
    let node = node(folder.path(), &operator).await;
    node.answers("f", 200, "one").await;
    let candidate = with_secret("r2", Some("two"));
    let later = function("f", 2, vec![with_secret("r1", None), candidate], 0);
    operator.goodbye().await;
    operator.snapshot(8, vec![later.clone()]).await;
    operator
        .report("the new table", |report| report.applied_version == 8)
        .await;
    assert_eq!(node.get("f").await, (200, "one".into()));
    operator.delta(9, vec![record(3, None)]).await;
    operator
        .report("the change", |report| report.applied_version == 9)
        .await;
    assert_eq!(node.get("f").await, (200, "one".into()));
    node.drain().await;
}

/// A missing value causes 503 and an exception that names the reference; readiness does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_value_causes_503_until_an_operator_sends_it() {
    let folder = tempfile::tempdir().unwrap();
    let operator = operator().await;
    operator.snapshot(7, vec![record(1, None)]).await;
    let node = node(folder.path(), &operator).await;
    let report = operator
        .report("a missing value", |report| unavailable(report).is_some())
        .await;
    let message = unavailable(&report).unwrap();
    assert!(
        message.contains("does not have") && message.contains("db/url"),
        "{message}"
    );
    node.is_ready().await;
    assert_eq!(node.get("f").await.0, 503);
    operator.delta(8, vec![record(1, Some("one"))]).await;
    node.answers("f", 200, "one").await;
    operator
        .report("nothing missing", |report| unavailable(report).is_none())
        .await;
    // An empty text is a valid value.
    operator.delta(9, vec![record(2, Some(""))]).await;
    node.answers("f", 200, "").await;
    node.drain().await;
}

/// A restarted process has no values and is not ready until an operator has sent them.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_is_not_ready_until_it_has_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let first = operator().await;
    let plain = definition("r1", &SHOW, via_operator());
    let g = function("g", 1, vec![plain], 0);
    first
        .snapshot(7, vec![record(1, Some("one")), g.clone()])
        .await;
    let before = node(folder.path(), &first).await;
    before.answers("f", 200, "one").await;
    before.answers("g", 204, "").await;
    before.drain().await;

    let second = operator().await;
    let after = node(folder.path(), &second).await;
    second
        .report("a missing value", |report| unavailable(report).is_some())
        .await;
    after.answers("g", 204, "").await;
    assert!(
        after.supervisor.readiness().is_err(),
        "an operator is connected, so readiness waits for the value"
    );
    assert_eq!(second.hellos()[0].have, 0, "the node requests a snapshot");
    second.snapshot(8, vec![record(1, Some("one")), g]).await;
    after.is_ready().await;
    assert_eq!(after.get("f").await, (200, "one".into()));
    after.drain().await;
}
