//! Every field of the schema either has an effect, and the table names the code that uses it, or is refused by name.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::*;
use super::violations;

/// Every leaf below `spec` that has an effect, and the code that uses it.
const USED: &[(&str, &str)] = &[
    ("callers[].name", "table_projection"),
    ("callers[].namespace", "table_projection"),
    ("config[].configMapRef.name", "revision.rs settle"),
    ("config[].values{}", "revision.rs settle"),
    ("egress.allow[]", "validate/egress.rs"),
    ("egress.caConfigMapRef.key", "revision.rs settle"),
    ("egress.caConfigMapRef.name", "revision.rs settle"),
    ("env[].name", "revision.rs settle"),
    ("env[].value", "revision.rs settle"),
    ("env[].valueFrom.configMapKeyRef.key", "revision.rs settle"),
    ("env[].valueFrom.configMapKeyRef.name", "revision.rs settle"),
    ("env[].valueFrom.secretKeyRef.key", "revision.rs settle"),
    ("env[].valueFrom.secretKeyRef.name", "revision.rs settle"),
    ("instances.reuse.idleTimeout", "table_projection reuse"),
    ("instances.reuse.maxRequests", "table_projection reuse"),
    ("keyValue[].label", "table_projection key_value"),
    (
        "keyValue[].redis.localCacheTTL",
        "table_projection key_value",
    ),
    ("keyValue[].redis.prefix", "table_projection key_value"),
    ("keyValue[].redis.secretRef.name", "revision.rs settle"),
    ("keyValue[].store", "table_projection key_value"),
    ("limits.concurrency", "table_projection limits"),
    ("limits.cpu", "table_projection limits"),
    ("limits.firstByte", "table_projection limits"),
    ("limits.idle", "table_projection limits"),
    ("limits.memory", "table_projection limits"),
    ("limits.queue.length", "table_projection limits"),
    ("limits.queue.timeout", "table_projection limits"),
    ("limits.requestBody", "table_projection limits"),
    ("limits.timeout", "table_projection limits"),
    ("placement.nodeSelector{}", "pick_nodes.rs"),
    ("placement.replicas", "pick_nodes.rs"),
    ("placement.spread", "pick_nodes.rs"),
    ("revisionHistoryLimit", "apply.rs"),
    (
        "rollout.analysis.clientErrors.maxIncrease",
        "core analysis/plan.rs",
    ),
    ("rollout.analysis.dispersion", "core analysis/plan.rs"),
    (
        "rollout.analysis.errors.maxIncrease",
        "core analysis/plan.rs",
    ),
    ("rollout.analysis.errors.maxRatio", "core analysis/plan.rs"),
    (
        "rollout.analysis.errors.passIncrease",
        "core analysis/plan.rs",
    ),
    ("rollout.analysis.falsePromotions", "core analysis/plan.rs"),
    ("rollout.analysis.falseRollbacks", "core analysis/plan.rs"),
    ("rollout.analysis.harmBudget", "core analysis/plan.rs"),
    ("rollout.analysis.latency.floor", "core analysis/history.rs"),
    (
        "rollout.analysis.latency.maxIncrease",
        "core analysis/plan.rs",
    ),
    ("rollout.analysis.latency.maxRatio", "core analysis/plan.rs"),
    ("rollout.analysis.latency.measure", "measure.rs wanted"),
    (
        "rollout.analysis.latency.passIncrease",
        "core analysis/plan.rs",
    ),
    (
        "rollout.analysis.evaluationInterval",
        "core analysis/plan.rs",
    ),
    ("rollout.analysis.maxUnknown", "core rollback.rs"),
    ("rollout.analysis.onUnknown", "core rollback.rs"),
    ("rollout.analysis.slo.errors", "core analysis/plan.rs"),
    (
        "rollout.analysis.slo.latency.slower",
        "core analysis/plan.rs",
    ),
    (
        "rollout.analysis.slo.latency.within",
        "core analysis/plan.rs",
    ),
    ("rollout.analysis.source", "measure.rs samples"),
    ("rollout.bake.duration", "core baking.rs"),
    ("rollout.bake.holdback", "core baking.rs"),
    ("rollout.canary.ladder.factor", "core stepping.rs"),
    ("rollout.canary.ladder.first", "core stepping.rs"),
    ("rollout.canary.ladder.max", "core stepping.rs"),
    ("rollout.canary.steps[].advance", "core stepping.rs"),
    ("rollout.canary.steps[].deadline", "core stepping.rs"),
    ("rollout.canary.steps[].gates[]", "core stepping.rs"),
    ("rollout.canary.steps[].minDuration", "core stepping.rs"),
    ("rollout.canary.steps[].minRequests", "core stepping.rs"),
    ("rollout.canary.steps[].onDeadline", "core stepping.rs"),
    ("rollout.canary.steps[].weight", "core stepping.rs"),
    ("rollout.gates[].approval", "core gates.rs"),
    ("rollout.gates[].at", "core gates.rs"),
    ("rollout.gates[].name", "core gates.rs"),
    ("rollout.nodes.loadDeadline", "core loading.rs"),
    ("rollout.nodes.minLoaded", "core loading.rs"),
    ("rollout.nodes.onLoadDeadline", "core loading.rs"),
    ("rollout.policyRef.name", "desired.rs"),
    ("rollout.revert.revisions", "core desired.rs"),
    ("rollout.revert.window", "core desired.rs"),
    ("rollout.strategy", "core plan.rs"),
    ("routes[].headers[].name", "table_projection route"),
    ("routes[].headers[].type", "table_projection route"),
    ("routes[].headers[].value", "table_projection route"),
    ("routes[].hosts[]", "table_projection route"),
    ("routes[].methods[]", "table_projection route"),
    ("routes[].paths[].type", "table_projection route"),
    ("routes[].paths[].value", "table_projection route"),
    ("routes[].rewrite.prefix", "table_projection route"),
    (
        "routes[].tls.secretRef.name",
        "table_projection certificates",
    ),
    ("source.image", "image.rs"),
    ("source.imagePullSecrets[].name", "image.rs"),
    ("source.inline", "image.rs"),
    ("suspend", "table_projection"),
];

/// Fields of later versions (with all fields below them), a manifest that uses one, and the field that is named.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "rollout.abTest",
        "rollout: { abTest: { match: [{ cookies: [{ name: a }] }] } }",
        "rollout.abTest",
    ),
    (
        "rollout.affinity",
        "rollout: { affinity: { type: ClientIP } }",
        "rollout.affinity",
    ),
    (
        "rollout.analysis.checks",
        "rollout: { analysis: { checks: [{ name: a, prometheus: { query: up }, goodWhen: 'value > 0' }] } }",
        "rollout.analysis.checks",
    ),
    (
        "rollout.blueGreen",
        "rollout: { blueGreen: {} }",
        "rollout.blueGreen",
    ),
    (
        "rollout.canary.steps[].shadow",
        "rollout: { canary: { steps: [{ shadow: 10% }, { weight: 5% }] } }",
        "rollout.canary.steps[0].shadow",
    ),
    (
        "rollout.freeze",
        "rollout: { freeze: [{ days: [Fri], from: '16:00', to: '24:00' }] }",
        "rollout.freeze",
    ),
    (
        "rollout.loadTest",
        "rollout: { loadTest: { rate: 1, requests: [{ method: GET, path: / }] } }",
        "rollout.loadTest",
    ),
    (
        "rollout.notify",
        "rollout: { notify: [{ events: [RolledBack], webhook: { secretRef: { name: s } } }] }",
        "rollout.notify",
    ),
    (
        "rollout.priority",
        "rollout: { priority: 7 }",
        "rollout.priority",
    ),
    (
        "rollout.shadow",
        "rollout: { shadow: {} }",
        "rollout.shadow",
    ),
    (
        "rollout.waves",
        "rollout: { waves: [{ name: pilot, nodeSelector: { zone: a } }] }",
        "rollout.waves",
    ),
    // The field is used, but not all of its values are.
    (
        "rollout.revert.revisions",
        "rollout: { revert: { revisions: 2 } }",
        "rollout.revert.revisions",
    ),
    (
        "rollout.strategy",
        "rollout: { strategy: BlueGreen }",
        "rollout.strategy",
    ),
];

fn leaves(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, below) in properties {
            let dot = if path.is_empty() { "" } else { "." };
            leaves(below, &format!("{path}{dot}{name}"), found);
        }
    } else if schema["items"].is_object() {
        leaves(&schema["items"], &format!("{path}[]"), found);
    } else if schema["additionalProperties"].is_object() {
        leaves(
            &schema["additionalProperties"],
            &format!("{path}{{}}"),
            found,
        );
    } else {
        found.insert(path.to_owned());
    }
}

fn below(leaf: &str, root: &str) -> bool {
    leaf.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', '{']))
}

#[test]
fn every_field_of_the_schema_is_used_or_refused() {
    let mut found = BTreeSet::new();
    for (kind, root) in [("EdgeFunction", ""), ("RolloutPolicy", "rollout")] {
        let all = crds::all();
        let crd = all.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        leaves(&schema["properties"]["spec"], root, &mut found);
    }
    let used: BTreeSet<&str> = USED.iter().map(|(leaf, _)| *leaf).collect();
    let refused = |leaf: &str| REFUSED.iter().any(|(root, ..)| below(leaf, root));
    let unknown: Vec<&String> = found
        .iter()
        .filter(|leaf| !used.contains(leaf.as_str()) && !refused(leaf))
        .collect();
    assert!(unknown.is_empty(), "neither used nor refused: {unknown:?}");
    let gone: Vec<&&str> = used.iter().filter(|leaf| !found.contains(**leaf)).collect();
    assert!(gone.is_empty(), "no longer in the schema: {gone:?}");
}

#[test]
fn refused_fields_are_named() {
    for (_, yaml, field) in REFUSED {
        let found = violations(&format!("  {yaml}"));
        let named = (reasons::NOT_YET_SUPPORTED, format!("spec.{field}"));
        assert!(found.contains(&named), "{yaml}: {found:?}");
    }
}

/// Calls `visit` with the path and description of every field below `schema`.
fn described(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &str)) {
    if schema["items"].is_object() {
        described(&schema["items"], &format!("{path}[]"), visit);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let dot = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{dot}{name}");
        visit(&path, field["description"].as_str().unwrap_or_default());
        described(field, &path, visit);
    }
}

/// `kubectl explain` shows that a field is not supported, before the operator refuses it. It shows a field without those
/// above it, so every field below a refused one repeats that.
#[test]
fn descriptions_of_refused_fields_and_of_no_others_mention_that() {
    let all = crds::all();
    let mut wrong = Vec::new();
    let mut mentioned = BTreeSet::new();
    for (kind, root) in [("EdgeFunction", ""), ("RolloutPolicy", "rollout")] {
        let crd = all.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        described(&schema["properties"]["spec"], root, &mut |path, text| {
            let mentions = text.to_lowercase().contains("not supported yet");
            if mentions {
                mentioned.insert(path.to_owned());
            }
            let refused = REFUSED.iter().any(|(root, ..)| below(path, root));
            if mentions != refused {
                wrong.push(format!("{kind} {path}: {text}"));
            }
        });
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (root, ..) in REFUSED {
        assert!(mentioned.contains(*root), "not in the schema: {root}");
    }
}
