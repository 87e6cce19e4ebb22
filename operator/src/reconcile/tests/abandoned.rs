//! A candidate that `spec` no longer asks for gets nothing, whatever keeps its successor from being known; and what only
//! makes that unknown, as a restart, takes nothing away.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Request, State as Held};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::story::Story;
use super::*;
use crate::resolve::digest_of;

/// A registry of one repository. A tag is the content of its component, but for `moved`.
#[derive(Clone, Default)]
struct Registry {
    host: String,
    is_away: Arc<AtomicBool>,
    is_moved: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
}

impl Registry {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Self {
            host: listener.local_addr().unwrap().to_string(),
            ..Self::default()
        };
        let router = Router::new().fallback(answer).with_state(registry.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        registry
    }

    fn image(&self, tag: &str) -> String {
        format!("{}/shop/app:{tag}", self.host)
    }
}

async fn answer(Held(registry): Held<Registry>, request: Request) -> Response {
    registry.requests.fetch_add(1, Ordering::SeqCst);
    if registry.is_away.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let (rest, last) = request.uri().path().rsplit_once('/').unwrap();
    if rest.ends_with("/manifests") {
        let moved = registry.is_moved.load(Ordering::SeqCst);
        let component = build(if moved { "moved" } else { last });
        let layer = json!({ "mediaType": "application/wasm", "digest": digest_of(&component), "size": component.len() });
        return json!({ "schemaVersion": 2, "config": layer, "layers": [layer] })
            .to_string()
            .into_response();
    }
    let known = ["v1", "v2", "v3", "moved"].map(build);
    match known.into_iter().find(|bytes| digest_of(bytes) == last) {
        Some(bytes) => bytes.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The component with a custom section that makes it another one.
fn build(tag: &str) -> Vec<u8> {
    let mut bytes = base64::engine::general_purpose::STANDARD
        .decode(component())
        .unwrap();
    let length = u8::try_from(tag.len()).unwrap();
    bytes.extend([0, length + 1, length]);
    bytes.extend(tag.as_bytes());
    bytes
}

/// Applies an edit as a user would.
fn edit(story: &Story, change: impl FnOnce(&mut Value)) {
    let mut object = story.object();
    let generation = object["metadata"]["generation"].as_i64().unwrap();
    object["metadata"]["generation"] = json!(generation + 1);
    change(&mut object["spec"]);
    story.put(object);
}

/// Turns until the registry was asked and has answered or not.
async fn resolved(story: &mut Story) {
    story.turn().await;
    let turn = story.world.reconciler.queue.take(false).await;
    let queue = &story.world.reconciler.queue;
    queue.done(&turn.key, Class::Normal, None);
    story.turn().await;
}

/// The traffic split that nodes receive, in hundredths of a percent. The status has the same.
fn weight(story: &Story) -> u32 {
    let key = FunctionKey::new("shop", "f");
    let record = story.world.tables.newest_record(&key).unwrap();
    let told = record.split.unwrap().weight;
    let candidate = story.object()["status"]["traffic"][1]["weight"].as_u64();
    assert_eq!(u64::from(told), candidate.unwrap_or(0));
    told
}

fn status(story: &Story) -> Value {
    story.object()["status"].clone()
}

/// `v1` is stable, `v2` has 5 %, and the registry is away.
async fn second_image_on_trial() -> (Story, Registry) {
    let registry = Registry::start().await;
    let mut story = Story::with(vec![registry.host.clone()]);
    let spec = json!({
        "source": { "image": registry.image("v1") },
        "rollout": { "canary": { "steps": [{ "weight": "5%" }] } },
    });
    story.world.apply("f", "2026-01-01T00:00:00Z", &spec);
    let mut object = story.object();
    object["spec"]["source"]
        .as_object_mut()
        .unwrap()
        .remove("inline");
    story.put(object);
    resolved(&mut story).await;
    story.until(|status| status["phase"] == "Ready").await;
    edit(&story, |spec| {
        spec["source"]["image"] = json!(registry.image("v2"))
    });
    resolved(&mut story).await;
    story
        .until(|status| status["rollout"]["state"] == "Stepping")
        .await;
    assert_eq!(weight(&story), 500);
    registry.is_away.store(true, Ordering::SeqCst);
    registry.requests.store(0, Ordering::SeqCst);
    (story, registry)
}

#[tokio::test]
async fn going_back_to_an_image_that_a_revision_was_made_from_asks_no_registry() {
    for is_moved in [false, true] {
        let (mut story, registry) = second_image_on_trial().await;
        // also where the registry would answer with another digest by now
        registry.is_away.store(!is_moved, Ordering::SeqCst);
        registry.is_moved.store(is_moved, Ordering::SeqCst);
        let stable = status(&story)["stable"]["revision"].clone();
        edit(&story, |spec| {
            spec["source"]["image"] = json!(registry.image("v1"))
        });
        story.turn().await;
        assert_eq!(weight(&story), 0);
        let after = status(&story);
        assert_eq!(after["rollout"]["state"], "Idle");
        assert_eq!(after["history"][0]["outcome"], "Withdrawn");
        story.until(|status| status["phase"] == "Ready").await;
        let (_, reason, _) = story.world.condition("f", "Ready");
        assert_eq!(reason, "Withdrawn");
        assert_eq!(status(&story)["stable"]["revision"], stable);
        assert_eq!(status(&story)["resolved"]["image"], registry.image("v1"));
        assert_eq!(registry.requests.load(Ordering::SeqCst), 0);
        // and forward again: it is another rollout
        edit(&story, |spec| {
            spec["source"]["image"] = json!(registry.image("v2"))
        });
        story
            .until(|status| status["rollout"]["state"] == "Stepping")
            .await;
        assert_eq!(registry.requests.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn an_image_that_is_not_known_yet_takes_the_share_from_the_candidate_at_once() {
    let (mut story, registry) = second_image_on_trial().await;
    edit(&story, |spec| {
        spec["source"]["image"] = json!(registry.image("v3"))
    });
    story.turn().await;
    assert_eq!(weight(&story), 0);
    assert_eq!(status(&story)["history"][0]["outcome"], "Superseded");
    let (ready, reason, _) = story.world.condition("f", "Ready");
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "Resolving"));
    resolved(&mut story).await;
    let (_, reason, message) = story.world.condition("f", "Resolved");
    assert_ne!(reason, "Resolved", "{message}");
    story.succeed();
    for _ in 0..5 {
        story.turn().await;
        assert_eq!(weight(&story), 0);
    }
    assert_eq!(story.effects.last().unwrap().2, 0);
}

/// Revisions of an earlier version of the operator do not record the image that they were made from.
#[tokio::test]
async fn without_a_record_of_the_image_the_candidate_goes_to_zero_all_the_same() {
    let (mut story, registry) = second_image_on_trial().await;
    for mut revision in story.world.fake.under(REVISIONS) {
        let name = revision["metadata"]["name"].as_str().unwrap().to_owned();
        revision["spec"].as_object_mut().unwrap().remove("image");
        story
            .world
            .fake
            .put(&format!("{REVISIONS}/{name}"), revision);
    }
    edit(&story, |spec| {
        spec["source"]["image"] = json!(registry.image("v1"))
    });
    story.turn().await;
    assert_eq!(weight(&story), 0);
    registry.is_away.store(false, Ordering::SeqCst);
    resolved(&mut story).await;
    story
        .until(|status| status["rollout"]["state"] == "Idle")
        .await;
    assert_eq!(weight(&story), 0);
}

/// P5: neither a restart nor deleted revisions are evidence about what `spec` asks for.
#[tokio::test]
async fn a_restart_alone_takes_no_share_away() {
    let (mut story, registry) = second_image_on_trial().await;
    story.succeed();
    for _ in 0..5 {
        story.turn().await;
        assert_eq!(weight(&story), 500);
    }
    let candidate = status(&story)["candidate"]["revision"].clone();
    let path = format!("{REVISIONS}/{}", candidate.as_str().unwrap());
    story.world.fake.remove(&path);
    story.succeed();
    resolved(&mut story).await;
    for _ in 0..5 {
        story.turn().await;
        assert_eq!(status(&story)["rollout"]["state"], "Stepping");
    }
    assert!(registry.requests.load(Ordering::SeqCst) > 0);
}

/// The candidate with a Secret: while it is not read, not granted or gone the share stays; another content is another revision.
#[tokio::test]
async fn secrets_that_cannot_be_read_take_no_share_away() {
    let mut story = Story::begin(None);
    let path = "/api/v1/namespaces/shop/secrets/s";
    let secret = |value: &str| {
        let data = base64::engine::general_purpose::STANDARD.encode(value);
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s", "namespace": "shop", "uid": "uid-s" }, "data": { "k": data } })
    };
    story.world.fake.put(path, secret("one"));
    story.first_version().await;
    edit(&story, |spec| {
        spec["env"] =
            json!([{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }]);
    });
    story.turn().await;
    story.world.secrets.recv().await.unwrap();
    story
        .until(|status| status["rollout"]["state"] == "Stepping")
        .await;
    assert_eq!(weight(&story), 500);
    // a successor that has not read it yet
    story.succeed();
    story.turn().await;
    assert_eq!(weight(&story), 500);
    // one that may not, and one that finds it gone
    for gone in [false, true] {
        story.world.fake.fail(Box::new(move |_, path| {
            (path.ends_with("/secrets") && !gone).then_some(403)
        }));
        if gone {
            story.world.fake.remove(path);
        }
        story.succeed();
        story.turn().await;
        story.world.secrets.recv().await.unwrap();
        for _ in 0..5 {
            story.turn().await;
            assert_eq!(weight(&story), 500, "{gone}");
        }
        let (_, reason, _) = story.world.condition("f", "Accepted");
        let expected = ["SecretsNotGranted", "MissingReference"];
        assert_eq!(reason, expected[usize::from(gone)]);
    }
    story.world.fake.put(path, secret("two"));
    story.succeed();
    story.turn().await;
    story.world.secrets.recv().await.unwrap();
    story.turn().await;
    assert_eq!(weight(&story), 0);
    assert_eq!(status(&story)["history"][0]["outcome"], "Superseded");
}

/// A spec that is refused: the candidate stays where it is if the spec still asks for its code and configuration, and
/// gets nothing if it does not.
#[tokio::test]
async fn a_refused_spec_lets_nothing_rise_and_lowers_what_it_does_not_ask_for() {
    type Refused = (&'static str, fn(&mut Value));
    let refused: [Refused; 5] = [
        ("HostConflict", |spec| {
            spec["routes"] = json!([{ "hosts": ["taken.example"] }]);
        }),
        ("NotYetSupported", |spec| {
            spec["rollout"] = json!({ "strategy": "BlueGreen" });
        }),
        ("MissingReference", |spec| {
            spec["rollout"] = json!({ "policyRef": { "name": "none" } });
        }),
        ("InvalidRoute", |spec| {
            spec["routes"] = json!([]);
        }),
        ("RouteConflict", |spec| {
            spec["routes"] = json!([{ "hosts": ["older.example"] }]);
        }),
    ];
    for (reason, change) in refused {
        for is_other in [false, true] {
            let mut story = Story::begin(None);
            let host = json!({ "host": "taken.example", "namespace": "blog" });
            let path = format!("{CLAIMS}/taken.example");
            story.world.fake.put(&path, claim("taken.example", &host));
            story
                .world
                .apply("older", "2025-01-01T00:00:00Z", &json!({}));
            story.world.reconcile("older").await;
            story.second_on_trial().await;
            edit(&story, |spec| {
                change(spec);
                if is_other {
                    spec["env"] = json!([]);
                }
            });
            let expected = if is_other { 0 } else { 500 };
            for _ in 0..5 {
                story.turn().await;
                assert_eq!(weight(&story), expected, "{reason} {is_other}");
            }
            let (_, found, message) = story.world.condition("f", "Accepted");
            assert_eq!(found, reason, "{message}");
            if !is_other {
                story.act("promote");
                story.turn().await;
                story.turn().await;
                assert_eq!(weight(&story), 500, "{reason}");
                let actions = status(&story)["rollout"]["actions"].to_string();
                assert!(actions.contains("not accepted"), "{actions}");
            }
        }
    }
}

/// What belongs to the revision and is not valid is not what the candidate was made from.
#[tokio::test]
async fn a_configuration_that_is_refused_takes_the_share_away() {
    let mut story = Story::begin(None);
    story.second_on_trial().await;
    edit(&story, |spec| {
        spec["egress"] = json!({ "allow": ["http://prices"] });
    });
    story.turn().await;
    assert_eq!(weight(&story), 0);
    story.world.is_stalled("f", "InvalidSpec");
    assert_eq!(status(&story)["rollout"]["state"], "Idle");
}

/// FC-12: nor does it wait for a revision that cannot be recorded; what is decided meanwhile is written.
#[tokio::test]
async fn a_revision_that_cannot_be_recorded_takes_the_share_from_the_candidate() {
    let mut story = Story::begin(None);
    story.second_on_trial().await;
    story.world.fake.fail(Box::new(|method, _| {
        (*method == Method::POST).then_some(500)
    }));
    story.edit(3, "3");
    story.turn().await;
    assert_eq!(weight(&story), 0);
    assert_eq!(status(&story)["rollout"]["state"], "Idle");
    let (ready, _, message) = story.world.condition("f", "Ready");
    assert_eq!(ready, "False");
    assert!(message.contains("cannot be recorded"), "{message}");
    story.world.fake.fail(Box::new(|_, _| None));
    story.succeed();
    story
        .until(|status| status["rollout"]["state"] == "Stepping")
        .await;
}
