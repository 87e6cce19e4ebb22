//! Registries that want a token, and who may give it.

use crate::node::{Environment, Node, ONE};
use crate::operator::{Operator, definition, function};
use crate::registry::{Answer, Registry, blob_path};

fn challenge(realm: &str) -> Answer {
    let challenge = format!("Bearer realm=\"{realm}\",service=\"reg\"");
    Answer::Status(401, vec![("www-authenticate", challenge)])
}

/// What many public registries want: an anonymous token from their own service.
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

/// HS-4: a token service inside the network is never asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_service_inside_the_network_is_not_asked() {
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
