//! Registries that require a token, and the token services that a node may contact.

use crate::node::{Environment, Node, ONE};
use crate::operator::{Operator, definition, function};
use crate::registry::{Answer, Registry, blob_path};

fn challenge(realm: &str) -> Answer {
    let challenge = format!("Bearer realm=\"{realm}\",service=\"reg\"");
    Answer::Status(401, vec![("www-authenticate", challenge)])
}

/// Many public registries require an anonymous token from their own token service.
#[tokio::test(flavor = "multi_thread")]
async fn an_anonymous_token_is_fetched_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, registry) = (Operator::start().await, Registry::start().await);
    let source = registry.push("app", &ONE);
    let realm = format!("http://{}/token", registry.host());
    let token = br#"{"token":"anonymous-token"}"#.to_vec();
    registry.set("/token", Answer::Bytes(token));
    let good = Answer::Bytes(ONE.clone());
    let answers = Answer::Then(Box::new(challenge(&realm)), Box::new(good));
    registry.set(&blob_path("app", &ONE), answers);
    let f = definition("r1", &ONE, source);
    operator
        .snapshot(7, vec![function("f", 1, vec![f], 0)])
        .await;
    let environment = Environment {
        operator: Some(&operator),
        registry: Some(&registry),
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("f", 200, "one").await;
    let asked = registry.asked();
    let (_, headers) = asked
        .iter()
        .rfind(|(path, _)| path.contains("/blobs/"))
        .unwrap();
    assert_eq!(headers["authorization"], "Bearer anonymous-token");
    node.drain().await;
}

/// HS-4: a node never contacts a token service in a private network.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_service_in_a_private_network_is_not_contacted() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, registry) = (Operator::start().await, Registry::start().await);
    let inner = Registry::start().await;
    let source = registry.push("app", &ONE);
    let realm = format!("http://{}/token", inner.host());
    registry.set(&blob_path("app", &ONE), challenge(&realm));
    let f = definition("r1", &ONE, source);
    operator
        .snapshot(7, vec![function("f", 1, vec![f], 0)])
        .await;
    let environment = Environment {
        operator: Some(&operator),
        registry: Some(&registry),
    };
    let node = Node::start(folder.path(), environment).await;
    let report = operator
        .report("the failure", |report| !report.exceptions.is_empty())
        .await;
    assert!(
        report.exceptions[0].message.contains("denied"),
        "{report:?}"
    );
    assert!(inner.asked().is_empty());
    node.drain().await;
}
