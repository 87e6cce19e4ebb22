//! ConfigMaps: only those that functions refer to are read, and what is not read yet changes nothing.

use operator_core::status_rate::SPACING;

use super::story::Story;
use super::*;
use crate::dispatch::Dispatch;
use crate::watch::ConfigMapState;

const MAPS: &str = "/api/v1/namespaces/shop/configmaps";

fn write_map(world: &World, name: &str, value: &str) {
    write_key(world, name, "k", value);
}

fn write_key(world: &World, name: &str, key: &str, value: &str) {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}") },
        "data": { key: value },
    });
    world.fake.put(&format!("{MAPS}/{name}"), map);
}

/// The part of a spec that refers to the ConfigMap `c`.
fn refers() -> Value {
    json!([{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "k" } } }])
}

fn key() -> ObjectKey {
    ObjectKey::new("shop", "c")
}

/// The operator is not allowed or not able to read ConfigMaps.
fn refuse_reads(world: &World, code: u16) {
    world.fake.fail(Box::new(move |_, path| {
        path.ends_with("/configmaps").then_some(code)
    }));
}

/// Waits until the state of the ConfigMap has changed, and reconciles.
async fn read_and_reconcile(world: &mut World) {
    assert_eq!(world.config_maps.recv().await, Some(key()));
    world.reconcile("f").await;
    world.catch_up();
}

/// Waits until the ConfigMap was read.
async fn read_map(maps: &ConfigMaps, changes: &mut mpsc::UnboundedReceiver<ObjectKey>) {
    while !matches!(maps.get(&key()), ConfigMapState::Present(_)) {
        changes.recv().await.unwrap();
    }
}

/// A function whose stable revision was made with the value `one` of the ConfigMap.
async fn with_stable() -> Story {
    let mut story = Story::begin(None);
    write_map(&story.world, "c", "one");
    let maps = story.world.reconciler.config_maps.clone();
    read_map(&maps, &mut story.world.config_maps).await;
    let spec = json!({
        "env": refers(),
        "rollout": { "canary": { "steps": [{ "weight": "5%" }] } },
    });
    story.world.apply("f", "2026-01-01T00:00:00Z", &spec);
    story.until(|status| status["phase"] == "Ready").await;
    assert_eq!(story.world.condition("f", "Ready").0, "True");
    story
}

/// The memory of the operator does not grow with the ConfigMaps of the cluster.
#[tokio::test]
async fn only_config_maps_that_functions_refer_to_are_read() {
    let mut world = World::new();
    for n in 0..500 {
        write_map(&world, &format!("stranger-{n}"), "x");
    }
    write_map(&world, "c", "one");
    world.apply("f", "2026-01-01T00:00:00Z", &json!({ "env": refers() }));
    let reconciler = Arc::clone(&world.reconciler);
    let (changed, _changes) = mpsc::unbounded_channel();
    let mut watches = tokio::task::JoinSet::new();
    for watch in reconciler.caches.watch(&reconciler.client, &changed) {
        watches.spawn(watch);
    }
    reconciler.caches.filled().await;
    assert_eq!(world.fake.lists("/api/v1/configmaps"), 0, "lists of all");
    world.reconcile("f").await;
    read_and_reconcile(&mut world).await;
    assert_eq!(world.condition("f", "Accepted").0, "True");
    assert_eq!(reconciler.config_maps.watched(), [key()]);
    assert_eq!(world.fake.lists(MAPS), 1);
    watches.shutdown().await;
}

#[tokio::test]
async fn a_missing_config_map_is_named_and_its_content_makes_the_revision() {
    let mut world = World::new();
    world.apply("f", "2026-01-01T00:00:00Z", &json!({ "env": refers() }));
    world.reconcile("f").await;
    let accepted = |status: crds::EdgeFunctionStatus| {
        let conditions = status.conditions.into_iter();
        conditions.filter(|one| one.type_ == "Accepted").count()
    };
    assert_eq!(accepted(world.status("f")), 0, "nothing is known yet");
    read_and_reconcile(&mut world).await;
    let (_, reason, message) = world.condition("f", "Accepted");
    assert_eq!(reason, "MissingReference");
    assert!(
        message.contains("spec.env[A]") && message.contains("\"c\""),
        "{message}"
    );
    world.is_reconciling("f", "MissingReference");
    let mut names = Vec::new();
    for value in ["one", "two"] {
        write_map(&world, "c", value);
        read_and_reconcile(&mut world).await;
        names.push(world.status("f").candidate.unwrap().revision);
    }
    assert_ne!(names[0], names[1], "other content is another revision");

    world.fake.remove(&format!("{MAPS}/c"));
    read_and_reconcile(&mut world).await;
    world.is_reconciling("f", "MissingReference");
    assert_eq!(world.condition("f", "Accepted").1, "MissingReference");
    let candidate = world.status("f").candidate.unwrap();
    assert_eq!(candidate.revision, names[1], "what was made stays");
}

/// Certificates of authorities are content like any other: without them the spec is refused, and others make another
/// revision, which is rolled out.
#[tokio::test]
async fn certificates_of_authorities_are_part_of_the_revision() {
    let mut world = World::new();
    let egress = json!({ "allow": ["https://a.example"], "caConfigMapRef": { "name": "c" } });
    world.apply("f", "2026-01-01T00:00:00Z", &json!({ "egress": egress }));
    world.reconcile("f").await;
    read_and_reconcile(&mut world).await;
    let refused = |world: &World, expected: &str, part: &str| {
        let (status, reason, message) = world.condition("f", "Accepted");
        assert_eq!((status.as_str(), reason.as_str()), ("False", expected));
        let named = message.contains("spec.egress.caConfigMapRef");
        assert!(named && message.contains(part), "{message}");
    };
    refused(&world, "MissingReference", "\"ca.crt\"");
    write_key(&world, "c", "k", &authority());
    read_and_reconcile(&mut world).await;
    refused(&world, "MissingReference", "\"ca.crt\"");
    write_key(&world, "c", "ca.crt", "no certificate");
    read_and_reconcile(&mut world).await;
    refused(&world, "InvalidSpec", "no certificate in PEM");

    let mut names = Vec::new();
    for pem in [authority(), authority()] {
        write_key(&world, "c", "ca.crt", &pem);
        read_and_reconcile(&mut world).await;
        assert_eq!(world.condition("f", "Accepted").0, "True");
        let name = world.status("f").candidate.unwrap().revision;
        let revision = world.fake.get(&format!("{REVISIONS}/{name}")).unwrap();
        assert_eq!(revision["spec"]["caCertificates"], pem);
        names.push(name);
    }
    assert_ne!(names[0], names[1]);

    // what was made stays when the certificates are spoiled
    write_key(&world, "c", "ca.crt", "-----BEGIN CERTIFICATE-----\n");
    read_and_reconcile(&mut world).await;
    refused(&world, "InvalidSpec", "not valid PEM");
    assert_eq!(world.status("f").candidate.unwrap().revision, names[1]);
}

fn authority() -> String {
    let params = rcgen::CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}

/// A write that changes no content, as that of a label, concerns no function.
#[tokio::test]
async fn a_config_map_with_the_same_content_is_no_change() {
    let mut world = World::new();
    let maps = world.reconciler.config_maps.clone();
    write_map(&world, "c", "one");
    read_map(&maps, &mut world.config_maps).await;
    let labelled = |value: &str| {
        let map = json!({ "metadata": { "labels": { "a": "b" } }, "data": { "k": value } });
        ConfigMapState::Present(Arc::new(serde_json::from_value(map).unwrap()))
    };
    maps.put(&key(), labelled("one"));
    assert!(world.config_maps.try_recv().is_err(), "same content");
    maps.put(&key(), labelled("two"));
    assert_eq!(world.config_maps.try_recv(), Ok(key()));
}

/// A restart finds a function whose ConfigMap is not read yet: its status stays, and it does not roll out.
#[tokio::test(start_paused = true)]
async fn a_restart_before_the_config_map_is_read_changes_nothing() {
    let mut story = with_stable().await;
    let before = story.object();
    let effects = story.effects.len();
    story.succeed();
    refuse_reads(&story.world, 500);
    for _ in 0..3 {
        story.turn().await;
    }
    assert_eq!(story.object()["status"], before["status"]);
    story.world.fake.fail(Box::new(|_, _| None));
    assert_eq!(story.world.config_maps.recv().await, Some(key()));
    for _ in 0..3 {
        story.turn().await;
    }
    assert_eq!(story.object()["status"], before["status"]);
    assert_eq!(story.world.fake.under(REVISIONS).len(), 1);
    assert_eq!(story.effects.len(), effects, "{:?}", story.effects);
}

/// The same while a candidate has traffic: its weight neither falls nor rises.
#[tokio::test(start_paused = true)]
async fn a_restart_in_mid_rollout_before_the_config_map_is_read_keeps_the_candidate() {
    let mut story = with_stable().await;
    write_map(&story.world, "c", "two");
    assert_eq!(story.world.config_maps.recv().await, Some(key()));
    let stepping = |status: &Value| status["rollout"]["state"] == "Stepping";
    story.until(stepping).await;
    let candidate = story.object()["status"]["candidate"].clone();
    let effects = story.effects.len();
    story.succeed();
    refuse_reads(&story.world, 500);
    story.until(stepping).await;
    assert_eq!(story.object()["status"]["candidate"], candidate);
    assert_eq!(story.effects.len(), effects, "{:?}", story.effects);
    assert_eq!(story.world.condition("f", "Accepted").0, "True");
}

/// A spec that refers to an object that is not read yet waits for it, and says so.
#[tokio::test(start_paused = true)]
async fn an_edit_that_refers_to_a_config_map_waits_until_it_is_read() {
    let mut story = Story::begin(None);
    story.first_version().await;
    write_map(&story.world, "c", "one");
    refuse_reads(&story.world, 500);
    let mut object = story.object();
    object["spec"]["env"] = refers();
    object["metadata"]["generation"] = json!(2);
    story.put(object);
    story.turn().await;
    tokio::time::sleep(SPACING).await;
    story.turn().await;
    let status = story.world.status("f");
    assert_eq!(status.observed_generation, Some(1));
    let (ready, reason, message) = story.world.condition("f", "Reconciling");
    assert_eq!((ready.as_str(), reason.as_str()), ("True", "Resolving"));
    assert!(message.contains("reading the ConfigMaps"), "{message}");
    assert_eq!(story.world.condition("f", "Accepted").0, "True");
    story.world.fake.fail(Box::new(|_, _| None));
    assert_eq!(story.world.config_maps.recv().await, Some(key()));
    story
        .until(|status| status["rollout"]["state"] == "Stepping")
        .await;
    assert_eq!(story.world.status("f").observed_generation, Some(2));
}

/// The chart permits it, so the spec is not refused, and the message names the missing permission.
#[tokio::test(start_paused = true)]
async fn a_permission_that_the_operator_lacks_is_named_and_tried_again() {
    let mut world = World::new();
    write_map(&world, "c", "one");
    refuse_reads(&world, 403);
    world.apply("f", "2026-01-01T00:00:00Z", &json!({ "env": refers() }));
    world.reconcile("f").await;
    read_and_reconcile(&mut world).await;
    tokio::time::sleep(SPACING).await;
    world.reconcile("f").await;
    let (status, reason, message) = world.condition("f", "Reconciling");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Resolving"));
    assert!(message.contains("list and watch"), "{message}");
    world.fake.fail(Box::new(|_, _| None));
    read_and_reconcile(&mut world).await;
    assert_eq!(world.condition("f", "Accepted").0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_config_map_that_no_function_refers_to_any_longer_is_forgotten() {
    let mut world = World::new();
    write_map(&world, "c", "one");
    world.apply("f", "2026-01-01T00:00:00Z", &json!({ "env": refers() }));
    world.reconcile("f").await;
    read_and_reconcile(&mut world).await;
    let dispatch = Dispatch {
        caches: world.reconciler.caches.clone(),
        projector: world.reconciler.projector.clone(),
        queue: Queue::default(),
        metrics: world.reconciler.metrics.clone(),
    };
    let maps = world.reconciler.config_maps.clone();
    let forget = tokio::spawn(dispatch.forget_config_maps(maps.clone()));
    let two_searches = Duration::from_secs(150);
    tokio::time::sleep(two_searches).await;
    assert_eq!(maps.watched(), [key()]);
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    tokio::time::sleep(two_searches).await;
    assert_eq!(maps.watched(), []);
    // A later reference reads it anew.
    write_map(&world, "c", "two");
    world.apply("f", "2026-01-01T00:00:00Z", &json!({ "env": refers() }));
    world.reconcile("f").await;
    read_and_reconcile(&mut world).await;
    assert_eq!(world.condition("f", "Accepted").0, "True");
    forget.abort();
}
