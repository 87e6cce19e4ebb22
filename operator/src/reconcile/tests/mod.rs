//! The whole sentence against a small API server.

mod abandoned;
mod callers;
mod certificates;
mod concerned;
mod config_maps;
mod crashes;
mod definitions;
mod events;
mod fake;
mod faults;
mod growth;
mod hosts;
mod kstatus;
mod lifecycle;
mod logs;
mod many;
mod measuring;
mod moves;
mod private;
mod recompute;
mod recorded;
mod registries;
mod resting;
mod revisions;
mod secrets;
mod story;
mod tampering;
mod unwritten;

use base64::Engine;
use fake::Fake;
use http::Method;
use jiff::Timestamp;
use operator_core::rollout::{self as core, RolloutState};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::node_api::Tables;
use crate::watch::{ConfigMaps, Secrets};

const FUNCTIONS: &str = "/apis/selvage.dev/v1alpha1/namespaces/shop/edgefunctions";
const REVISIONS: &str = "/apis/selvage.dev/v1alpha1/namespaces/shop/edgerevisions";
const CLAIMS: &str = "/apis/selvage.dev/v1alpha1/hostclaims";

struct World {
    fake: Fake,
    reconciler: Arc<Context>,
    tables: Tables,
    secrets: mpsc::UnboundedReceiver<ObjectKey>,
    config_maps: mpsc::UnboundedReceiver<ObjectKey>,
}

/// A component that exports the handler and imports nothing.
fn component() -> String {
    let name = b"wasi:http/incoming-handler@0.2.0";
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    bytes.extend([5, 3, 1, 1, 0]);
    bytes.extend([
        11,
        u8::try_from(name.len()).unwrap() + 6,
        1,
        0,
        u8::try_from(name.len()).unwrap(),
    ]);
    bytes.extend(name);
    bytes.extend([5, 0, 0]);
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn claim(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "selvage.dev/v1alpha1", "kind": "HostClaim",
        "metadata": { "name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2025-01-01T00:00:00Z" },
        "spec": spec,
    })
}

impl World {
    fn new() -> Self {
        Self::with(Vec::new())
    }

    /// Registries that speak plain HTTP.
    fn with(insecure: Vec<String>) -> Self {
        let fake = Fake::default();
        let client = fake.client();
        Self::of(fake, client, insecure)
    }

    /// A process that has just started, whatever there is.
    fn of(fake: Fake, client: Client, insecure: Vec<String>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (changed, secrets) = mpsc::unbounded_channel();
        let metrics = Metrics::new().unwrap();
        let caches = Caches::default();
        let store = Secrets::new(client.clone(), changed);
        let (changed, config_maps) = mpsc::unbounded_channel();
        let maps = ConfigMaps::new(client.clone(), changed);
        let tables = Tables::new();
        let hash_key = Arc::new(ArcSwapOption::from_pointee(Zeroizing::new(vec![7; 32])));
        let (reporter, write) = Reporter::new(client.clone(), metrics.clone(), "test");
        tokio::spawn(write);
        let reconciler = Context {
            client,
            fleet: Fleet::new(
                tables.clone(),
                Duration::from_secs(10),
                Duration::from_secs(600),
            ),
            projector: Projector::new(
                caches.clone(),
                store.clone(),
                tables.clone(),
                Arc::clone(&hash_key),
            ),
            caches,
            secrets: store,
            config_maps: maps,
            resolver: Arc::new(Resolver::new(insecure).unwrap()),
            source: PrometheusQueries::default(),
            metrics,
            queue: Queue::default(),
            reporter,
            hash_key,
            settings: Settings {
                service_account: "selvage-system:selvage-operator".into(),
                unsupervised_ttl: Duration::from_secs(600),
                max_rollouts: 1,
                scrape_interval: Duration::from_secs(15),
            },
            contexts: ContextStore::default(),
            slots: Mutex::default(),
            status_rate_limit: StatusRateLimit::default(),
            failure_log: Mutex::default(),
        };
        Self {
            fake,
            reconciler: Arc::new(reconciler),
            tables,
            secrets,
            config_maps,
        }
    }

    /// Applies a function; `more` is merged into its spec.
    fn apply(&self, name: &str, created: &str, more: &Value) {
        let mut spec = json!({ "source": { "inline": component() }, "routes": [{ "hosts": [format!("{name}.example")] }] });
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let object = json!({
            "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction",
            "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": 1, "creationTimestamp": created },
            "spec": spec,
        });
        self.fake.put(&format!("{FUNCTIONS}/{name}"), object);
        self.catch_up();
    }

    /// The caches see what the API server has.
    fn catch_up(&self) {
        for object in self.fake.under(FUNCTIONS) {
            self.reconciler
                .caches
                .functions
                .put(serde_json::from_value(object).unwrap());
        }
        for object in self.fake.under(REVISIONS) {
            self.reconciler
                .caches
                .revisions
                .put(serde_json::from_value(object).unwrap());
        }
        for object in self.fake.under(CLAIMS) {
            self.reconciler
                .caches
                .claims
                .put(serde_json::from_value(object).unwrap());
        }
    }

    async fn reconcile(&self, name: &str) -> Outcome {
        reconcile(&self.reconciler, &ObjectKey::new("shop", name), 3)
            .await
            .unwrap()
    }

    fn status(&self, name: &str) -> crds::EdgeFunctionStatus {
        let object = self.fake.get(&format!("{FUNCTIONS}/{name}")).unwrap();
        serde_json::from_value(object["status"].clone()).unwrap()
    }

    fn condition(&self, name: &str, kind: &str) -> (String, String, String) {
        let status = self.status(name);
        let found = status
            .conditions
            .into_iter()
            .find(|condition| condition.type_ == kind)
            .unwrap();
        (found.status, found.reason, found.message)
    }

    /// As kstatus reads it: failed, and by this reason.
    fn is_stalled(&self, name: &str, reason: &str) {
        self.is_not_ready(name, reason, ["False", "True"]);
    }

    fn is_reconciling(&self, name: &str, reason: &str) {
        self.is_not_ready(name, reason, ["True", "False"]);
    }

    fn is_not_ready(&self, name: &str, reason: &str, [reconciling, stalled]: [&str; 2]) {
        for (kind, status) in [
            ("Ready", "False"),
            ("Reconciling", reconciling),
            ("Stalled", stalled),
        ] {
            let (found, why, _) = self.condition(name, kind);
            assert_eq!((found.as_str(), why.as_str()), (status, reason), "{kind}");
        }
    }

    /// The report of a node that acts on the present traffic split with everything loaded.
    fn follows(&self, node: &str, name: &str) {
        let status = self.status(name);
        let token = status.rollout.unwrap().version.unwrap();
        let revision = status.candidate.or(status.stable).unwrap().revision;
        let report = node_api::v1::Report {
            revisions: vec![node_api::v1::RevisionState {
                function: Some((&FunctionKey::new("shop", name)).into()),
                revision,
                state: node_api::v1::LoadState::Loaded.into(),
                permanent: false,
                applied: Some(node_api::v1::FencingToken {
                    epoch: token.epoch,
                    serial: token.serial,
                }),
            }],
            revisions_complete: true,
            ..node_api::v1::Report::default()
        };
        self.reconciler.fleet.report_from(node, report);
    }

    fn node(&self, name: &str) {
        let node = json!({ "metadata": { "name": name } });
        let node = serde_json::from_value(node).unwrap();
        self.reconciler.caches.nodes.put(node);
    }

    /// Writes but for Events, which are recorded after the fact.
    fn writes(&self) -> Vec<String> {
        self.fake
            .writes()
            .into_iter()
            .filter(|write| !write.contains("/events"))
            .collect()
    }
}

#[tokio::test]
async fn a_new_function_gets_claim_revision_and_status_and_then_nothing_is_written() {
    let world = World::new();
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    world.reconcile("f").await;
    let status = world.status("f");
    assert_eq!(world.condition("f", "Accepted").0, "True");
    assert_eq!(world.condition("f", "Resolved").0, "True");
    assert_eq!(status.observed_generation, Some(1));
    let candidate = status.candidate.unwrap().revision;
    assert!(
        world
            .fake
            .get(&format!("{REVISIONS}/{candidate}"))
            .is_some()
    );
    assert_eq!(
        world.fake.get(&format!("{CLAIMS}/f.example")).unwrap()["spec"]["namespace"],
        "shop"
    );
    let accepted = status.accepted.unwrap();
    assert_eq!(accepted.version.unwrap().epoch, 3);
    world.writes();
    // I11: with the cache behind, in step, and after a restart of the process.
    world.reconcile("f").await;
    world.catch_up();
    world.reconcile("f").await;
    assert_eq!(world.writes(), Vec::<String>::new());
}

/// FC-5: a successor makes no object twice.
#[tokio::test]
async fn fc_5_a_successor_writes_nothing_new_from_the_same_facts() {
    let world = World::new();
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    world.reconcile("f").await;
    world.catch_up();
    let before = world.status("f");
    world.writes();
    let mut successor = World::new();
    successor.fake = world.fake.clone();
    let reconciler = Arc::get_mut(&mut successor.reconciler).unwrap();
    reconciler.client = world.fake.client();
    successor.catch_up();
    successor.reconcile("f").await;
    let after = successor.status("f");
    assert_eq!(
        (before.candidate, before.accepted),
        (after.candidate, after.accepted)
    );
    let revisions = world
        .writes()
        .iter()
        .filter(|write| write.starts_with("POST"))
        .count();
    assert_eq!(revisions, 0, "objects are not made twice");
}

/// FC-4: a 409 is read and decided again, five times at most.
#[tokio::test]
async fn fc_4_a_conflict_is_read_and_decided_again_and_never_more_than_five_times() {
    let world = World::new();
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    // Another writer labels the object after the cache read it.
    let mut object = world.fake.get(&format!("{FUNCTIONS}/f")).unwrap();
    object["metadata"]["labels"] = json!({ "a": "b" });
    world.fake.put(&format!("{FUNCTIONS}/f"), object);
    world.reconcile("f").await;
    let patches = world
        .writes()
        .iter()
        .filter(|write| write.starts_with("PATCH") && write.contains("/edgefunctions/"))
        .count();
    assert_eq!(patches, 2);
    assert_eq!(world.condition("f", "Accepted").0, "True");
    world.apply("g", "2026-01-01T00:00:00Z", &json!({}));
    world.fake.fail(Box::new(|method, _| {
        (method == Method::PATCH).then_some(409)
    }));
    let error = reconcile(&world.reconciler, &ObjectKey::new("shop", "g"), 3)
        .await
        .unwrap_err();
    assert!(matches!(error, ReconcileError::Contended));
    let patches = world
        .writes()
        .iter()
        .filter(|write| write.starts_with("PATCH") && write.contains("/edgefunctions/"))
        .count();
    assert_eq!(patches, 5);
}

/// HK-1: a wildcard of another namespace covers the host: `HostConflict` names both, and nothing is made.
#[tokio::test]
async fn hk_1_a_host_of_another_namespace_is_refused_and_taken_when_it_is_free() {
    let world = World::new();
    let spec = json!({ "host": "*.example", "namespace": "blog" });
    world
        .fake
        .put(&format!("{CLAIMS}/example.0"), claim("example.0", &spec));
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    let outcome = world.reconcile("f").await;
    let (status, reason, message) = world.condition("f", "Accepted");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "HostConflict")
    );
    assert!(
        message.contains("blog") && message.contains("*.example"),
        "{message}"
    );
    world.is_stalled("f", "HostConflict");
    assert!(world.status("f").accepted.is_none() && outcome.wake.is_some());
    assert!(world.fake.under(REVISIONS).is_empty());
}

#[tokio::test]
async fn of_two_equal_routes_the_older_function_wins() {
    let world = World::new();
    world.apply(
        "new",
        "2026-01-02T00:00:00Z",
        &json!({ "routes": [{ "hosts": ["old.example"] }] }),
    );
    world.apply("old", "2026-01-01T00:00:00Z", &json!({}));
    world.reconcile("old").await;
    world.catch_up();
    world.reconcile("new").await;
    assert_eq!(world.condition("old", "Accepted").0, "True");
    let (_, reason, message) = world.condition("new", "Accepted");
    assert_eq!(reason, "RouteConflict");
    assert!(message.contains("\"old\""), "{message}");
    world.is_stalled("new", "RouteConflict");
}

#[tokio::test]
async fn a_field_of_a_later_version_is_refused_by_name_and_the_old_spec_goes_on() {
    let world = World::new();
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    world.reconcile("f").await;
    let before = world.status("f");
    let mut object = world.fake.get(&format!("{FUNCTIONS}/f")).unwrap();
    object["spec"]["rollout"] = json!({ "strategy": "BlueGreen" });
    object["metadata"]["generation"] = json!(2);
    world.fake.put(&format!("{FUNCTIONS}/f"), object);
    world.catch_up();
    world.reconcile("f").await;
    let (status, reason, message) = world.condition("f", "Accepted");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "NotYetSupported")
    );
    assert!(message.contains("spec.rollout.strategy"), "{message}");
    world.is_stalled("f", "NotYetSupported");
    let after = world.status("f");
    assert_eq!(after.observed_generation, Some(2));
    assert_eq!(
        (before.accepted, before.candidate),
        (after.accepted, after.candidate)
    );
}

/// HK-2: without a grant no Secret is read; the condition has the line that grants it.
#[tokio::test]
async fn a_secret_that_is_not_granted_is_answered_with_the_line_that_grants_it() {
    let mut world = World::new();
    world.fake.fail(Box::new(|_, path| {
        path.ends_with("/secrets").then_some(403)
    }));
    let env = json!({ "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }] });
    world.apply("f", "2026-01-01T00:00:00Z", &env);
    world.reconcile("f").await;
    assert_eq!(
        world.secrets.recv().await.unwrap(),
        ObjectKey::new("shop", "s")
    );
    let outcome = world.reconcile("f").await;
    let (_, reason, message) = world.condition("f", "Accepted");
    assert_eq!(reason, "SecretsNotGranted");
    assert!(
        message.contains("kubectl create rolebinding selvage-secrets --namespace shop"),
        "{message}"
    );
    assert!(
        message.contains("--serviceaccount selvage-system:selvage-operator"),
        "{message}"
    );
    assert!(outcome.wake.is_some(), "a grant cannot be watched");
    world.is_stalled("f", "SecretsNotGranted");
}

#[tokio::test]
async fn hg_10_what_is_not_a_component_is_refused_before_anything_is_made() {
    let world = World::new();
    world.apply(
        "f",
        "2026-01-01T00:00:00Z",
        &json!({ "source": { "inline": "f0VMRgIB" } }),
    );
    world.reconcile("f").await;
    let (status, reason, message) = world.condition("f", "Resolved");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "NotAComponent")
    );
    assert!(message.contains("ELF"), "{message}");
    world.is_stalled("f", "NotAComponent");
    assert!(world.fake.under(REVISIONS).is_empty());
}

/// FC-1: a write that failed leaves nothing in memory that was not written.
#[tokio::test(start_paused = true)]
async fn fc_1_a_failed_write_leaves_nothing_behind_that_was_not_written() {
    let world = World::new();
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    world.fake.fail(Box::new(|method, _| {
        (method == Method::PATCH).then_some(500)
    }));
    assert!(
        reconcile(&world.reconciler, &ObjectKey::new("shop", "f"), 3)
            .await
            .is_err()
    );
    world.fake.fail(Box::new(|_, _| None));
    world.catch_up();
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.reconcile("f").await;
    assert_eq!(world.status("f").rollout.unwrap().attempt, Some(1));
}
