//! Connecting to an operator and verifying its identity.

use std::path::Path;
use std::time::Duration;

use node_shim::supervisor::{Options, Supervisor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::node::{Environment, Node, ONE, TIMEOUT, options};
use crate::operator::{Operator, definition, function, via_operator};

async fn start(folder: &Path, operator: &Operator, change: impl FnOnce(&mut Options)) -> Node {
    let environment = Environment {
        operator: Some(operator),
        registry: None,
    };
    let mut options = options(folder, &environment);
    change(&mut options);
    Node {
        supervisor: Supervisor::start(options).await.unwrap(),
    }
}

async fn with_one_function() -> Operator {
    let operator = Operator::start().await;
    operator.blob(&ONE);
    let f = definition("r1", &ONE, via_operator());
    operator
        .snapshot(7, vec![function("f", 1, vec![f], 0)])
        .await;
    operator
}

/// FD-1, reduced: no server listens on the first address.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_operator_is_tried_when_one_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let operator = with_one_function().await;
    let node = start(folder.path(), &operator, |options| {
        options
            .api
            .endpoints
            .insert(0, "https://127.0.0.1:1".into());
    })
    .await;
    node.answers("f", 200, "one").await;
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_with_another_name_or_authority_receives_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, stranger) = (with_one_function().await, Operator::start().await);
    let other_name = start(folder.path(), &operator, |options| {
        options.api.server_name = "another-name".into();
    })
    .await;
    let other = tempfile::tempdir().unwrap();
    let other_authority = start(other.path(), &operator, |options| {
        options.api.ca_file = stranger.ca_file();
    })
    .await;
    let good = tempfile::tempdir().unwrap();
    let node = start(good.path(), &operator, |_| {}).await;
    node.answers("f", 200, "one").await;
    assert_eq!(operator.hellos().len(), 1);
    for node in [other_name, other_authority, node] {
        node.drain().await;
    }
}

/// FD-7: a rotated token is read again, and the stream resumes from the current table.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_token_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let operator = with_one_function().await;
    operator.resume();
    let node = start(folder.path(), &operator, |_| {}).await;
    node.answers("f", 200, "one").await;
    std::fs::write(operator.token_file(), "another-token").unwrap();
    operator.accept_only("another-token");
    operator.goodbye().await;
    let reconnected = tokio::time::timeout(TIMEOUT, async {
        while operator.hellos().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    reconnected.await.unwrap();
    assert_eq!(operator.hellos()[1].have, 7);
    assert_eq!(node.get("f").await, (200, "one".into()));
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_debug_pages_show_the_table_and_no_secret() {
    use node_api::v1::env_var::Kind;
    use node_api::v1::{EnvVar, LoadState, Report, SecretValue};

    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    operator.blob(&ONE);
    let mut f = definition("r1", &ONE, via_operator());
    f.env.push(EnvVar {
        name: "PASSWORD".into(),
        kind: Some(Kind::Secret(SecretValue {
            reference: "db/password".into(),
            value: Some(b"swordfish".to_vec()),
        })),
    });
    operator
        .snapshot(7, vec![function("f", 1, vec![f], 0)])
        .await;
    let socket = folder.path().join("debug.sock");
    let node = start(&folder.path().join("state"), &operator, |options| {
        options.debug_socket = Some(socket.clone());
    })
    .await;
    node.answers("f", 200, "one").await;
    // The function is served slightly before the page shows its state.
    let loaded = |report: &Report| {
        let mut states = report.revisions.iter();
        states.any(|one| one.state() == LoadState::Loaded)
    };
    operator.report("loaded", loaded).await;
    let mut pages = String::new();
    for page in ["table", "functions", "connections", "cache", "config"] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        let request = format!("GET /debug/{page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{page}: {answer}");
        pages += &answer;
    }
    assert!(pages.contains("\"stableState\":\"ready\""), "{pages}");
    assert!(pages.contains("LOAD_STATE_LOADED"), "{pages}");
    assert!(!pages.contains("swordfish"));
    assert!(!node.metrics().await.contains("swordfish"));
    node.drain().await;
}
