//! Decisions whose write fails: what nodes received is remembered until it is written, and nothing else is kept from others.

use super::story::Story;
use super::*;

/// Weight of the candidate in the tables of the nodes.
fn weight(world: &World) -> u32 {
    let key = FunctionKey::new("shop", "f");
    world
        .tables
        .newest_record(&key)
        .unwrap()
        .split
        .unwrap()
        .weight
}

fn refuse_status_writes(world: &World, code: u16) {
    world.fake.fail(Box::new(move |method, path| {
        (*method == Method::PATCH && path.ends_with("/f/status")).then_some(code)
    }));
}

/// A candidate is taken out of traffic, the write fails with `code`, and nothing is left that would lead to the same decision.
async fn lowered_and_not_written(code: u16) -> Story {
    let mut story = Story::begin(None);
    story.second_on_trial().await;
    refuse_status_writes(&story.world, code);
    story.act("abort");
    story.turn().await;
    assert_eq!(weight(&story.world), 0, "{code}: nodes receive it at once");
    let mut object = story.object();
    object["metadata"]["annotations"] = json!({});
    story.put(object);
    for _ in 0..3 {
        story.turn().await;
    }
    assert_eq!(story.object()["status"]["rollout"]["state"], "Stepping");
    story
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_nodes_received_is_written_later_whatever_refused_it() {
    for code in [409, 500, 503, 504] {
        let mut story = lowered_and_not_written(code).await;
        story.world.fake.fail(Box::new(|_, _| None));
        story.until(|status| status["phase"] == "RolledBack").await;
        let history = &story.object()["status"]["history"][0];
        assert_eq!(history["outcome"], "Aborted", "{code}");
        assert_eq!(history["finalWeight"], 500, "{code}");
        let (_, _, last) = story.effects.last().unwrap();
        assert_eq!(*last, 0, "{code}: {:?}", story.effects);
        let reported = || {
            let events = story.world.fake.under("/apis/events.k8s.io");
            events
                .iter()
                .filter(|event| event["reason"] == "Aborted")
                .count()
                == 1
        };
        story.world.fake.until(reported).await;
    }
}

/// The next leader does not know why the weight was lowered, and does not raise it.
#[tokio::test(start_paused = true)]
async fn a_rollback_that_was_never_written_is_not_undone_by_the_next_leader() {
    let mut story = lowered_and_not_written(500).await;
    story.succeed();
    story.world.fake.fail(Box::new(|_, _| None));
    story
        .until(|status| status["rollout"]["state"] == "Queued")
        .await;
    let (status, reason, _) = story.world.condition("f", "Progressing");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "StateLost"));
    let (_, _, last) = story.effects.last().unwrap();
    assert_eq!(*last, 0, "{:?}", story.effects);
}

/// Reports of one node that has loaded everything and acts on the present splits of both functions.
fn follow(world: &World, node: &str, names: &[&str]) {
    let mut revisions = Vec::new();
    for name in names {
        let object = world.fake.get(&format!("{FUNCTIONS}/{name}")).unwrap();
        if object["status"].is_null() {
            continue;
        }
        let status = world.status(name);
        let Some(token) = status.rollout.and_then(|rollout| rollout.version) else {
            continue;
        };
        let of = [status.stable, status.candidate].into_iter().flatten();
        revisions.extend(of.map(|role| node_api::v1::RevisionState {
            function: Some((&FunctionKey::new("shop", name)).into()),
            revision: role.revision,
            state: node_api::v1::LoadState::Loaded.into(),
            permanent: false,
            applied: Some(node_api::v1::FencingToken {
                epoch: token.epoch,
                serial: token.serial,
            }),
        }));
    }
    let report = node_api::v1::Report {
        revisions,
        revisions_complete: true,
        ..node_api::v1::Report::default()
    };
    world.reconciler.fleet.report_from(node, report);
}

/// There is one place for rollouts with traffic. A function whose status cannot be written does not keep it.
#[tokio::test(start_paused = true)]
async fn a_function_whose_write_fails_takes_no_place_from_another() {
    let world = World::new();
    world.node("n-1");
    let steps = json!({ "rollout": { "canary": { "steps": [{ "weight": "5%" }] } } });
    for name in ["f", "g"] {
        world.apply(name, "2026-01-01T00:00:00Z", &steps);
    }
    for _ in 0..6 {
        for name in ["f", "g"] {
            world.reconcile(name).await;
            world.catch_up();
            follow(&world, "n-1", &["f", "g"]);
        }
    }
    for name in ["f", "g"] {
        assert!(world.status(name).stable.is_some(), "{name}");
        let mut object = world.fake.get(&format!("{FUNCTIONS}/{name}")).unwrap();
        object["spec"]["env"] = json!([{ "name": "A", "value": "2" }]);
        object["metadata"]["generation"] = json!(2);
        world.fake.put(&format!("{FUNCTIONS}/{name}"), object);
    }
    world.catch_up();
    refuse_status_writes(&world, 500);
    let f = ObjectKey::new("shop", "f");
    for _ in 0..6 {
        assert!(reconcile(&world.reconciler, &f, 3).await.is_err());
        world.reconcile("g").await;
        world.catch_up();
        follow(&world, "n-1", &["f", "g"]);
    }
    let state = world.status("g").rollout.unwrap().state;
    assert_eq!(state, Some(crds::rollout::State::Stepping));
}

/// An Event that the API server has removed since is not reported again by the next leader.
#[tokio::test(start_paused = true)]
async fn old_events_are_not_reported_again_by_the_next_leader() {
    for (age, again) in [(60, true), (7200, false)] {
        let mut story = Story::begin(None);
        story.first_version().await;
        let mut object = story.object();
        let status = serde_json::from_value(object["status"].clone()).unwrap();
        let mut state = crate::persist::decode(&status).unwrap();
        assert!(!state.events.is_empty());
        for event in &mut state.events {
            event.at -= Duration::from_secs(age);
        }
        let record = crate::persist::encode(&state).unwrap();
        object["status"]["rollout"]["workingRecord"] = json!(record);
        story.put(object);
        let events = || story.world.fake.under("/apis/events.k8s.io");
        for event in events() {
            let name = event["metadata"]["name"].as_str().unwrap().to_owned();
            story.world.fake.remove(&format!(
                "/apis/events.k8s.io/v1/namespaces/shop/events/{name}"
            ));
        }
        story.succeed();
        story.turn().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let promoted = |event: &Value| event["reason"] == "Promoted";
        let found = story.world.fake.under("/apis/events.k8s.io");
        assert_eq!(found.iter().any(promoted), again, "{age} s: {found:?}");
    }
}

/// A node that reports a version which no operator has issued resets no function.
#[tokio::test(start_paused = true)]
async fn a_version_from_the_future_resets_nothing() {
    for epoch in [9, 1 << 60] {
        let mut story = Story::begin(None);
        story.second_on_trial().await;
        let before = story.object()["status"]["rollout"]["version"].clone();
        let key = FunctionKey::new("shop", "f");
        let record = story.world.tables.newest_record(&key).unwrap();
        let lie = |revision: &node_api::v1::Definition| node_api::v1::RevisionState {
            function: Some((&key).into()),
            revision: revision.revision.clone(),
            state: node_api::v1::LoadState::Loaded.into(),
            permanent: false,
            applied: Some(node_api::v1::FencingToken {
                epoch,
                serial: 1 << 60,
            }),
        };
        for node in ["n-2", "elsewhere"] {
            let report = node_api::v1::Report {
                revisions: record.definitions.iter().map(lie).collect(),
                revisions_complete: true,
                ..node_api::v1::Report::default()
            };
            story.world.reconciler.fleet.report_from(node, report);
        }
        story.world.reconcile("f").await;
        let status = story.object()["status"].clone();
        assert_eq!(status["rollout"]["state"], "Stepping", "{epoch}");
        assert_eq!(status["rollout"]["version"], before, "{epoch}");
    }
}
