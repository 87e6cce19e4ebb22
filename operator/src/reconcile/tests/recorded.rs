//! Objects of every phase, as other tools see them. The tests of the health checks, of the actions and of kstatus in
//! `integrations` read them, so this test keeps them equal to what the operator writes. `RECORD=write` records them again.

use std::path::{Path, PathBuf};

use super::story::Story;
use super::*;

const MOMENT: &str = "2026-11-21T13:30:22";

/// Folder of the recorded objects of a kind.
fn folder(kind: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join("integrations/argo-cd/resource_customizations/selvage.dev")
        .join(kind)
        .join("testdata")
}

/// Compares the object with the recorded one, or records it.
fn compare(kind: &str, phase: &str, text: &str) {
    let path = folder(kind).join(format!("{phase}.yaml"));
    if std::env::var("RECORD").is_ok_and(|mode| mode == "write") {
        std::fs::write(&path, text).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        recorded == text,
        "{kind} {phase} is recorded differently: set RECORD=write and read the difference.\n{text}"
    );
}

/// Compares the function `f` with the recorded object of this phase.
fn record(world: &World, phase: &str) {
    let object = world.fake.get(&format!("{FUNCTIONS}/f")).unwrap();
    compare("EdgeFunction", phase, &stable_text(world, object));
}

/// The object without what differs between two runs or versions: moments, names that are hashes, counts of writes, and
/// what only programs read.
fn stable_text(world: &World, mut object: Value) -> String {
    object["metadata"]["resourceVersion"] = json!("4711");
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.remove("managedFields");
    if let Some(rollout) = object.pointer_mut("/status/rollout") {
        rollout["workingRecord"] = json!("{}");
    }
    for record in ["accepted", "rollout"] {
        let path = format!("/status/{record}/version/serial");
        if let Some(serial) = object.pointer_mut(&path) {
            *serial = json!(9);
        }
    }
    let mut text = serde_yaml::to_string(&object).unwrap();
    for revision in world.fake.under(REVISIONS) {
        let name = revision["metadata"]["name"].as_str().unwrap();
        let number = revision["spec"]["number"].as_i64().unwrap();
        text = text.replace(name, &format!("f-{number:010}"));
    }
    // a rollout takes longer on a busy machine
    for seconds in 1..60 {
        let took = format!("promoted after {seconds} s\n");
        text = text.replace(&took, "promoted after 0 s\n");
    }
    at_one_moment(&text)
}

/// Replaces each moment such as `2026-01-02T03:04:05.678901Z`, with or without a fraction.
fn at_one_moment(text: &str) -> String {
    let is_moment = |text: &str| {
        text.get(..MOMENT.len()).is_some_and(|found| {
            found.bytes().zip(MOMENT.bytes()).all(|(found, mask)| {
                if mask.is_ascii_digit() {
                    found.is_ascii_digit()
                } else {
                    found == mask
                }
            })
        })
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if is_moment(rest) {
            out.push_str(MOMENT);
            rest = &rest[MOMENT.len()..];
            let fraction = rest
                .strip_prefix('.')
                .map(|digits| digits.trim_start_matches(|digit: char| digit.is_ascii_digit()));
            if let Some(after) = fraction {
                out.push_str(".000000");
                rest = after;
            }
        } else {
            out.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    out
}

/// The status that the API server gives a new function.
fn first_status() -> Value {
    let functions = serde_json::to_value(&crds::all()[0]).unwrap();
    let schema = &functions["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["status"]["default"].clone()
}

/// Edits the spec as a user would.
fn edit(story: &Story, change: impl FnOnce(&mut Value)) {
    let mut object = story.object();
    let generation = object["metadata"]["generation"].as_i64().unwrap();
    object["metadata"]["generation"] = json!(generation + 1);
    change(&mut object["spec"]);
    story.put(object);
}

fn state(name: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["rollout"]["state"] == name
}

#[tokio::test]
async fn a_rollout_with_its_actions_is_recorded() {
    let mut story = Story::begin(None);
    story.second_on_trial().await;
    record(&story.world, "stepping");
    story.act("pause");
    story
        .until(|status| !status["rollout"]["paused"].is_null())
        .await;
    record(&story.world, "paused");
    story.act("resume");
    story
        .until(|status| status["rollout"]["paused"].is_null())
        .await;
    story.act("promote-full");
    story.until(state("Baking")).await;
    record(&story.world, "baking");
    story.act("promote");
    story.until(|status| status["phase"] == "Ready").await;
    record(&story.world, "ready");
    story.edit(3, "3");
    record(&story.world, "edited");
    story.until(state("Stepping")).await;
    edit(&story, |spec| spec["suspend"] = json!(true));
    story.until(|status| status["phase"] == "Suspended").await;
    record(&story.world, "suspended_during_rollout");
    edit(&story, |spec| spec["suspend"] = json!(false));
    story.until(|status| status["phase"] == "Progressing").await;
    story.act("abort");
    story.until(|status| status["phase"] == "RolledBack").await;
    record(&story.world, "aborted");
}

#[tokio::test]
async fn a_rollout_that_waits_for_a_person_is_recorded() {
    let mut story = Story::begin(None);
    let gate = json!({ "rollout": {
        "canary": { "steps": [{ "weight": "5%" }] },
        "gates": [{ "name": "manager", "at": "Start", "approval": {} }],
    } });
    story.world.apply("f", "2026-01-01T00:00:00Z", &gate);
    let mut object = story.object();
    object["status"] = first_status();
    story.put(object);
    record(&story.world, "new");
    story
        .until(|status| status["rollout"]["waitingFor"] == json!(["Approval"]))
        .await;
    record(&story.world, "first_awaiting_approval");
    story.act("approve");
    story.until(|status| status["phase"] == "Ready").await;
    story.edit(2, "2");
    story
        .until(|status| status["rollout"]["waitingFor"] == json!(["Approval"]))
        .await;
    record(&story.world, "awaiting_approval");
    story.act("abort");
    story.until(|status| status["phase"] == "RolledBack").await;
    edit(&story, |spec| {
        spec["env"] = json!([]);
        spec["suspend"] = json!(true);
    });
    let ready = |status: &Value| {
        let all = status["conditions"].as_array().unwrap().iter();
        let mut ready = all.filter(|one| one["type"] == "Ready");
        ready.next().unwrap()["status"] == "True"
    };
    // nodes follow at the beginning of a turn, so they do not have the change yet
    story.turn().await;
    record(&story.world, "suspending");
    story.until(ready).await;
    record(&story.world, "suspended");
}

#[tokio::test]
async fn specs_that_are_not_served_are_recorded() {
    let mut story = Story::begin(None);
    story.first_version().await;
    edit(&story, |spec| {
        spec["limits"] = json!({ "memory": "lots" });
    });
    story
        .until(|status| status["observedGeneration"] == 2)
        .await;
    record(&story.world, "refused");

    let mut story = Story::begin(None);
    let steps = json!({ "env": [{ "name": "A", "value": "1" }] });
    story.world.apply("f", "2026-01-01T00:00:00Z", &steps);
    story.world.catch_up();
    story.world.reconcile("f").await;
    record(&story.world, "first_loading");
    story.act("abort");
    story.until(|status| status["phase"] == "Failed").await;
    record(&story.world, "failed");

    let world = World::new();
    let policy = json!({ "rollout": { "policyRef": { "name": "careful" } } });
    world.apply("f", "2026-01-01T00:00:00Z", &policy);
    world.reconcile("f").await;
    record(&world, "missing_reference");

    let world = World::new();
    let image = json!({ "source": { "image": "127.0.0.1:1/shop/f:1" } });
    world.apply("f", "2026-01-01T00:00:00Z", &image);
    world.reconcile("f").await;
    record(&world, "resolving");
}

#[tokio::test]
async fn revisions_are_recorded() {
    let mut story = Story::begin(None);
    story.second_on_trial().await;
    let revision = |number: i64| {
        let all = story.world.fake.under(REVISIONS);
        let found = all.into_iter().find(|one| one["spec"]["number"] == number);
        found.unwrap()
    };
    for (number, phase) in [(1, "loaded"), (2, "candidate")] {
        let text = stable_text(&story.world, revision(number));
        compare("EdgeRevision", phase, &text);
    }
    story.act("promote-full");
    story.until(state("Baking")).await;
    story.act("promote");
    story.until(|status| status["phase"] == "Ready").await;
    story.edit(3, "3");
    story.until(state("Stepping")).await;
    story.act("abort");
    story.until(|status| status["phase"] == "RolledBack").await;
    let all = story.world.fake.under(REVISIONS);
    let found = all.into_iter().find(|one| one["spec"]["number"] == 3);
    let text = stable_text(&story.world, found.unwrap());
    compare("EdgeRevision", "not_served", &text);
}
