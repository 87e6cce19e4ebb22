//! Certificates of functions over the life of a node: operators send them, and they are in memory only.

use std::path::Path;

use node_api::v1::{Certificate, CertificatePair, FunctionRecord};

use crate::node::{Environment, Node, ONE, contains};
use crate::operator::{Operator, definition, function, via_operator};
use crate::tls_client::{Identity, TlsWire, client_config};

const HOST: &str = "f.test";

/// Returns the record of a function whose route names the Secret `tls`.
fn record(serial: u64, pair: Option<&Identity>) -> FunctionRecord {
    let mut record = function("f", serial, vec![definition("r1", &ONE, via_operator())], 0);
    "tls".clone_into(&mut record.routes[0].certificate);
    record.certificates.push(Certificate {
        secret: "tls".into(),
        pair: pair.map(|identity| CertificatePair {
            chain: identity.certificate.clone().into_bytes(),
            key: identity.key.clone().into_bytes(),
        }),
    });
    record
}

async fn operator() -> Operator {
    let operator = Operator::start().await;
    operator.blob(&ONE);
    operator
}

async fn node(folder: &Path, operator: Option<&Operator>) -> Node {
    let environment = Environment {
        operator,
        registry: None,
    };
    Node::start(folder, environment).await
}

/// Connects in a thread of its own, because the client blocks.
async fn connect(node: &Node, trusted: &Identity) -> Result<TlsWire, String> {
    let address = node.supervisor.tls_address().unwrap();
    let config = client_config(trusted, &[]);
    let connected = tokio::task::spawn_blocking(move || TlsWire::connect(address, HOST, config));
    connected.await.unwrap().map_err(|error| error.to_string())
}

/// Waits until the operator knows that the node has applied a version of the table.
async fn applied(operator: &Operator, version: u64) {
    let has = |report: &node_api::v1::Report| report.applied_version == version;
    operator.report("the table", has).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_by_a_change_of_the_record_alone() {
    let folder = tempfile::tempdir().unwrap();
    let operator = operator().await;
    let (old, new) = (Identity::of(&[HOST]), Identity::of(&[HOST]));
    operator.snapshot(7, vec![record(1, Some(&old))]).await;
    let node = node(folder.path(), Some(&operator)).await;
    node.is_ready().await;
    applied(&operator, 7).await;
    connect(&node, &old).await.unwrap();
    let expiry = "selvage_tls_certificate_expiry_timestamp_seconds{certificate=\"ns/tls\"}";
    assert!(node.metrics().await.contains(expiry));

    operator.delta(8, vec![record(1, Some(&new))]).await;
    applied(&operator, 8).await;
    connect(&node, &new).await.unwrap();
    assert!(connect(&node, &old).await.is_err());
    // the Secret holds no usable pair any longer
    operator.delta(9, vec![record(2, None)]).await;
    applied(&operator, 9).await;
    connect(&node, &new).await.unwrap();

    let mut without = record(3, None);
    without.certificates.clear();
    without.routes[0].certificate.clear();
    operator.delta(10, vec![without]).await;
    applied(&operator, 10).await;
    let refused = connect(&node, &new).await.err().unwrap();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    assert!(!node.metrics().await.contains("certificate=\""));
    node.drain().await;
}

/// A process that starts has no private key. It requests it from an operator, and without one it refuses the handshake.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_key_is_not_on_disk_and_comes_from_an_operator() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::of(&[HOST]);
    let first = operator().await;
    first.snapshot(7, vec![record(1, Some(&identity))]).await;
    let before = node(folder.path(), Some(&first)).await;
    before.is_ready().await;
    connect(&before, &identity).await.unwrap();
    before.drain().await;
    assert!(contains(&folder.path().join("state"), HOST.as_bytes()));
    let lines = identity.key.lines().chain(identity.certificate.lines());
    for line in lines.filter(|line| line.len() > 20 && !line.starts_with('-')) {
        assert!(!contains(folder.path(), line.as_bytes()), "{line}");
    }

    let alone = node(folder.path(), None).await;
    alone.answers("f", 200, "one").await;
    let refused = connect(&alone, &identity).await.err().unwrap();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    alone.drain().await;

    let second = operator().await;
    let after = node(folder.path(), Some(&second)).await;
    after.answers("f", 200, "one").await;
    second.snapshot(8, vec![record(1, Some(&identity))]).await;
    after.is_ready().await;
    assert_eq!(second.hellos()[0].have, 0, "the node requests a snapshot");
    connect(&after, &identity).await.unwrap();
    after.drain().await;
}
