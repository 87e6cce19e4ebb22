//! Certificates from Secrets of the namespace: they go to nodes with the routes, and belong to no revision.

use node_api::v1;
use rcgen::{CertificateParams, KeyPair};

use super::story::Story;
use super::*;
use crate::watch::{GRANT_RETRY, SecretState};

const HOST: &str = "f.example";

/// A certificate for a host with its key, valid during the year that begins with `year`, or for long.
fn pair(host: &str, year: Option<i32>) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    if let Some(year) = year {
        params.not_before = rcgen::date_time_ymd(year, 1, 1);
        params.not_after = rcgen::date_time_ymd(year + 1, 1, 1);
    }
    [params.self_signed(&key).unwrap().pem(), key.serialize_pem()]
}

fn path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/tls")
}

/// Writes the Secret `tls` of a namespace, as cert-manager does.
fn write(world: &World, namespace: &str, data: &[(&str, &str)]) {
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let data = data
        .iter()
        .map(|(key, text)| ((*key).to_owned(), json!(base64(text))));
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": "tls", "namespace": namespace, "uid": "uid-tls" },
        "data": data.collect::<serde_json::Map<_, _>>(),
    });
    world.fake.put(&path(namespace), secret);
}

/// Waits until the present operator has read the Secret `tls` of `shop` in this state, and follows the change.
async fn read(world: &mut World, is_it: impl Fn(&SecretState) -> bool) {
    let key = ObjectKey::new("shop", "tls");
    let secrets = world.reconciler.secrets.clone();
    while !is_it(&secrets.get(&key)) {
        world.secrets.recv().await.unwrap();
    }
    world.reconciler.projector.refresh_all();
}

/// Writes a pair into the Secret of the function, and waits until it was read.
async fn put(world: &mut World, [chain, key]: &[String; 2]) {
    write(world, "shop", &[("tls.crt", chain), ("tls.key", key)]);
    read(world, |state| {
        let is = |name, text: &String| state.value(name) == Some(text.as_bytes());
        is("tls.crt", chain) && is("tls.key", key)
    })
    .await;
}

fn spec() -> Value {
    json!({
        "routes": [{ "hosts": [HOST], "tls": { "secretRef": { "name": "tls" } } }],
        "rollout": { "canary": { "steps": [{ "weight": "5%" }] } },
    })
}

/// A function with a certificate, at rest.
async fn served(pair: &[String; 2]) -> Story {
    let mut story = Story::begin(None);
    put(&mut story.world, pair).await;
    story.world.apply("f", "2026-01-01T00:00:00Z", &spec());
    story.until(|status| status["phase"] == "Ready").await;
    story
}

fn record(world: &World) -> v1::FunctionRecord {
    let key = FunctionKey::new("shop", "f");
    world.tables.newest_record(&key).unwrap()
}

/// The pair that nodes receive.
fn sent(world: &World) -> Option<[String; 2]> {
    let [certificate] = &record(world).certificates[..] else {
        panic!("one certificate");
    };
    assert_eq!(certificate.secret, "tls");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let pair = certificate.pair.as_ref()?;
    Some([text(&pair.chain), text(&pair.key)])
}

fn condition(story: &Story, kind: &str) -> (String, String, String) {
    story.world.condition("f", kind)
}

#[tokio::test]
async fn a_renewed_certificate_reaches_nodes_without_a_revision_a_rollout_or_a_write() {
    let [old, new] = [(); 2].map(|()| pair(HOST, None));
    let mut story = served(&old).await;
    assert_eq!(sent(&story.world), Some(old));
    let before = record(&story.world);
    assert_eq!(before.routes[0].certificate, "tls");
    assert_eq!(condition(&story, "Ready").0, "True");
    let object = story.object();
    story.world.writes();
    put(&mut story.world, &new).await;
    story.until(|status| status["phase"] == "Ready").await;
    assert_eq!(sent(&story.world), Some(new));
    let after = record(&story.world);
    assert_eq!(
        (&before.definitions, &before.split, before.accepted),
        (&after.definitions, &after.split, after.accepted)
    );
    assert_eq!(story.object(), object);
    assert_eq!(story.world.writes(), Vec::<String>::new());
    assert_eq!(story.world.fake.under(REVISIONS).len(), 1);
}

/// The content of the Secret stays out of everything that users and logs see.
#[tokio::test]
async fn a_private_key_is_in_no_object_and_in_no_text() {
    let pair = pair(HOST, None);
    let story = served(&pair).await;
    let secret: Vec<&str> = pair[1].lines().filter(|line| line.len() > 20).collect();
    let stored = story.world.fake.under("/apis").into_iter();
    let mut all: String = stored.map(|object| object.to_string()).collect();
    all.push_str(&format!("{:?}", record(&story.world)));
    all.push_str(&format!("{:?}", story.world.reconciler.projector));
    let certificates = &story.world.reconciler.projector.certificates;
    let key = ObjectKey::new("shop", "tls");
    let states = (
        certificates.get(&key),
        story.world.reconciler.secrets.get(&key),
    );
    all.push_str(&format!("{certificates:?} {states:?}"));
    for line in secret {
        assert!(!all.contains(line), "{line}");
    }
}

#[tokio::test]
async fn an_unusable_certificate_is_a_condition_and_nodes_keep_the_one_they_have() {
    let good = pair(HOST, None);
    let mut story = served(&good).await;
    let other_key = [good[0].clone(), pair(HOST, None)[1].clone()];
    for (broken, why) in [
        (
            other_key,
            "the private key in tls.key does not belong to the certificate in tls.crt",
        ),
        (
            [String::new(), good[1].clone()],
            "tls.crt contains no certificate in PEM format",
        ),
        (
            pair("other.example", None),
            "it is valid for other.example, and for no host of the route",
        ),
    ] {
        put(&mut story.world, &broken).await;
        story
            .until(|status| status["message"].as_str().unwrap().contains(why))
            .await;
        assert_eq!(sent(&story.world).as_ref(), Some(&good), "{why}");
        let (status, reason, message) = condition(&story, "Distributed");
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", "CertificateUnusable")
        );
        let start = format!(
            "The certificate in the Secret \"tls\" (spec.routes[0].tls) cannot be used: {why}."
        );
        assert!(message.starts_with(&start), "{message}");
        assert_eq!(condition(&story, "Accepted").0, "True");
        story.world.is_stalled("f", "CertificateUnusable");
        // once, although the next certificate is unusable for another reason
        story.world.events_written().await;
        let events = story.world.events("CertificateUnusable");
        assert_eq!(events.len(), 1, "{events:?}");
        let note = events[0]["note"].as_str().unwrap();
        assert!(
            note.contains("does not belong to the certificate"),
            "{note}"
        );
    }
    put(&mut story.world, &good).await;
    story.turn().await;
    assert_eq!(condition(&story, "Ready").0, "True");
    put(&mut story.world, &[String::new(), good[1].clone()]).await;
    story.turn().await;
    story.world.events_written().await;
    assert_eq!(story.world.events("CertificateUnusable").len(), 2);
    put(&mut story.world, &good).await;
    story.turn().await;
    assert_eq!(condition(&story, "Distributed").1, "Distributed");
    assert_eq!(story.world.fake.under(REVISIONS).len(), 1);
}

/// A certificate that has expired is sent: nodes replace none by it that is valid, and have nothing better without one.
#[tokio::test]
async fn an_expired_certificate_is_reported_and_a_valid_one_is_looked_at_again() {
    let mut story = served(&pair(HOST, None)).await;
    let outcome = story.world.reconcile("f").await;
    assert!(outcome.wake.is_some(), "the validity ends without an event");
    put(&mut story.world, &pair(HOST, Some(2020))).await;
    story
        .until(|status| {
            status["message"]
                .as_str()
                .unwrap()
                .contains("it expired at 2021-01-01")
        })
        .await;
    assert_eq!(condition(&story, "Distributed").1, "CertificateUnusable");
}

/// A broken certificate does not keep a new version of the code from its rollout.
#[tokio::test]
async fn a_rollout_goes_on_with_an_unusable_certificate() {
    let good = pair(HOST, None);
    let mut story = served(&good).await;
    put(&mut story.world, &[good[0].clone(), String::new()]).await;
    story.edit(2, "2");
    story
        .until(|status| status["rollout"]["state"] == "Stepping")
        .await;
    assert_eq!(condition(&story, "Distributed").1, "CertificateUnusable");
    assert_eq!(condition(&story, "Progressing").0, "True");
    story.act("promote-full");
    story
        .until(|status| status["rollout"]["state"] == "Baking")
        .await;
    assert_eq!(sent(&story.world), Some(good));
}

#[tokio::test]
async fn a_secret_without_both_keys_is_a_missing_reference() {
    let mut story = served(&pair(HOST, None)).await;
    for named in ["tls.key", "tls.crt"] {
        if named == "tls.key" {
            write(&story.world, "shop", &[("tls.crt", "")]);
            read(&mut story.world, |state| state.value("tls.key").is_none()).await;
        } else {
            story.world.fake.remove(&path("shop"));
            read(&mut story.world, |state| {
                matches!(state, SecretState::Missing)
            })
            .await;
        }
        story.turn().await;
        let (status, reason, message) = condition(&story, "Accepted");
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", "MissingReference")
        );
        let expected = format!(
            "spec.routes[0].tls.secretRef: the Secret \"tls\" or its key {named:?} does not exist in this namespace"
        );
        assert_eq!(message, expected);
        assert!(sent(&story.world).is_some(), "nodes keep what they have");
        story.world.is_reconciling("f", "MissingReference");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_granted_is_answered_with_the_line_that_grants_it() {
    let mut world = World::new();
    world.fake.fail(Box::new(|_, path| {
        path.ends_with("/secrets").then_some(403)
    }));
    world.apply("f", "2026-01-01T00:00:00Z", &spec());
    world.reconcile("f").await;
    assert_eq!(
        world.secrets.recv().await.unwrap(),
        ObjectKey::new("shop", "tls")
    );
    let outcome = world.reconcile("f").await;
    let (_, reason, message) = world.condition("f", "Accepted");
    assert_eq!(reason, "SecretsNotGranted");
    assert!(
        message.contains("kubectl create rolebinding selvage-secrets --namespace shop"),
        "{message}"
    );
    let wait = outcome.wake.unwrap() - tokio::time::Instant::now();
    assert!(wait <= GRANT_RETRY, "a grant cannot be watched");
}

/// A Secret of the same name in another namespace is another one.
#[tokio::test]
async fn only_the_secret_of_the_own_namespace_counts() {
    let mut story = Story::begin(None);
    let [chain, key] = pair(HOST, None);
    write(
        &story.world,
        "blog",
        &[("tls.crt", &chain), ("tls.key", &key)],
    );
    story.world.apply("f", "2026-01-01T00:00:00Z", &spec());
    read(&mut story.world, |state| {
        matches!(state, SecretState::Missing)
    })
    .await;
    story.turn().await;
    assert_eq!(condition(&story, "Accepted").1, "MissingReference");
    let own = pair(HOST, None);
    put(&mut story.world, &own).await;
    story.until(|status| status["phase"] == "Ready").await;
    assert_eq!(sent(&story.world), Some(own));
}

/// A leader that starts and cannot read the Secret knows nothing about it: the status stays, and nodes keep what they have.
#[tokio::test]
async fn a_start_changes_neither_the_condition_nor_the_certificates_of_nodes() {
    let good = pair(HOST, None);
    let mut story = served(&good).await;
    put(&mut story.world, &[good[0].clone(), String::new()]).await;
    story.turn().await;
    let before = condition(&story, "Distributed");
    assert_eq!(before.1, "CertificateUnusable");
    story.world.fake.fail(Box::new(|_, path| {
        path.ends_with("/secrets").then_some(500)
    }));
    story.succeed();
    story.turn().await;
    assert_eq!(condition(&story, "Distributed"), before);
    assert!(!story.world.reconciler.projector.secrets_known());
    assert_eq!(sent(&story.world), None, "unknown, so nodes keep theirs");
    story.world.fake.fail(Box::new(|_, _| None));
    put(&mut story.world, &good).await;
    assert!(story.world.reconciler.projector.secrets_known());
    assert_eq!(sent(&story.world), Some(good));
}

#[tokio::test]
async fn a_function_is_found_by_the_certificates_that_it_names_and_that_are_served() {
    use crate::watch::{Indexed, Term};

    let story = served(&pair(HOST, None)).await;
    let mut object: crds::EdgeFunction = serde_json::from_value(story.object()).unwrap();
    object.spec.routes[0].tls.as_mut().unwrap().secret_ref.name = "next".into();
    let terms = object.terms();
    for name in ["tls", "next"] {
        let term = Term::Secret(ObjectKey::new("shop", name));
        assert!(terms.contains(&term), "{name}");
    }
}

/// A suspended function answers 503 whatever its certificate is, so only `Distributed` has the problem until the suspension ends.
#[tokio::test]
async fn an_unusable_certificate_does_not_stall_a_suspended_function() {
    let good = pair(HOST, None);
    let mut story = served(&good).await;
    for (generation, suspend) in [(2, true), (3, false)] {
        let mut object = story.object();
        object["metadata"]["generation"] = json!(generation);
        object["spec"]["suspend"] = json!(suspend);
        story.put(object);
        put(&mut story.world, &[String::new(), good[1].clone()]).await;
        story
            .until(|status| status["observedGeneration"] == generation)
            .await;
        assert_eq!(condition(&story, "Distributed").1, "CertificateUnusable");
        if suspend {
            let (status, reason, message) = condition(&story, "Ready");
            assert_eq!((status.as_str(), reason.as_str()), ("True", "Suspended"));
            assert!(message.ends_with("every request gets 503."), "{message}");
            assert_eq!(story.object()["status"]["message"], message);
        } else {
            story.world.is_stalled("f", "CertificateUnusable");
        }
    }
}
