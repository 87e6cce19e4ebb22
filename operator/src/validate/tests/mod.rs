mod fields;

use super::*;

fn function(spec: &str) -> EdgeFunction {
    let yaml = format!(
        "apiVersion: selvage.dev/v1alpha1\nkind: EdgeFunction\nmetadata: {{ name: f, namespace: shop }}\nspec:\n{spec}"
    );
    serde_yaml::from_str(&yaml).unwrap()
}

const MINIMAL: &str = "  source: { image: r.example/a:1 }\n  routes: [{ hosts: [a.example] }]\n";

pub(super) fn violations(more: &str) -> Vec<(&'static str, String)> {
    match validate(&function(&format!("{MINIMAL}{more}")), None) {
        Ok(_) => Vec::new(),
        Err(all) => all
            .into_iter()
            .map(|violation| (violation.reason, violation.field))
            .collect(),
    }
}

#[test]
fn a_minimal_function_gets_every_default() {
    let accepted = validate(&function(MINIMAL), None).unwrap();
    assert_eq!(accepted.policy, Policy::default());
    assert_eq!(accepted.runtime.limits, Limits::default());
    assert_eq!(accepted.history_limit, 10);
    assert!(!accepted.suspend);
}

/// The API server writes the default of `replicas`, which must mean the same as no value.
#[test]
fn the_default_number_of_replicas_is_all_nodes() {
    let placement = |text: &str| {
        let spec = format!("{MINIMAL}  placement: {text}\n");
        validate(&function(&spec), None).unwrap().placement
    };
    let all = validate(&function(MINIMAL), None).unwrap().placement;
    assert_eq!(placement("{ replicas: 10000 }"), all);
    assert_eq!(placement("{ replicas: 9999 }").replicas, Some(9_999));
    assert_eq!(placement("{ replicas: 0 }").replicas, Some(0));
}

#[test]
fn every_field_of_a_later_version_is_named() {
    let cases = [
        (
            "  rollout: { strategy: BlueGreen }",
            "spec.rollout.strategy",
        ),
        ("  rollout: { strategy: ABTest }", "spec.rollout.strategy"),
        ("  rollout: { strategy: Shadow }", "spec.rollout.strategy"),
        ("  rollout: { strategy: Teleport }", "spec.rollout.strategy"),
        ("  rollout: { blueGreen: {} }", "spec.rollout.blueGreen"),
        (
            "  rollout: { abTest: { match: [{ cookies: [{ name: a }] }] } }",
            "spec.rollout.abTest",
        ),
        ("  rollout: { shadow: {} }", "spec.rollout.shadow"),
        (
            "  rollout: { affinity: { type: ClientIP } }",
            "spec.rollout.affinity",
        ),
        (
            "  rollout: { waves: [{ name: a, nodeSelector: { a: b } }] }",
            "spec.rollout.waves",
        ),
        (
            "  rollout: { freeze: [{ days: [Fri], from: '16:00', to: '24:00' }] }",
            "spec.rollout.freeze",
        ),
        (
            "  rollout: { loadTest: { rate: 1, requests: [{ method: GET, path: / }] } }",
            "spec.rollout.loadTest",
        ),
        (
            "  rollout: { notify: [{ webhook: { secretRef: { name: a } }, events: [Held] }] }",
            "spec.rollout.notify",
        ),
        (
            "  rollout: { canary: { steps: [{ shadow: 1% }] } }",
            "spec.rollout.canary.steps[0].shadow",
        ),
        (
            "  rollout: { analysis: { checks: [{ name: c, prometheus: { query: up }, goodWhen: 'true' }] } }",
            "spec.rollout.analysis.checks",
        ),
        (
            "  rollout: { revert: { revisions: 2 } }",
            "spec.rollout.revert.revisions",
        ),
    ];
    for (yaml, field) in cases {
        assert_eq!(
            violations(yaml),
            [(reasons::NOT_YET_SUPPORTED, field.to_owned())],
            "{yaml}"
        );
    }
}

/// HK-7: an object stored under an older, looser schema is refused with the names of the wrong fields.
#[test]
fn violations_of_a_stricter_schema_are_named_and_not_fatal() {
    assert_eq!(
        violations("  limits: { memory: lots, cpu: -1s }"),
        [
            (reasons::INVALID_SPEC, "spec.limits.cpu".to_owned()),
            (reasons::INVALID_SPEC, "spec.limits.memory".to_owned()),
        ]
    );
    assert_eq!(
        violations("  rollout: { bake: { duration: soon, holdback: 200% } }").len(),
        2
    );
    let all = function("  source: { image: r.example/a:1 }\n  routes: [{ hosts: ['*'] }]\n");
    assert_eq!(
        validate(&all, None).unwrap_err()[0].reason,
        reasons::POLICY_VIOLATION
    );
}

/// Settings with which no rollout could pass, or no candidate could fail, are refused by name.
#[test]
fn settings_that_no_rollout_could_pass_are_refused() {
    let cases = [
        (
            "analysis: { falseRollbacks: 0% }",
            "analysis.falseRollbacks",
        ),
        (
            "analysis: { falsePromotions: 50% }",
            "analysis.falsePromotions",
        ),
        ("analysis: { harmBudget: 0% }", "analysis.harmBudget"),
        (
            "analysis: { errors: { passIncrease: 0% } }",
            "analysis.errors.passIncrease",
        ),
        (
            "analysis: { latency: { maxRatio: \"0.5\" } }",
            "analysis.latency.maxRatio",
        ),
        ("analysis: { dispersion: \"0\" }", "analysis.dispersion"),
        (
            "analysis: { evaluationInterval: 0s }",
            "analysis.evaluationInterval",
        ),
        ("analysis: { slo: { errors: 0% } }", "analysis.slo.errors"),
        (
            "analysis: { slo: { latency: { within: 30s, slower: 1% } } }",
            "analysis.slo.latency.within",
        ),
        (
            "canary: { steps: [{ weight: 5%, minDuration: 2h, deadline: 1h, onDeadline: Rollback }] }",
            "canary.steps[0].deadline",
        ),
        (
            "analysis: { evaluationInterval: 5m }, canary: { steps: [{ weight: 5%, minDuration: 0s, deadline: 10m, onDeadline: Rollback }] }",
            "canary.steps[0].deadline",
        ),
        ("gates: [{ name: g, at: Step, approval: {} }]", "gates"),
    ];
    for (yaml, field) in cases {
        let found = violations(&format!("  rollout: {{ {yaml} }}"));
        let expected = (reasons::INVALID_SPEC, format!("spec.rollout.{field}"));
        assert!(found.contains(&expected), "{yaml}: {found:?}");
    }
    let fine = "  rollout: { analysis: { slo: { latency: { within: 10s, slower: 0.01% } } }, canary: { steps: [{ weight: 5%, deadline: 1m, onDeadline: Rollback }] } }";
    assert_eq!(violations(fine), []);
}

#[test]
fn the_whole_rollout_body_is_read() {
    let yaml = r#"  rollout:
    canary: { steps: [{ weight: Auto }, { weight: 12.5%, advance: Time, minDuration: 1m, minRequests: 7, deadline: 1h, onDeadline: Rollback, gates: [g] }] }
    bake: { duration: 20s, holdback: 3% }
    nodes: { minLoaded: 50%, loadDeadline: 2m, onLoadDeadline: Rollback }
    revert: { window: 2h, revisions: 0 }
    priority: 0
    gates: [{ name: g, at: Step, approval: {} }]
    analysis: { source: InBand, evaluationInterval: 2s, falseRollbacks: 2%, falsePromotions: 3%, harmBudget: 4%, errors: { maxIncrease: 1%, maxRatio: "2", passIncrease: 5% },
      latency: { measure: Full, floor: 2ms }, clientErrors: { maxIncrease: 6% }, slo: { errors: 1%, latency: { within: 300ms, slower: 2% } }, dispersion: "3.5", maxUnknown: 1m, onUnknown: Rollback }
"#;
    let policy = validate(&function(&format!("{MINIMAL}{yaml}")), None)
        .unwrap()
        .policy;
    insta::assert_debug_snapshot!(policy);
}

#[test]
fn a_missing_policy_and_an_invalid_one_are_distinguished() {
    let named = function(&format!(
        "{MINIMAL}  rollout: {{ policyRef: {{ name: p }} }}\n"
    ));
    assert_eq!(references(&named).policy.as_deref(), Some("p"));
    assert_eq!(
        validate(&named, None).unwrap_err()[0].reason,
        reasons::MISSING_REFERENCE
    );
    let mut policy = RolloutPolicy::default();
    policy.spec.body.strategy = Some(crds::rollout::Strategy::AllAtOnce);
    let read = validate(&named, Some(&policy)).unwrap().policy;
    assert_eq!(read.strategy, operator_core::rollout::Strategy::AllAtOnce);
    policy.spec.body.strategy = Some(crds::rollout::Strategy::Shadow);
    let bad = validate(&named, Some(&policy)).unwrap_err();
    assert_eq!(bad[0].field, "RolloutPolicy p: spec.strategy");
}

#[test]
fn references_are_found() {
    let spec = "  source: { image: r.example/a:1, imagePullSecrets: [{ name: pull }] }
  routes: [{ hosts: [a.example] }]
  env: [{ name: A, valueFrom: { secretKeyRef: { name: s, key: k } } }, { name: B, valueFrom: { configMapKeyRef: { name: c, key: k } } }]
  config: [{ configMapRef: { name: d } }, { values: { a: b } }]
";
    let found = references(&function(spec));
    assert_eq!(
        found.config_maps,
        BTreeSet::from(["c".to_owned(), "d".to_owned()])
    );
    assert_eq!(found.secrets, BTreeSet::from(["s".to_owned()]));
    assert_eq!(found.pull_secrets, ["pull"]);
}

#[test]
fn the_summary_names_eight_and_counts_the_rest() {
    let many: Vec<Violation> = (0..10)
        .map(|n| Violation::later(format!("f{n}"), "x"))
        .collect();
    let (reason, sentence) = summary(&many);
    assert_eq!(reason, reasons::NOT_YET_SUPPORTED);
    assert!(
        sentence.contains("f7") && !sentence.contains("f8") && sentence.ends_with("and 2 more"),
        "{sentence}"
    );
}
