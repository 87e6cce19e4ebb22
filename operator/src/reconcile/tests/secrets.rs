//! A Secret is changed, its rollout does not replace stable, and the operator starts again: it no longer knows the
//! value that stable was made with.

use node_api::v1::env_var::Kind;

use super::story::Story;
use super::*;
use crate::watch::SecretState;

/// Writes the Secret `db` with this `url`, as its owner does.
fn write_secret(story: &Story, value: &str) {
    let data = base64::engine::general_purpose::STANDARD.encode(value);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "db", "namespace": "shop", "uid": "uid-db" },
        "data": { "url": data },
    });
    let path = "/api/v1/namespaces/shop/secrets/db";
    story.world.fake.put(path, secret);
}

/// Waits until the present operator has read the Secret.
async fn read_secret(story: &mut Story) {
    let key = ObjectKey::new("shop", "db");
    let secrets = story.world.reconciler.secrets.clone();
    while !matches!(secrets.get(&key), SecretState::Present(_)) {
        story.world.secrets.recv().await.unwrap();
    }
}

/// Both operators start again, with the Secret as it is now.
async fn restart(story: &mut Story) {
    story.succeed();
    read_secret(story).await;
}

fn name(story: &Story, role: &str) -> String {
    let status = &story.object()["status"];
    status[role]["revision"].as_str().unwrap().to_owned()
}

/// The value that goes to nodes with a revision; the outer `None` when the record has no such revision.
fn sent(story: &Story, revision: &str) -> Option<Option<String>> {
    let key = FunctionKey::new("shop", "f");
    let record = story.world.tables.newest_record(&key).unwrap();
    let mut definitions = record.definitions.iter();
    let found = definitions.find(|definition| definition.revision == revision)?;
    match found.env[0].kind.clone().unwrap() {
        Kind::Secret(secret) => {
            let text = |value: &Vec<u8>| String::from_utf8(value.clone()).unwrap();
            Some(secret.value.as_ref().map(text))
        }
        Kind::Value(value) => panic!("a plain value: {value}"),
    }
}

fn distributed(story: &Story) -> (String, String, String) {
    story.world.condition("f", "Distributed")
}

/// Stable was made with `one`, the Secret holds `two`, its rollout is at 5 %, and the operator has started since.
async fn changed_and_restarted() -> (Story, String) {
    let mut story = Story::begin(None);
    write_secret(&story, "one");
    read_secret(&mut story).await;
    let reference = json!({ "secretKeyRef": { "name": "db", "key": "url" } });
    let spec = json!({
        "env": [{ "name": "DB_URL", "valueFrom": reference }],
        "rollout": { "canary": { "steps": [{ "weight": "5%" }] } },
    });
    story.world.apply("f", "2026-01-01T00:00:00Z", &spec);
    story.until(|status| status["phase"] == "Ready").await;
    let stable = name(&story, "stable");
    assert_eq!(sent(&story, &stable), Some(Some("one".into())));
    write_secret(&story, "two");
    restart(&mut story).await;
    story
        .until(|status| status["rollout"]["state"] == "Stepping")
        .await;
    (story, stable)
}

#[tokio::test]
async fn a_value_that_is_not_known_is_sent_as_unknown_and_stands_in_a_condition() {
    let (mut story, stable) = changed_and_restarted().await;
    let candidate = name(&story, "candidate");
    assert_eq!(sent(&story, &stable), Some(None), "no empty text");
    assert_eq!(sent(&story, &candidate), Some(Some("two".into())));
    let (status, reason, message) = distributed(&story);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("True", "SecretsInMemoryOnly")
    );
    for part in [
        &format!("key \"url\" in Secret \"db\" that revision {stable} was made with"),
        "the Secret holds another value now",
        &format!("It ends when {candidate} becomes stable"),
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(
        message.ends_with("kubectl -n shop edit secret db"),
        "{message}"
    );

    story.act("abort");
    story.until(|status| status["phase"] == "RolledBack").await;
    restart(&mut story).await;
    story.until(|status| status["phase"] == "RolledBack").await;
    assert_eq!(sent(&story, &stable), Some(None));
    let (status, reason, message) = distributed(&story);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("True", "SecretsInMemoryOnly")
    );
    let retry = format!("kubectl -n shop annotate ef f selvage.dev/retry={candidate} --overwrite");
    assert!(message.ends_with(&retry), "{message}");

    // the former value comes back, and stable is what the spec asks for again
    write_secret(&story, "one");
    restart(&mut story).await;
    story.until(|status| status["phase"] == "Ready").await;
    assert_eq!(sent(&story, &stable), Some(Some("one".into())));
    assert_eq!(distributed(&story).1, "Distributed");
}

#[tokio::test]
async fn nodes_that_lack_a_value_that_no_operator_knows_stand_in_the_condition() {
    let (mut story, stable) = changed_and_restarted().await;
    story.act("abort");
    story.until(|status| status["phase"] == "RolledBack").await;
    let token = story.world.status("f").rollout.unwrap().version.unwrap();
    let function = Some((&FunctionKey::new("shop", "f")).into());
    let report = node_api::v1::Report {
        revisions: vec![node_api::v1::RevisionState {
            function: function.clone(),
            revision: stable.clone(),
            state: node_api::v1::LoadState::Failed.into(),
            permanent: false,
            applied: Some(node_api::v1::FencingToken {
                epoch: token.epoch,
                serial: token.serial,
            }),
        }],
        revisions_complete: true,
        exceptions: vec![node_api::v1::NodeException {
            function,
            revision: stable.clone(),
            reason: node_api::ExceptionReason::SecretsUnavailable.name().into(),
            message: "why".into(),
            since: 1,
        }],
        ..node_api::v1::Report::default()
    };
    story.world.reconciler.fleet.report_from("n-2", report);
    let key = ObjectKey::new("shop", "f");
    let reconciled = reconcile(&story.world.reconciler, &key, story.epoch).await;
    reconciled.unwrap();
    let (status, reason, message) = distributed(&story);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "SecretsUnavailable")
    );
    let lacking = "1 of 2 nodes lack the value and answer 503 (secrets_unavailable), first n-2.";
    for part in [lacking, stable.as_str(), "selvage.dev/retry="] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let short = story.world.status("f").message.unwrap();
    assert!(short.contains(lacking), "{short}");
    story.world.events_written().await;
    assert_eq!(story.world.events("SecretsUnavailable").len(), 1);
}

/// The namespace of Selvage was deleted, and with it the key of the hashes: the same content has another hash. Stable gets it all the
/// same, because all of its requests would fail otherwise; a revision that was made with the new key needs the content it had.
#[tokio::test]
async fn stable_keeps_its_values_when_the_key_of_the_hashes_was_lost() {
    let mut story = Story::begin(None);
    write_secret(&story, "one");
    read_secret(&mut story).await;
    let reference = json!({ "secretKeyRef": { "name": "db", "key": "url" } });
    let spec = json!({
        "env": [{ "name": "DB_URL", "valueFrom": reference }],
        "rollout": { "canary": { "steps": [{ "weight": "5%" }] } },
    });
    story.world.apply("f", "2026-01-01T00:00:00Z", &spec);
    story.until(|status| status["phase"] == "Ready").await;
    let stable = name(&story, "stable");

    for (since, sent_to_stable) in [
        ("2026-01-01T00:00:01Z", Some("one")),
        ("2026-01-01T00:00:00Z", None),
    ] {
        story.succeed();
        let reconciler = &story.world.reconciler;
        reconciler
            .hash_key
            .store(Some(Arc::new(Zeroizing::new(vec![8; 32]))));
        let since: Timestamp = since.parse().unwrap();
        reconciler
            .projector
            .hash_key_since
            .store(Some(Arc::new(since)));
        read_secret(&mut story).await;
        story
            .until(|status| status["rollout"]["state"] == "Stepping")
            .await;
        assert_ne!(name(&story, "candidate"), stable);
        assert_eq!(
            sent(&story, &stable),
            Some(sent_to_stable.map(str::to_owned)),
            "{since}"
        );
    }
}

/// While one operator lives it goes on handing out what it read, and lets go of what no revision refers to.
#[tokio::test]
async fn a_value_that_was_read_is_kept_as_long_as_a_revision_refers_to_it() {
    let (mut story, stable) = changed_and_restarted().await;
    write_secret(&story, "one");
    restart(&mut story).await;
    story.until(|status| status["phase"] == "Ready").await;
    let reconciler = Arc::clone(&story.world.reconciler);
    let key = ObjectKey::new("shop", "f");
    let secret = ObjectKey::new("shop", "db");
    let refresh = || {
        reconciler.projector.forget_values();
        reconciler.projector.refresh(&key);
        sent(&story, &stable)
    };
    reconciler.secrets.put(&secret, SecretState::Missing);
    assert_eq!(refresh(), Some(Some("one".into())));
    let path = ObjectKey::new("shop", &stable);
    let revision = reconciler.caches.revisions.get(&path).unwrap();
    let mut other = (*revision).clone();
    other.spec.references.clear();
    reconciler.caches.revisions.put(other);
    reconciler.projector.forget_values();
    reconciler.caches.revisions.put((*revision).clone());
    assert_eq!(refresh(), Some(None));
}

/// Replicas that do not lead read a Secret before a share names the revision that refers to it.
#[tokio::test]
async fn secrets_of_a_revision_are_read_before_it_gets_requests() {
    let mut story = Story::begin(None);
    write_secret(&story, "one");
    story.first_version().await;
    let reconciler = Arc::clone(&story.world.reconciler);
    let stable = ObjectKey::new("shop", &name(&story, "stable"));
    let mut next = (*reconciler.caches.revisions.get(&stable).unwrap()).clone();
    next.metadata.name = Some("f-next".into());
    let env = json!([{ "name": "DB_URL", "valueFrom": { "secretKeyRef": { "name": "db", "key": "url" } } }]);
    next.spec.env = serde_json::from_value(env).unwrap();
    reconciler.caches.revisions.put(next);
    reconciler.projector.refresh(&ObjectKey::new("shop", "f"));
    let read = tokio::time::timeout(Duration::from_secs(60), story.world.secrets.recv()).await;
    assert_eq!(read.unwrap(), Some(ObjectKey::new("shop", "db")));
}
