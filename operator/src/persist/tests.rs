use std::time::Duration;

use jiff::Timestamp;
use operator_core::function::{Function, Revision};
use operator_core::rollout::{
    AnalysisState, DecisionInput, Decisive, EvidenceSummary, Measured, NodesView, Policy,
    RevisionOnNodes, State, Traffic, UnmeasuredKind, decide, traffic_split,
};

use super::*;

fn function(desired: &str) -> Function {
    Function {
        namespace: "shop".into(),
        name: "checkout".into(),
        generation: 1,
        desired: Some(Revision {
            name: desired.into(),
            digest: format!("sha256:{desired}"),
        }),
        abandoned: None,
        refused: None,
        policy: Some(Policy::default()),
        suspend: false,
        actions: Vec::new(),
    }
}

fn input(state: &RolloutState, revisions: &[&str]) -> DecisionInput {
    let on = |name: &&str| RevisionOnNodes {
        revision: (*name).into(),
        loaded: 3,
        ..RevisionOnNodes::default()
    };
    DecisionInput {
        epoch: 1,
        nodes: NodesView {
            desired: 3,
            live: 3,
            revisions: revisions.iter().map(on).collect(),
            token: state.token,
            applied: 3,
            ..NodesView::default()
        },
        measured: Measured::Unavailable {
            kind: UnmeasuredKind::NoAnswer,
            message: "connection refused".into(),
        },
        slot: true,
        traffic: Some(Traffic {
            requests_per_second: None,
        }),
        promoted: None,
        unsupervised_ttl: Duration::from_secs(600),
    }
}

/// Status that a state is written to.
fn written(state: &RolloutState) -> EdgeFunctionStatus {
    let mut rollout = rollout(state);
    rollout.working_record = Some(encode(state).unwrap());
    let status = EdgeFunctionStatus {
        rollout: Some(rollout),
        history: history(state),
        ..EdgeFunctionStatus::default()
    };
    // Round trip through the text that the API server stores.
    serde_json::from_str(&serde_json::to_string(&status).unwrap()).unwrap()
}

#[test]
fn a_candidate_that_no_node_serves_answers_nothing() {
    let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut decided = |state: &RolloutState, desired, loaded: &[&str]| {
        now += Duration::from_secs(1);
        decide(now, &function(desired), state, &input(state, loaded)).state
    };
    let weight = |state: &RolloutState, desired, loaded| {
        let mut state = state.clone();
        (state.nodes.desired, state.nodes.loaded) = (desired, loaded);
        rollout(&state).weight.unwrap()
    };
    let mut state = decided(&RolloutState::default(), "a", &[]);
    assert_eq!(
        weight(&state, 3, 1),
        "100%",
        "on the node that has loaded it"
    );
    assert_eq!(weight(&state, 3, 0), "0%", "no node has loaded it");
    assert_eq!(weight(&state, 0, 0), "0%", "no node should serve it");
    state = decided(&state, "a", &["a"]);
    while state.state != State::Stepping {
        state = decided(&state, "b", &["a", "b"]);
    }
    let first = traffic_split(&state).weight.to_string().replace(' ', "");
    assert_eq!(weight(&state, 3, 3), first);
    assert_ne!(first, "0%");
    assert_eq!(weight(&state, 0, 0), "0%", "no node should serve it");
}

#[test]
fn a_state_comes_back_from_its_status_at_every_decision() {
    let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let (mut kept, mut stored) = (RolloutState::default(), RolloutState::default());
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..400 {
        let desired = function(if round < 20 { "a" } else { "b" });
        let loaded: &[&str] = if (20..30).contains(&round) {
            &["a"]
        } else {
            &["a", "b"]
        };
        kept = decide(now, &desired, &kept, &input(&kept, loaded)).state;
        stored = decide(now, &desired, &stored, &input(&stored, loaded)).state;
        stored = decode(&written(&stored)).unwrap();
        assert_eq!(kept, stored, "round {round}");
        seen.insert(kept.state);
        now = now.checked_add(jiff::SignedDuration::from_secs(1)).unwrap();
    }
    assert!(
        seen.len() >= 3,
        "too quiet a history to prove anything: {seen:?}"
    );
    assert!(
        kept.rollout
            .as_ref()
            .is_some_and(|rollout| rollout.flags.hold.is_some())
    );
}

/// FC-14: a record of a later operator is distinguished from a damaged one, and neither is guessed at.
#[test]
fn a_missing_record_and_one_of_another_version_are_distinguished() {
    let mut status = written(&RolloutState::default());
    assert_eq!(
        decode(&EdgeFunctionStatus::default()),
        Err(RecordError::Absent)
    );
    let mut with = |record: &str| {
        status.rollout.as_mut().unwrap().working_record = Some(record.into());
        decode(&status).unwrap_err()
    };
    assert_eq!(
        with(r#"{"v":7,"state":{"from":"the future"}}"#),
        RecordError::Version(7)
    );
    assert_eq!(with("7:what will be"), RecordError::Version(7));
    assert!(matches!(with("2:%"), RecordError::Damaged(_)));
    assert!(matches!(with("2:AAAA"), RecordError::Damaged(_)));
    assert!(matches!(with("{"), RecordError::Damaged(_)));
    assert!(matches!(
        with(r#"{"v":1,"state":5}"#),
        RecordError::Damaged(_)
    ));
}

/// FC-10: the last promoted revision is found without the status.
#[test]
fn fc_10_stable_is_recovered_from_the_newest_promotion() {
    let revision = |name: &str, second: Option<i64>| {
        let mut revision = EdgeRevision::new(name, crds::EdgeRevisionSpec::default());
        let at = second.map(|second| time(Timestamp::from_second(second).unwrap()));
        revision.status = Some(crds::EdgeRevisionStatus {
            promoted_at: at,
            ..Default::default()
        });
        revision
    };
    let all = [
        revision("a", Some(10)),
        revision("b", Some(20)),
        revision("c", None),
    ];
    assert_eq!(last_promoted(all.iter()).unwrap().name, "b");
    assert_eq!(last_promoted([].iter()), None);
}

/// FC-13, FC-14: fields of a later operator are ignored, and fields may be missing in a record of an earlier one.
#[test]
fn a_record_of_the_first_version_is_still_read_and_new_fields_may_be_missing_or_unknown() {
    let mut state = serde_json::to_value(in_rollout()).unwrap();
    let rollout = state["rollout"].as_object_mut().unwrap();
    assert!(
        rollout.remove("all_acked_at").is_some(),
        "younger than version 1"
    );
    rollout.insert("of_a_later_operator".into(), serde_json::json!(1));
    let mut status = EdgeFunctionStatus::default();
    status.rollout.get_or_insert_default().working_record =
        Some(serde_json::json!({ "v": 1, "state": state }).to_string());
    let mut expected = in_rollout();
    expected.rollout.as_mut().unwrap().all_acked_at = None;
    assert_eq!(decode(&status).unwrap(), expected);
}

/// FC-13: fields that have another name in the code keep their name in the record, which the operators before and after an
/// upgrade read.
#[test]
fn fields_keep_their_names_in_the_record() {
    let mut state = in_rollout();
    let rollout = state.rollout.as_mut().unwrap();
    let at = rollout.started_at;
    rollout.analysis = Some(AnalysisState {
        state: String::new(),
        evaluations: 1,
        evaluated_at: at,
    });
    state.evidence_summary = Some(EvidenceSummary {
        decisive: Some(Decisive {
            metric: "errors".into(),
            evaluation: 1,
            at,
            ln_e: 5.0,
            ln_limit: 4.6,
            candidate: (11, 11),
            stable: (97, 1),
        }),
        ..EvidenceSummary::default()
    });
    let record = serde_json::to_value(state).unwrap();
    for field in [
        "/figures/looks",
        "/figures/decisive/look",
        "/rollout/analysis/looks",
        "/rollout/flags/asked_since",
        "/rollout/plan/analysis/look_period",
        "/rollout/quiet_looks",
        "/rollout/step_looks",
    ] {
        assert!(record.pointer(field).is_some(), "{field}");
    }
    assert_eq!(record["rollout"]["plan"]["kind"], "Full");
}

#[test]
fn a_record_is_short_enough_to_scroll_past() {
    let state = in_rollout();
    let record = encode(&state).unwrap();
    let plain = serde_json::to_string(&state).unwrap();
    assert!(
        record.len() <= 4096 && record.len() * 3 < plain.len() * 2,
        "{} of {} bytes",
        record.len(),
        plain.len()
    );
}

/// State with a candidate that is not measured yet.
fn in_rollout() -> RolloutState {
    let mut state = RolloutState::default();
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    for desired in ["a", "a", "b", "b"] {
        let input = input(&state, &["a", "b"]);
        state = decide(now, &function(desired), &state, &input).state;
    }
    assert!(state.rollout.is_some());
    state
}
