//! Images that the registry no longer has, for example after its garbage collection.

use std::fs;

use crate::node::{Environment, Node, ONE};
use crate::operator::{Operator, definition, function};
use crate::registry::Registry;

/// FD-8: nodes that have the component serve it, also after a restart and after the loss of its native code. A node with
/// an empty disk answers 503, reports the reason, and serves as soon as the registry has the image again.
#[tokio::test(flavor = "multi_thread")]
async fn fd_8_a_removed_image_stops_only_nodes_that_do_not_have_it() {
    let (kept, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (operator, registry) = (Operator::start().await, Registry::start().await);
    let f = definition("r1", &ONE, registry.push("app", &ONE));
    operator
        .snapshot(7, vec![function("f", 1, vec![f], 0)])
        .await;
    let environment = || Environment {
        operator: Some(&operator),
        registry: Some(&registry),
    };
    let node = Node::start(kept.path(), environment()).await;
    node.answers("f", 200, "one").await;
    registry.remove("app");
    assert_eq!(node.get("f").await, (200, "one".into()));
    node.drain().await;

    let asked = registry.asked().len();
    fs::remove_dir_all(kept.path().join("native")).unwrap();
    let node = Node::start(kept.path(), environment()).await;
    node.answers("f", 200, "one").await;
    assert_eq!(registry.asked().len(), asked, "the component is on disk");
    node.drain().await;

    let node = Node::start(empty.path(), environment()).await;
    let report = operator
        .report("the missing image", |report| !report.exceptions.is_empty())
        .await;
    let exception = &report.exceptions[0];
    assert_eq!(exception.reason, "PullFailed");
    assert_eq!(exception.revision, "r1");
    let message = "has no app with this tag or digest (404)";
    assert!(exception.message.contains(message), "{exception:?}");
    assert_eq!(node.get("f").await.0, 503);

    registry.push("app", &ONE);
    node.answers("f", 200, "one").await;
    operator
        .report("the load", |report| report.exceptions.is_empty())
        .await;
    node.drain().await;
}
