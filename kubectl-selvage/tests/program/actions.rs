//! Actions and `undo`: what is written, and what the program says about it.

use serde_json::{Value, json};

use crate::cluster::{Cluster, object};

/// An operator that records the newest annotation of an action with this result.
fn answers(
    action: &'static str,
    result: &'static str,
    message: &'static str,
) -> crate::fake::Operator {
    Box::new(move |object: &Value| {
        let value = object["metadata"]["annotations"].get(format!("selvage.dev/{action}"))?;
        Some(json!({ "status": { "rollout": { "actions": [{
            "action": action, "value": value, "at": "2026-11-21T13:41:00.000000Z", "result": result, "message": message,
        }] } } }))
    })
}

#[tokio::test]
async fn an_action_is_written_once_and_its_result_is_reported() {
    let cluster = Cluster::with("stepping").await;
    cluster.fake.operator(answers("promote", "Done", ""));
    let run = cluster.run("promote checkout").await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(
        run.out.starts_with("promote: done. Progressing: at 5 %"),
        "{}",
        run.out
    );
    let writes = cluster.fake.writes();
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert!(
        writes[0].query.contains("fieldManager=kubectl-selvage"),
        "{writes:?}"
    );
    let value = writes[0].body["metadata"]["annotations"]["selvage.dev/promote"].as_str();
    assert!(
        value.unwrap().starts_with("checkout-7d4c9e21ab/step-1/"),
        "{value:?}"
    );
    assert!(writes[0].body["metadata"]["resourceVersion"].is_string());
}

#[tokio::test]
async fn two_requests_have_two_values() {
    let cluster = Cluster::with("stepping").await;
    let written = async || {
        let run = cluster
            .run("abort checkout --timeout 0s --field-manager ada")
            .await;
        assert_eq!(run.code, 0, "{run:?}");
        cluster.fake.function()["metadata"]["annotations"]["selvage.dev/abort"].clone()
    };
    let (first, second) = (written().await, written().await);
    assert_ne!(first, second);
    let query = cluster.fake.writes()[0].query.clone();
    assert!(query.contains("fieldManager=ada"), "{query}");
}

#[tokio::test]
async fn an_action_that_the_operator_ignores_ends_with_1() {
    let cluster = Cluster::with("stepping").await;
    cluster
        .fake
        .operator(answers("abort", "Ignored", "the candidate is checkout-2"));
    let run = cluster.run("abort checkout").await;
    assert_eq!(run.code, 1, "{run:?}");
    assert!(
        run.out
            .contains("the operator ignored it: the candidate is checkout-2."),
        "{}",
        run.out
    );
}

#[tokio::test]
async fn an_operator_that_does_not_answer_ends_with_2() {
    let cluster = Cluster::with("stepping").await;
    let run = cluster.run("pause checkout --timeout 1ms").await;
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.out.contains("not handled within 0 s"), "{}", run.out);
    assert_eq!(cluster.fake.writes().len(), 1);
}

#[tokio::test]
async fn an_action_that_would_do_nothing_writes_nothing() {
    let cluster = Cluster::with("ready").await;
    let run = cluster.run("promote checkout").await;
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!(
        run.out,
        "promote: nothing was written. No rollout runs: checkout-51ab90c3de is stable.\n"
    );
    assert!(cluster.fake.writes().is_empty());
}

#[tokio::test]
async fn new_counts_in_between_do_not_stop_an_action() {
    let cluster = Cluster::with("stepping").await;
    cluster.fake.operator(answers("promote", "Done", ""));
    let counts = json!({ "status": { "rollout": { "evidence": { "evaluations": 43 } } } });
    cluster.fake.interfere(counts);
    let run = cluster.run("promote checkout").await;
    assert_eq!(run.code, 0, "{run:?}");
    let statuses: Vec<u16> = cluster
        .fake
        .writes()
        .iter()
        .map(|write| write.status)
        .collect();
    assert_eq!(statuses, [409, 200]);
}

#[tokio::test]
async fn another_state_in_between_stops_an_action() {
    let cluster = Cluster::with("stepping").await;
    cluster
        .fake
        .interfere(json!({ "status": { "rollout": { "state": "Baking", "weight": "99%" } } }));
    let run = cluster.run("promote checkout").await;
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!(
        run.out,
        "promote: nothing was written. The function changed meanwhile: it was Stepping, step 2, at 5%, \
         checkout-7d4c9e21ab, and is Baking, at 99%, checkout-7d4c9e21ab.\n"
    );
    assert_eq!(cluster.fake.writes().len(), 1);
}

#[tokio::test]
async fn undo_writes_the_spec_and_keeps_fields_that_it_does_not_know() {
    let cluster = Cluster::with("rolled-back").await;
    let mut newer = object("rolled-back");
    newer["spec"]["fieldOfANewerVersion"] = json!({ "a": 1 });
    cluster.fake.put(crate::fake::FUNCTION, newer);
    let run = cluster.run("undo checkout --dry-run").await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(cluster.fake.writes().is_empty());
    let run = cluster.run("undo checkout").await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(
        run.out.contains("source.image: registry.example/shop/checkout:1.4.0 → registry.example/shop/checkout:1.3.9"),
        "{}",
        run.out
    );
    let after = cluster.fake.function();
    assert_eq!(
        after["spec"]["source"]["image"],
        "registry.example/shop/checkout:1.3.9"
    );
    assert_eq!(after["spec"]["fieldOfANewerVersion"], json!({ "a": 1 }));
    assert_eq!(after["spec"]["env"], object("stepping")["spec"]["env"]);
    assert_eq!(after["kind"], "EdgeFunction");
}

#[tokio::test]
async fn undo_does_not_overwrite_an_edit() {
    let cluster = Cluster::with("rolled-back").await;
    cluster
        .fake
        .interfere(json!({ "spec": { "suspend": true } }));
    let run = cluster.run("undo checkout").await;
    assert_eq!(run.code, 1, "{run:?}");
    assert!(
        run.out.contains("The function was changed meanwhile"),
        "{}",
        run.out
    );
    assert_eq!(cluster.fake.function()["spec"]["suspend"], true);
}
