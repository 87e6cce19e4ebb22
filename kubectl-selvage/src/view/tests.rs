//! What is shown for every state of a rollout, as snapshots.

use super::*;
use crate::fixtures::{STATES, function, now, snapshot};

fn plain() -> Style {
    Style {
        paint: Paint { on: false },
        width: 120,
        now: now(),
    }
}

#[test]
fn every_state_has_a_tree() {
    for state in STATES {
        let lines = status(&snapshot(state), plain());
        insta::assert_snapshot!(format!("status-{state}"), lines.join("\n"));
    }
}

#[test]
fn every_state_has_an_explanation() {
    for state in STATES {
        let lines = explain(&snapshot(state), plain());
        insta::assert_snapshot!(format!("explain-{state}"), lines.join("\n"));
    }
}

#[test]
fn functions_are_listed_with_a_verdict() {
    let functions: Vec<_> = STATES.into_iter().map(function).collect();
    let lines = list(&functions, true, plain());
    insta::assert_snapshot!(lines.join("\n"));
    assert!(
        !list(&functions, false, plain())
            .concat()
            .contains("NAMESPACE")
    );
}

#[test]
fn outcomes_are_listed_with_their_sentences() {
    let shown = |state: &str| history(&snapshot(state), plain()).join("\n");
    insta::assert_snapshot!(shown("rolled-back"));
    assert_eq!(
        shown("pending"),
        "No rollout of shop/checkout has ended yet."
    );
}

#[test]
fn no_line_is_wider_than_the_terminal_except_for_tables() {
    let narrow = Style {
        width: 60,
        ..plain()
    };
    let lines = status(&snapshot("approval"), narrow);
    let sentence: Vec<_> = lines.iter().filter(|l| l.contains("errors")).collect();
    assert!(
        sentence
            .iter()
            .all(|l| console::measure_text_width(l) <= 60),
        "{lines:#?}"
    );
}

#[test]
fn colours_change_nothing_but_colours() {
    let coloured = Style {
        paint: Paint { on: true },
        ..plain()
    };
    for state in STATES {
        let (plain, coloured) = (
            status(&snapshot(state), plain()),
            status(&snapshot(state), coloured),
        );
        let stripped: Vec<_> = coloured
            .iter()
            .map(|line| console::strip_ansi_codes(line).into_owned())
            .collect();
        assert_eq!(plain, stripped, "{state}");
        assert!(coloured.concat().contains('\x1b'), "{state}");
    }
}

#[test]
fn the_limit_is_that_of_the_settings() {
    let mut shown = snapshot("stepping");
    assert!((shown.limit() - 100.0).abs() < 1e-9);
    let rollout = serde_json::json!({ "analysis": { "falseRollbacks": "5%" } });
    shown.function.spec.rollout = Some(serde_json::from_value(rollout.clone()).unwrap());
    assert!((shown.limit() - 20.0).abs() < 1e-9);
    let named = serde_json::json!({ "policyRef": { "name": "careful" } });
    shown.function.spec.rollout = Some(serde_json::from_value(named).unwrap());
    assert!((shown.limit() - 100.0).abs() < 1e-9);
    let policy = serde_json::json!({ "metadata": { "name": "careful" }, "spec": rollout });
    shown.policy = Some(serde_json::from_value(policy).unwrap());
    assert!((shown.limit() - 20.0).abs() < 1e-9);
}

#[test]
fn texts_of_nodes_cannot_control_the_terminal() {
    let mut shown = snapshot("loading");
    let nodes = shown.function.status.as_mut().unwrap().nodes.as_mut();
    nodes.unwrap().exceptions[0].message = Some("a\x1b[2Jb".to_owned());
    assert!(!status(&shown, plain()).concat().contains('\x1b'));
}
