use super::*;
use crate::fixtures::{function, now};

fn refusal(action: Action, state: &str) -> String {
    request(action, None, &function(state), now()).unwrap_err()
}

fn asked(action: Action, state: &str) -> Request {
    request(action, None, &function(state), now()).unwrap()
}

/// Milliseconds of the fixtures' present.
const TOKEN: &str = "1795268460000";

#[test]
fn a_step_is_named_so_that_no_other_one_ends() {
    let request = asked(Action::Promote, "stepping");
    assert_eq!(request.key(), "selvage.dev/promote");
    assert_eq!(request.value, format!("checkout-7d4c9e21ab/step-1/{TOKEN}"));
    assert_eq!(
        request.effect,
        "ends step 2 of 2 at 5% of checkout-7d4c9e21ab without waiting for evidence, time, gates or holds \
         (812 requests, 1 failed (0.12 %), 62 % of the evidence)"
    );
    let approval = asked(Action::Approve, "approval");
    assert_eq!(
        approval.value,
        format!("checkout-7d4c9e21ab/step-0/{TOKEN}")
    );
    assert_eq!(approval.effect, "approves manager/step-0");
    let baking = asked(Action::Promote, "baking");
    assert_eq!(baking.value, format!("checkout-7d4c9e21ab/{TOKEN}"));
}

#[test]
fn a_repeated_request_has_another_value() {
    let mut used = function("stepping");
    let first = request(Action::Pause, None, &used, now()).unwrap();
    used.metadata.annotations = Some([(first.key(), first.value.clone())].into_iter().collect());
    let second = request(Action::Pause, None, &used, now()).unwrap();
    assert_ne!(first.value, second.value);
    // the annotation was removed, but the operator has handled the value
    let mut handled = function("stepping");
    let record = serde_json::json!({ "action": "pause", "value": first.value, "at": "2026-11-21T13:40:22.000000Z", "result": "Done" });
    if let Some(rollout) = handled.status.as_mut().and_then(|s| s.rollout.as_mut()) {
        rollout
            .actions
            .push(serde_json::from_value(record).unwrap());
    }
    let third = request(Action::Pause, None, &handled, now()).unwrap();
    assert_eq!(third.value, second.value);
    // the same value of another action does not matter
    let other = request(Action::Abort, None, &handled, now()).unwrap();
    assert_eq!(other.value, first.value);
}

#[test]
fn values_fit_into_what_the_operator_compares() {
    let mut long = function("stepping");
    if let Some(status) = &mut long.status {
        let name = "f".repeat(63);
        status.candidate.as_mut().unwrap().revision = name;
        status.rollout.as_mut().unwrap().step = Some(64);
    }
    let request = request(Action::Promote, None, &long, now()).unwrap();
    assert!(request.value.len() <= 128, "{}", request.value.len());
}

#[test]
fn an_action_that_would_do_nothing_is_refused_with_the_reason() {
    for (action, state, reason) in [
        (
            Action::Promote,
            "pending",
            "The operator has not reported on this function yet.",
        ),
        (
            Action::Promote,
            "ready",
            "No rollout runs: checkout-51ab90c3de is stable.",
        ),
        (
            Action::Abort,
            "rolled-back",
            "No rollout runs: checkout-7d4c9e21ab was rejected (ErrorsWorse). The action retry tries it again.",
        ),
        (
            Action::Promote,
            "paused",
            "The rollout is paused. The action resume comes first.",
        ),
        (
            Action::Promote,
            "loading",
            "Nodes are still loading it (1 of 3 have it).",
        ),
        (
            Action::Pause,
            "paused",
            "The rollout is paused already, since 2026-11-21T13:40:22Z by kubectl-annotate.",
        ),
        (Action::Resume, "stepping", "The rollout is not paused."),
        (
            Action::Resume,
            "held",
            "The rollout is not paused. The hold PrometheusUnavailable ends by itself: Prometheus has not answered for 94 s.",
        ),
        (
            Action::Approve,
            "stepping",
            "No approval is needed now; the rollout waits for Time, Evidence.",
        ),
        (
            Action::PromoteFull,
            "baking",
            "The rollout is in the bake already. The action promote ends that.",
        ),
        (Action::Retry, "ready", "Nothing was rolled back."),
        (
            Action::Promote,
            "refused",
            "The spec is not accepted (HostConflict): the host shop.example belongs to the namespace other",
        ),
    ] {
        assert_eq!(refusal(action, state), reason, "{action:?} {state}");
    }
}

#[test]
fn what_an_action_does_is_said_with_figures() {
    for (action, state, effect) in [
        (
            Action::Abort,
            "stepping",
            "sends all requests to checkout-51ab90c3de and rejects checkout-7d4c9e21ab (812 requests, 1 failed (0.12 %), 62 % of the evidence)",
        ),
        (
            Action::Pause,
            "stepping",
            "keeps the weight at 5% until resume; evaluation and rollback continue",
        ),
        (
            Action::Resume,
            "paused",
            "ends the pause; the weight can rise again",
        ),
        (
            Action::Retry,
            "rolled-back",
            "starts another rollout of checkout-7d4c9e21ab, which was rejected 4m ago (ErrorsWorse)",
        ),
        (
            Action::PromoteFull,
            "stepping",
            "gives checkout-7d4c9e21ab 99 % of the requests at once and starts the bake (812 requests, 1 failed (0.12 %), 62 % of the evidence)",
        ),
    ] {
        assert_eq!(asked(action, state).effect, effect, "{action:?} {state}");
    }
}

#[test]
fn a_gate_restricts_an_approval_to_itself() {
    let approval = function("approval");
    let gate = |name| request(Action::Approve, Some(name), &approval, now());
    assert!(gate("manager").is_ok());
    assert!(gate("manager/step-0").is_ok());
    assert_eq!(
        gate("security").unwrap_err(),
        "The rollout does not wait for security, but for manager/step-0."
    );
    let mut two = function("approval");
    if let Some(status) = &mut two.status {
        status.message = Some("Waiting for approval (manager/step-0, security).".to_owned());
    }
    let refused = request(Action::Approve, Some("manager"), &two, now()).unwrap_err();
    assert!(
        refused.starts_with("The rollout also waits for security"),
        "{refused}"
    );
    assert!(request(Action::Approve, None, &two, now()).is_ok());
}

#[test]
fn only_the_record_of_the_same_value_answers_a_request() {
    let mut object = function("stepping");
    let request = asked(Action::Promote, "stepping");
    assert_eq!(handled(&request, &object), None);
    let mut answer = |result: &str| {
        let record = serde_json::json!({ "action": "promote", "value": request.value, "at": "2026-11-21T13:40:22.000000Z", "result": result, "message": "step 1 is not the current one" });
        let rollout = object.status.as_mut().unwrap().rollout.as_mut().unwrap();
        rollout.actions = vec![serde_json::from_value(record).unwrap()];
        handled(&request, &object)
    };
    assert_eq!(answer("Done"), Some(Handled::Done));
    let why = "step 1 is not the current one".to_owned();
    assert_eq!(answer("Ignored"), Some(Handled::Ignored(why)));
}

#[test]
fn new_counts_do_not_change_the_situation_and_a_step_does() {
    let before = function("stepping");
    let mut after = before.clone();
    let status = after.status.as_mut().unwrap();
    let rollout = status.rollout.as_mut().unwrap();
    rollout.evidence = None;
    assert_eq!(situation(&before), situation(&after));
    let rollout = after.status.as_mut().unwrap().rollout.as_mut().unwrap();
    rollout.step = Some(2);
    assert_ne!(situation(&before), situation(&after));
    assert_eq!(
        situation(&before).to_string(),
        "Stepping, step 2, at 5%, checkout-7d4c9e21ab"
    );
}
