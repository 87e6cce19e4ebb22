//! State that survives a restart, and state that does not.

use std::fs;

use node_api::v1::env_var::Kind;
use node_api::v1::{EnvVar, SecretValue};

use crate::node::{Environment, Node, ONE, TWO, contains, files};
use crate::operator::{Operator, definition, function, via_operator};
use crate::registry::Registry;

/// Returns the folder of a node that served "one" for `f` and "two" for `g` and was shut down.
async fn seeded() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (operator, registry) = (Operator::start().await, Registry::start().await);
    let f = definition("r1", &ONE, registry.push("one", &ONE));
    let g = definition("r1", &TWO, registry.push("two", &TWO));
    operator
        .snapshot(
            7,
            vec![function("f", 1, vec![f], 0), function("g", 1, vec![g], 0)],
        )
        .await;
    let environment = Environment {
        operator: Some(&operator),
        registry: Some(&registry),
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("f", 200, "one").await;
    node.answers("g", 200, "two").await;
    node.drain().await;
    folder
}

/// FN-2: a restart without operator and registry serves from the native cache without compiling.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_operator_and_registry_serves_from_disk() {
    let folder = seeded().await;
    let node = Node::start(folder.path(), Environment::default()).await;
    node.answers("f", 200, "one").await;
    node.answers("g", 200, "two").await;
    node.is_ready().await;
    let metrics = node.metrics().await;
    assert!(
        metrics.contains("selvage_cold_start_seconds_count{stage=\"compile\"} 0"),
        "{metrics}"
    );
    assert!(
        metrics.contains("selvage_node_api_connected 0"),
        "{metrics}"
    );
    node.drain().await;
}

/// HS-10, FN-4: modified native code is never mapped; it is rebuilt from the component.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_native_code_is_rebuilt_without_a_registry() {
    let folder = seeded().await;
    for code in files(&folder.path().join("native"), "-") {
        let mut bytes = fs::read(&code).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&code, bytes).unwrap();
    }
    let node = Node::start(folder.path(), Environment::default()).await;
    node.answers("f", 200, "one").await;
    node.answers("g", 200, "two").await;
    let metrics = node.metrics().await;
    assert!(
        metrics.contains("selvage_cold_start_seconds_count{stage=\"compile\"} 2"),
        "{metrics}"
    );
    node.drain().await;
}

/// FN-4: a modified component is fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_components_are_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, registry) = (Operator::start().await, Registry::start().await);
    let f = definition("r1", &ONE, registry.push("one", &ONE));
    operator
        .snapshot(7, vec![function("f", 1, vec![f], 0)])
        .await;
    let environment = || Environment {
        operator: Some(&operator),
        registry: Some(&registry),
    };
    let node = Node::start(folder.path(), environment()).await;
    node.answers("f", 200, "one").await;
    node.drain().await;
    fs::remove_dir_all(folder.path().join("native")).unwrap();
    for blob in files(&folder.path().join("blobs"), "") {
        fs::write(blob, b"something else").unwrap();
    }
    let before = registry.asked().len();
    let node = Node::start(folder.path(), environment()).await;
    node.answers("f", 200, "one").await;
    assert!(registry.asked().len() > before);
    node.drain().await;
}

/// FN-4: a modified table is set aside and counted, and the previous one is used.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_is_set_aside_and_the_previous_one_is_used() {
    let folder = seeded().await;
    // Another run writes the same table again, so that a previous one exists.
    let node = Node::start(folder.path(), Environment::default()).await;
    node.answers("f", 200, "one").await;
    node.drain().await;
    let table = folder.path().join("state/table");
    let mut bytes = fs::read(&table).unwrap();
    fs::write(folder.path().join("state/table.previous"), &bytes).unwrap();
    bytes[100] ^= 1;
    fs::write(&table, bytes).unwrap();
    let node = Node::start(folder.path(), Environment::default()).await;
    node.answers("f", 200, "one").await;
    assert!(
        node.metrics()
            .await
            .contains("selvage_table_damaged_total 1")
    );
    assert_eq!(files(&folder.path().join("state"), "damaged").len(), 1);
    node.drain().await;
}

/// FN-4: a node without a readable table starts, is not ready, and applies the table of the stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_readable_table_waits_for_the_stream() {
    let folder = seeded().await;
    fs::write(folder.path().join("state/table"), b"garbage").unwrap();
    let _ = fs::remove_file(folder.path().join("state/table.previous"));
    let operator = Operator::start().await;
    let node = Node::start(
        folder.path(),
        Environment {
            operator: Some(&operator),
            registry: None,
        },
    )
    .await;
    assert_eq!(node.get("f").await.0, 404);
    assert!(node.supervisor.readiness().is_err());
    let f = definition("r1", &ONE, via_operator());
    operator
        .report("a first report", |report| report.applied_version == 0)
        .await;
    operator
        .snapshot(9, vec![function("f", 1, vec![f], 0)])
        .await;
    node.answers("f", 200, "one").await;
    node.is_ready().await;
    node.drain().await;
}

/// FN-12: after a restart without an operator, only the function with a secret responds with 503.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_never_written_to_disk_and_a_restarted_node_waits_for_them() {
    const SECRET: &[u8] = b"correct-horse-battery-staple";
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    operator.blob(&ONE);
    operator.resume();
    let mut with_secret = definition("r1", &ONE, via_operator());
    with_secret.env.push(EnvVar {
        name: "PASSWORD".into(),
        kind: Some(Kind::Secret(SecretValue {
            reference: "db/password".into(),
            value: Some(SECRET.to_vec()),
        })),
    });
    let plain = definition("r1", &ONE, via_operator());
    operator
        .snapshot(
            7,
            vec![
                function("f", 1, vec![with_secret], 0),
                function("g", 1, vec![plain], 0),
            ],
        )
        .await;
    let environment = || Environment {
        operator: Some(&operator),
        registry: None,
    };
    let node = Node::start(folder.path(), environment()).await;
    node.answers("f", 200, "one").await;
    node.drain().await;
    assert!(
        contains(folder.path(), b"db/password"),
        "the reference is on disk"
    );
    assert!(!contains(folder.path(), SECRET));

    let alone = Node::start(folder.path(), Environment::default()).await;
    alone.answers("g", 200, "one").await;
    let (status, body) = alone.get("f").await;
    assert_eq!((status, body.contains("battery")), (503, false));
    alone.drain().await;

    let node = Node::start(folder.path(), environment()).await;
    node.answers("f", 200, "one").await;
    assert_eq!(
        operator.hellos().last().unwrap().have,
        0,
        "values come with a snapshot"
    );
    node.drain().await;
    assert!(!contains(folder.path(), SECRET));
}

/// FN-3: a new pod runs next to the old one on the same node. Both serve; the new one writes the folder when the old one
/// has stopped.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_a_folder_and_the_second_inherits_it() {
    let folder = seeded().await;
    let (operator, registry) = (Operator::start().await, Registry::start().await);
    let f = definition("r2", &TWO, registry.push("two", &TWO));
    operator
        .snapshot(8, vec![function("f", 2, vec![f], 0)])
        .await;
    let environment = || Environment {
        operator: Some(&operator),
        registry: Some(&registry),
    };
    let old = Node::start(folder.path(), environment()).await;
    old.answers("f", 200, "two").await;
    let new = Node::start(folder.path(), Environment::default()).await;
    new.is_ready().await;
    assert_ne!(new.get("f").await.0, 0);
    old.drain().await;
    new.answers("f", 200, "two").await;
    new.drain().await;
    let again = Node::start(folder.path(), Environment::default()).await;
    again.answers("f", 200, "two").await;
    again.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_the_current_table_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    operator.blob(&ONE);
    operator.resume();
    let plain = definition("r1", &ONE, via_operator());
    operator
        .snapshot(7, vec![function("f", 1, vec![plain], 0)])
        .await;
    let environment = || Environment {
        operator: Some(&operator),
        registry: None,
    };
    let node = Node::start(folder.path(), environment()).await;
    node.answers("f", 200, "one").await;
    node.drain().await;
    let node = Node::start(folder.path(), environment()).await;
    // Unread reports of the first process may still be queued.
    let report = operator
        .report_on("after resuming", |stream, report| {
            stream == 2 && report.ready
        })
        .await;
    assert_eq!(operator.hellos().last().unwrap().have, 7);
    assert_eq!(report.applied_version, 7);
    node.drain().await;
}
