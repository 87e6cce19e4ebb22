use std::time::Duration;

use delivery::rollout::{
    Advance, Fallback, Holdback, LatencyMeasure, Policy, StepWeight, Strategy, Weight,
};

use super::super::tests::{MINIMAL, definition, error, function, messages, texts};
use super::super::{Function, read};
use super::default_policy;

/// Returns the function with `spec.rollout`, and further documents before it.
fn written(before: &str, rollout: &str) -> Function {
    let text = format!(
        "{before}{}",
        function(&format!("{MINIMAL}  rollout: {rollout}\n"))
    );
    read(&texts(&text)).unwrap().functions.remove(0)
}

fn policy(rollout: &str) -> Policy {
    written("", rollout).rollout.policy
}

#[test]
fn every_field_of_a_policy_is_read() {
    let policy = policy(
        "
    canary:
      steps:
        - { weight: Auto, advance: Time, minDuration: 2s, minRequests: 7, deadline: 3m, onDeadline: Rollback, gates: [owner] }
        - { weight: 12.5% }
    bake: { duration: 0s, holdback: 2% }
    revert: { window: 1m, revisions: 0 }
    nodes: { minLoaded: 50% }
    gates: [{ name: owner, at: Step, approval: {} }]
    analysis:
      source: Prometheus
      evaluationInterval: 2s
      falseRollbacks: 2%
      falsePromotions: 3%
      harmBudget: 4%
      errors: { maxIncrease: 5%, maxRatio: '2.5', passIncrease: 6% }
      latency: { maxIncrease: 7%, maxRatio: '3', passIncrease: 8%, floor: 9ms, measure: Full }
      clientErrors: { maxIncrease: 10% }
      slo: { errors: 11%, latency: { within: 300ms, slower: 12% } }
      dispersion: '1.5'
      maxUnknown: 13s
      onUnknown: Rollback",
    );
    let [first, second] = &policy.steps[..] else {
        panic!("{:?}", policy.steps)
    };
    assert_eq!(
        (first.weight, first.advance),
        (StepWeight::Auto, Advance::Time)
    );
    assert_eq!(first.min_duration, Duration::from_secs(2));
    assert_eq!((first.min_requests, first.deadline.as_secs()), (7, 180));
    assert_eq!(first.on_deadline, Fallback::Rollback);
    assert_eq!(second.weight, StepWeight::Fixed(Weight::new(1_250)));
    assert_eq!(second.min_duration, Duration::from_secs(5));
    assert_eq!(policy.bake.holdback, Holdback::Fixed(Weight::percent(2)));
    assert_eq!(policy.bake.duration, Duration::ZERO);
    assert_eq!(
        (policy.revert.window.as_secs(), policy.revert.revisions),
        (60, 0)
    );
    let analysis = &policy.analysis;
    assert_eq!(analysis.evaluation_interval.as_secs(), 2);
    let rates = [
        analysis.false_rollbacks,
        analysis.false_promotions,
        analysis.harm_budget,
        analysis.errors.max_increase,
        analysis.errors.pass_increase,
        analysis.latency.max_increase,
        analysis.latency.pass_increase,
        analysis.client_errors,
        analysis.slo_errors.unwrap(),
        analysis.slo_latency.unwrap().slower,
    ];
    let percent = rates.map(|rate| (rate * 100.0).round());
    assert_eq!(
        percent,
        [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 11.0, 12.0]
    );
    let ratios = [analysis.errors.max_ratio, analysis.latency.max_ratio];
    assert_eq!((ratios, analysis.dispersion), ([2.5, 3.0], Some(1.5)));
    assert_eq!(analysis.latency_floor.as_millis(), 9);
    assert_eq!(analysis.latency_measure, LatencyMeasure::Full);
    assert_eq!(analysis.slo_latency.unwrap().within.as_millis(), 300);
    assert_eq!(analysis.max_unknown.as_secs(), 13);
    assert_eq!(analysis.on_unknown, Fallback::Rollback);
}

#[test]
fn what_is_not_written_has_defaults() {
    assert_eq!(policy("{}"), default_policy());
    assert_eq!(
        policy("{ strategy: AllAtOnce }").strategy,
        Strategy::AllAtOnce
    );
    let ladder = policy("{ canary: { ladder: { first: 1%, factor: 5, max: 50% } } }");
    let weights: Vec<_> = ladder.steps.iter().map(|step| step.weight).collect();
    let fixed = |percent| StepWeight::Fixed(Weight::percent(percent));
    assert_eq!(weights, [1, 5, 25, 50].map(fixed));
    assert_eq!(ladder.steps[0].min_duration, Duration::from_secs(5));
}

#[test]
fn a_policy_of_its_own_object_is_found_by_its_name() {
    let object = "apiVersion: selvage.dev/v1alpha1
kind: RolloutPolicy
metadata: { name: careful }
spec: { canary: { steps: [{ weight: 3% }] }, gates: [{ name: owner, at: Start, approval: {} }] }
---
";
    let named = written(object, "{ policyRef: { name: careful } }").rollout;
    let weight = named.policy.steps[0].weight;
    assert_eq!(weight, StepWeight::Fixed(Weight::percent(3)));
    assert!(named.has_gates && named.missing.is_none());
    let missing = written("", "{ policyRef: { name: other } }").rollout;
    assert_eq!(missing.missing.as_deref(), Some("other"));
}

#[test]
fn wrong_settings_have_the_messages_of_the_definition_and_of_the_operator() {
    let mut found = String::new();
    messages(&definition(), &mut found);
    for (rollout, expected, in_definition) in [
        (
            "{ canary: { steps: [{ weight: 5 % }] } }",
            "write a percentage with at most two decimals, such as 5% or 0.25%, or Auto",
            true,
        ),
        (
            "{ bake: { holdback: 60% } }",
            "write a percentage from 0% to 50%",
            true,
        ),
        (
            "{ analysis: { falseRollbacks: 30% } }",
            "write a percentage from 0.01% to 20%",
            true,
        ),
        (
            "{ analysis: { harmBudget: much } }",
            "write a percentage with at most two decimals, such as 5% or 0.25%",
            true,
        ),
        (
            "{ analysis: { dispersion: '0.5' } }",
            "write a number from 1 to 1000 in quotes, such as \"1.5\", or Auto",
            true,
        ),
        (
            "{ analysis: { errors: { maxRatio: '200' } } }",
            "write a number from 1 to 100 in quotes, such as \"1.5\"",
            true,
        ),
        (
            "{ canary: { steps: [{ weight: 5% }, { weight: 5% }] } }",
            "weights of steps must rise strictly: sort them and remove duplicates",
            true,
        ),
        (
            "{ canary: { steps: [{ weight: 5% }, { weight: Auto }] } }",
            "Auto is allowed for the first weight only",
            true,
        ),
        (
            "{ canary: { steps: [{ minDuration: 1s }] } }",
            "a step has exactly one of weight and shadow",
            true,
        ),
        (
            "{ canary: { steps: [{ weight: 5% }], ladder: { first: 1%, factor: 2, max: 2% } } }",
            "write steps or ladder, not both",
            true,
        ),
        (
            "{ strategy: AllAtOnce, canary: { steps: [{ weight: 5% }] } }",
            "canary belongs to strategy Canary: set strategy: Canary or remove canary",
            true,
        ),
        (
            "{ policyRef: { name: p }, strategy: Canary }",
            "write policyRef or the fields themselves, not both: remove policyRef or all other fields",
            true,
        ),
        (
            "{ strategy: BlueGreen }",
            "spec.rollout.strategy: strategy BlueGreen is not yet supported by this version",
            false,
        ),
        (
            "{ waves: [{ name: a }] }",
            "spec.rollout.waves: a rollout in waves is not yet supported by this version",
            false,
        ),
    ] {
        let message = error(&function(&format!("{MINIMAL}  rollout: {rollout}\n")));
        assert!(message.contains(expected), "{message}");
        assert!(!in_definition || found.contains(expected), "{expected}");
    }
}

#[test]
fn a_deadline_that_no_step_could_meet_is_refused_as_by_the_operator() {
    let step = "{ weight: 5%, minDuration: 1m, deadline: 30s, onDeadline: Rollback }";
    let rollout = format!("{{ canary: {{ steps: [{step}] }} }}");
    let message = error(&function(&format!("{MINIMAL}  rollout: {rollout}\n")));
    let expected = "spec.rollout.canary.steps[0].deadline: \"30s\": every candidate would be rolled back, because the step lasts at least 1m";
    assert!(message.contains(expected), "{message}");
}
