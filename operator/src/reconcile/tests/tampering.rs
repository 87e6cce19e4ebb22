//! Others write what is ours, and the past comes back.

use super::story::Story;
use super::*;

/// The state of nodes that have a function with its second version as candidate at 5 %.
fn on_trial(story: &Story) -> (String, String, u32) {
    let status = story.object()["status"].clone();
    let name = |field: &str| status[field]["revision"].as_str().unwrap().to_owned();
    (name("stable"), name("candidate"), 500)
}

/// FC-9: a GitOps tool that applies the same manifest again and again moves no traffic, undoes no pause and causes no write.
#[tokio::test]
async fn a_tool_that_reverts_metadata_every_second_changes_nothing() {
    let mut story = Story::begin(None);
    story.second_on_trial().await;
    let on_trial = on_trial(&story);
    story.act("pause");
    story.until(|status| status["phase"] == "Paused").await;
    let (effects, paused) = (story.effects.len(), story.object());
    story.world.writes();
    for second in 0..300 {
        let mut object = story.object();
        object["metadata"]["annotations"] = json!({ "tool/synced": second.to_string() });
        object["metadata"]["labels"] = json!({ "app": "f" });
        story.put(object);
        story.turn().await;
    }
    assert_eq!(story.world.writes(), Vec::<String>::new());
    assert_eq!(story.object()["status"], paused["status"]);
    assert_eq!(story.effects.last(), Some(&on_trial));
    assert_eq!(story.effects.len(), effects);
}

/// HK-3: the rest of the status is derived from the record and written again; traffic does not follow it.
#[tokio::test]
async fn an_edited_status_is_written_again_and_moves_no_traffic() {
    let mut story = Story::begin(None);
    story.first_version().await;
    let stranger = json!({ "revision": "f-0123456789" });
    let edits: [(&str, Value); 6] = [
        ("observedGeneration", json!(99)),
        ("phase", json!("RolledBack")),
        (
            "traffic",
            json!([{ "revision": "f-0123456789", "weight": 10_000 }]),
        ),
        ("stable", stranger.clone()),
        ("candidate", stranger),
        ("conditions", json!([])),
    ];
    let comparable = |status: &Value, field: &str| match field {
        "stable" | "candidate" => status[field]["revision"].clone(),
        "conditions" => json!(status[field].as_array().map(Vec::len)),
        _ => status[field].clone(),
    };
    let (before, effects) = (story.object()["status"].clone(), story.effects.clone());
    for (field, value) in &edits {
        let mut object = story.object();
        object["status"][*field] = value.clone();
        story.put(object);
        // one that has written nothing yet is not paced
        story.succeed();
        story.turn().await;
        let after = &story.object()["status"];
        assert_eq!(
            comparable(after, field),
            comparable(&before, field),
            "{field}"
        );
    }
    assert_eq!(story.effects, effects);

    // in a rollout the next write puts it right
    let mut story = Story::begin(None);
    story.second_on_trial().await;
    let effects = story.effects.clone();
    let candidate = story.object()["status"]["candidate"].clone();
    let mut object = story.object();
    for (field, value) in edits {
        object["status"][field] = value;
    }
    story.put(object);
    story.turn().await;
    story.turn().await;
    assert_eq!(story.effects, effects);
    let mut object = story.object();
    object["metadata"]["annotations"] = json!({ "selvage.dev/pause": candidate["revision"] });
    story.put(object);
    story.until(|status| status["phase"] == "Paused").await;
    let after = story.object()["status"].clone();
    assert_eq!(after["observedGeneration"], 2);
    assert_eq!(after["candidate"]["revision"], candidate["revision"]);
    assert_eq!(after["traffic"][1]["weight"], 500, "{after:#}");
    assert_eq!(story.effects, effects);
}

/// How a status is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Wiped,
    Garbage,
    OfALaterOperator,
    /// It is that of a backup from when the function was first ready.
    Restored,
}

async fn lost(phase: &str, loss: Loss) {
    let mut story = Story::begin(None);
    story.first_version().await;
    let backup = story.object()["status"].clone();
    let what = format!("{loss:?} in {phase}");
    let mut story = Story::begin(None);
    match phase {
        "Ready" => story.first_version().await,
        "Stepping" => story.second_on_trial().await,
        "Baking" => story.second_bakes().await,
        "Promoted" => story.second_promoted().await,
        "RolledBack" => story = story.whole().await,
        _ => panic!("no such phase"),
    }
    let stable = story.object()["status"]["stable"]["revision"].clone();
    let before = story.effects.len();
    let mut object = story.object();
    match loss {
        Loss::Wiped => object["status"] = json!({}),
        Loss::Garbage => object["status"]["rollout"]["workingRecord"] = json!("2:AAAA"),
        Loss::OfALaterOperator => {
            object["status"]["rollout"]["workingRecord"] = json!("7:what will be")
        }
        Loss::Restored => object["status"] = backup,
    }
    story.put(object);
    // a leader that remembers, and one that does not
    for _ in 0..2 {
        story.until(|_| true).await;
        let after = story.object()["status"].clone();
        assert_eq!(after["stable"]["revision"], stable, "{what}: {after:#}");
        let candidate = after["candidate"]["weight"].as_i64().unwrap_or(0);
        assert_eq!(candidate, 0, "{what}: {after:#}");
        if after["candidate"].is_object() {
            let (status, reason, _) = story.world.condition("f", "Progressing");
            assert_eq!(
                (status.as_str(), reason.as_str()),
                ("True", "StateLost"),
                "{what}"
            );
        }
        story.succeed();
    }
    for (serving, candidate, _) in &story.effects[before..] {
        assert_eq!(
            (json!(serving), candidate.as_str()),
            (stable.clone(), ""),
            "{what}"
        );
    }
}

/// FC-10, FC-14: whenever the status is wiped, damaged, restored from a backup or of a later operator, what was promoted
/// last serves alone and nothing starts by itself.
#[tokio::test]
async fn whenever_the_status_is_lost_stable_serves_alone() {
    for phase in ["Ready", "Stepping", "Baking", "Promoted", "RolledBack"] {
        for loss in [
            Loss::Wiped,
            Loss::Garbage,
            Loss::OfALaterOperator,
            Loss::Restored,
        ] {
            lost(phase, loss).await;
        }
    }
}

/// FC-4: a list from a server that is behind takes nothing from the nodes, and what is decided on it is refused.
#[tokio::test]
async fn an_object_from_the_past_changes_nothing() {
    let mut story = Story::begin(None);
    story.first_version().await;
    let past = story.object();
    story.second_on_trial().await;
    let (present, effects) = (story.object()["status"].clone(), story.effects.clone());
    let key = FunctionKey::new("shop", "f");
    let told = story.world.tables.newest_record(&key).unwrap();
    assert_eq!(told.definitions.len(), 2);
    story.world.writes();

    let functions = &story.world.reconciler.caches.functions;
    functions.put(serde_json::from_value(past).unwrap());
    story.world.reconciler.projector.refresh_all();
    let still = story.world.tables.newest_record(&key).unwrap();
    assert_eq!(
        (still.split, still.definitions),
        (told.split, told.definitions)
    );
    assert_eq!((still.accepted, still.routes), (told.accepted, told.routes));
    story.world.reconcile("f").await;
    assert_eq!(story.object()["status"], present);
    story
        .until(|status| status["rollout"]["state"] == "Stepping")
        .await;
    assert_eq!(story.effects, effects);
}

/// FC-6: of two that believe to lead one loses by the precondition, and nodes keep the greater epoch.
#[tokio::test]
async fn of_two_leaders_the_one_that_was_away_moves_nothing() {
    let mut story = Story::begin(None);
    story.second_on_trial().await;
    // its caches stand still from here on
    let epoch = story.epoch;
    let sleeper = Arc::clone(&story.world.reconciler);
    story.succeed();
    story.act("abort");
    story.until(|status| status["phase"] == "RolledBack").await;
    let (present, effects) = (story.object(), story.effects.clone());

    // the step it was about to take
    story.world.writes();
    let mut object = sleeper
        .caches
        .functions
        .get(&ObjectKey::new("shop", "f"))
        .unwrap();
    let candidate = present["status"]["history"][0]["revision"]
        .as_str()
        .unwrap();
    let action = [("selvage.dev/promote-full".to_owned(), candidate.to_owned())];
    Arc::make_mut(&mut object).metadata.annotations = Some(action.into());
    sleeper.caches.functions.put(Arc::unwrap_or_clone(object));
    reconcile(&sleeper, &ObjectKey::new("shop", "f"), epoch)
        .await
        .unwrap();
    let tried = story.world.writes();
    assert!(
        tried.iter().any(|write| write.ends_with("/f/status")),
        "{tried:?}"
    );
    assert_eq!(story.object()["status"], present["status"]);
    story.until(|status| status["phase"] == "RolledBack").await;
    assert_eq!(story.effects, effects);
}

/// HK-9: of fifty edits in mid-rollout the newest is the candidate in the end, and those between leave little behind.
#[tokio::test]
async fn the_newest_of_many_edits_wins() {
    let mut story = Story::begin(None);
    story.second_on_trial().await;
    let stable = story.object()["status"]["stable"]["revision"].clone();
    for edit in 3..53 {
        story.edit(edit, &edit.to_string());
        story.turn().await;
    }
    story
        .until(|status| status["rollout"]["state"] == "Stepping")
        .await;
    let status = story.object()["status"].clone();
    assert_eq!(status["observedGeneration"], 52);
    assert_eq!(status["stable"]["revision"], stable);
    let candidate = status["candidate"]["revision"].as_str().unwrap();
    let revision = story.world.fake.get(&format!("{REVISIONS}/{candidate}"));
    assert_eq!(revision.unwrap()["spec"]["env"][0]["value"], "52");
    let revisions = story.world.fake.under(REVISIONS).len();
    assert!(revisions <= 14, "{revisions} revisions");
    assert!(status["history"].as_array().unwrap().len() <= 20);
}
