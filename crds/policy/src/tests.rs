use crds::rollout::FunctionRollout;
use delivery::rollout::{StepWeight, Weight};
use serde_json::json;

use super::*;

fn policy(name: &str) -> RolloutPolicy {
    let object = json!({
        "apiVersion": "selvage.dev/v1alpha1", "kind": "RolloutPolicy", "metadata": { "name": name },
        "spec": { "canary": { "steps": [{ "weight": "3%" }] } },
    });
    serde_json::from_value(object).unwrap()
}

fn rollout(written: serde_json::Value) -> FunctionRollout {
    serde_json::from_value(written).unwrap()
}

#[test]
fn the_policy_is_that_of_the_function_or_of_the_object_that_it_names() {
    let mut violations = Vec::new();
    assert_eq!(of_function(None, None, &mut violations), Policy::default());
    let own = rollout(json!({ "canary": { "steps": [{ "weight": "7%" }] } }));
    let weight = |policy: Policy| policy.steps[0].weight;
    let found = weight(of_function(
        Some(&own),
        Some(&policy("other")),
        &mut violations,
    ));
    assert_eq!(found, StepWeight::Fixed(Weight::percent(7)));
    let named = rollout(json!({ "policyRef": { "name": "careful" } }));
    let found = weight(of_function(
        Some(&named),
        Some(&policy("careful")),
        &mut violations,
    ));
    assert_eq!(found, StepWeight::Fixed(Weight::percent(3)));
    assert_eq!(violations, []);
    of_function(Some(&named), None, &mut violations);
    let (reason, sentence) = summary(&violations);
    assert_eq!(reason, reasons::MISSING_REFERENCE);
    assert!(
        sentence.contains("\"careful\" does not exist"),
        "{sentence}"
    );
}

#[test]
fn settings_that_no_rollout_could_pass_are_violations() {
    let written = rollout(json!({ "analysis": { "falseRollbacks": "50%" } }));
    let mut violations = Vec::new();
    of_function(Some(&written), None, &mut violations);
    let (_, sentence) = summary(&violations);
    assert_eq!(
        sentence,
        "spec.rollout.analysis.falseRollbacks: \"50%\": must be from 0.01% to 20%"
    );
}
