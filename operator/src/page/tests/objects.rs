//! Objects as the operator writes them.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::watch::Caches;

/// Caches that hold complete lists, which are empty.
pub(super) fn filled() -> Caches {
    let caches = Caches::default();
    caches.functions.fill();
    caches.revisions.fill();
    caches.policies.fill();
    caches.claims.fill();
    caches.edge_nodes.fill();
    caches.nodes.fill();
    caches
}

pub(super) fn now() -> Timestamp {
    "2026-11-21T13:41:00Z".parse().unwrap()
}

/// A function without a rollout.
pub(super) fn ready(namespace: &str, name: &str) -> Value {
    let revision = format!("{name}-51ab90c3de");
    json!({
        "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction",
        "metadata": { "name": name, "namespace": namespace, "resourceVersion": "100", "creationTimestamp": "2026-11-19T13:30:22Z" },
        "spec": {
            "source": { "image": format!("registry.example/{namespace}/{name}:1.3.9") },
            "routes": [{ "hosts": [format!("{name}.example")] }],
        },
        "status": {
            "phase": "Ready",
            "message": format!("{revision} is stable."),
            "urls": [format!("http://{name}.example/")],
            "stable": { "revision": revision },
            "traffic": [{ "revision": revision, "weight": 10_000 }],
            "rollout": { "state": "Idle" },
            "nodes": { "desired": 3, "loaded": 3, "applied": 3, "failed": 0 },
            "history": [{
                "revision": revision, "attempt": 1, "outcome": "Promoted", "startedAt": "2026-11-20T13:10:00.000000Z",
                "finishedAt": "2026-11-20T13:30:22.123456Z", "finalWeight": 10_000,
                "message": format!("{revision} is stable instead of {name}-40de8f1122, promoted after 20 min"),
            }],
        },
    })
}

/// A function in the second of three steps, `seconds` after its start. The candidate is as good as stable.
pub(super) fn stepping(namespace: &str, name: &str, start: Timestamp, seconds: i64) -> Value {
    let at = |seconds: i64| {
        let at = start + SignedDuration::from_secs(seconds);
        at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    };
    let is_first = seconds < 120;
    let (step, weight) = if is_first { (0, 100) } else { (1, 1000) };
    let requests = if is_first {
        seconds * 2
    } else {
        240 + (seconds - 120) * 20
    };
    let errors = requests / 400;
    let wave = (seconds as f64 / 17.0).sin();
    let progress = ((seconds % 120) as f64 / 120.0).min(0.99);
    let mut steps = vec![json!({
        "weight": 100, "startedAt": at(0), "candidate": { "requests": 240, "errors": 0, "clientErrors": 1 },
        "stable": { "requests": 23_760, "errors": 59, "clientErrors": 95 },
    })];
    if !is_first {
        steps[0]["finishedAt"] = json!(at(120));
        steps[0]["passedBy"] = json!("Evidence");
        steps.push(json!({
            "weight": 1000, "startedAt": at(120), "candidate": { "requests": requests - 240, "errors": errors, "clientErrors": 9 },
            "stable": { "requests": 44_000, "errors": 111, "clientErrors": 180 },
        }));
    }
    let mut function = ready(namespace, name);
    let status = json!({
        "phase": "Progressing",
        "message": format!("at {} %: {requests} requests, errors 0.24 % against 0.25 % on stable (tolerance +0.5 pp). About 640 more requests to the next step, {:.0} % of the way.", weight / 100, progress * 100.0),
        "urls": [format!("https://{name}.example/")],
        "stable": { "revision": format!("{name}-51ab90c3de") },
        "candidate": { "revision": format!("{name}-7d4c9e21ab") },
        "traffic": [
            { "revision": format!("{name}-51ab90c3de"), "weight": 10_000 - weight },
            { "revision": format!("{name}-7d4c9e21ab"), "weight": weight },
        ],
        "rollout": {
            "state": "Stepping", "waitingFor": ["Time", "Evidence"], "attempt": 1, "step": step, "weight": format!("{}%", weight / 100),
            "startedAt": at(-12), "stepStartedAt": at(if is_first { 0 } else { 120 }),
            "plan": {
                "kind": "Rollout", "strategy": "Canary", "bake": "10m", "holdback": 100,
                "steps": [{ "weight": 100 }, { "weight": 1000 }, { "weight": 5000 }],
            },
            "evidence": {
                "evaluations": seconds / 5, "evaluatedAt": at(seconds), "source": "Both", "coverage": "100%",
                "candidate": { "requests": requests, "errors": errors, "clientErrors": 10 },
                "stable": { "requests": 67_760, "errors": 170, "clientErrors": 275 },
                "steps": steps,
                "metrics": [
                    metric("errors", 0.2 + 0.1 * wave, 0.0024 + 0.0006 * wave, 0.0025, "+0.5 pp", "0.5"),
                    metric("latency/300ms", 2.0 + 1.6 * wave, 0.013 + 0.002 * wave, 0.011 + 0.0005 * wave, "+0.4 pp", "0.25"),
                    metric("clientErrors", 0.5, 0.0041 - 0.0004 * wave, 0.004, "+5 pp", "0.25"),
                ],
                "pass": { "progress": progress.to_string(), "limitingMetric": "errors", "remainingRequests": 640, "etaSeconds": 40 },
            },
        },
    });
    for (field, value) in status.as_object().unwrap() {
        function["status"][field] = value.clone();
    }
    function
}

/// The same function after a rollback, `seconds` after the start. `evidence` is that against the candidate.
pub(super) fn rolled_back(namespace: &str, name: &str, start: Timestamp, seconds: i64) -> Value {
    let mut function = stepping(namespace, name, start, seconds);
    let at = start + SignedDuration::from_secs(seconds);
    let at = at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let candidate = format!("{name}-7d4c9e21ab");
    let sentence = "rolled back from 10 % after 11 requests in 10 s (ErrorsWorse): 11 of 11 failed, 1 of 97 on stable. Evidence 236 to 1, limit 100 to 1.";
    let status = &mut function["status"];
    status["phase"] = json!("RolledBack");
    status["message"] = json!(format!(
        "{sentence} To retry: kubectl selvage retry {name} -n {namespace}, or: kubectl -n {namespace} annotate ef {name} selvage.dev/retry={candidate} --overwrite"
    ));
    status["candidate"] = Value::Null;
    status["traffic"] = json!([{ "revision": format!("{name}-51ab90c3de"), "weight": 10_000 }]);
    let rollout = &mut status["rollout"];
    rollout["state"] = json!("RolledBack");
    for field in [
        "plan",
        "step",
        "weight",
        "startedAt",
        "stepStartedAt",
        "waitingFor",
        "attempt",
    ] {
        rollout.as_object_mut().unwrap().remove(field);
    }
    rollout["rejected"] = json!({ "revision": candidate, "reason": "ErrorsWorse", "at": at });
    rollout["evidence"]["metrics"][0] = metric("errors", 471.2, 0.61, 0.0025, "+0.5 pp", "0.5");
    rollout["evidence"]["decisive"] = json!({
        "metric": "errors", "evaluation": 42, "at": at, "e": "236", "candidate": "11 of 11", "stable": "1 of 97",
    });
    let steps = rollout["evidence"]["steps"].as_array_mut().unwrap();
    steps.last_mut().unwrap()["finishedAt"] = json!(at);
    let entry = json!({
        "revision": candidate, "attempt": 1, "outcome": "RolledBack", "reason": "ErrorsWorse", "finishedAt": at, "finalWeight": 1000,
        "message": sentence,
    });
    status["history"].as_array_mut().unwrap().insert(0, entry);
    status["conditions"] = json!([{
        "type": "Stalled", "status": "True", "lastTransitionTime": "2026-11-21T13:36:40Z", "reason": "RolledBack", "message": sentence,
    }]);
    function
}

/// The kept revisions of a function.
pub(super) fn revisions(namespace: &str, name: &str) -> Vec<crds::EdgeRevision> {
    let revision = |(hash, number, tag, created): (&str, i64, &str, &str)| {
        serde_json::from_value(json!({
            "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeRevision",
            "metadata": { "name": format!("{name}-{hash}"), "namespace": namespace, "creationTimestamp": created },
            "spec": {
                "function": name, "number": number, "digest": format!("sha256:{hash}"),
                "image": format!("registry.example/{namespace}/{name}:{tag}"),
            },
            "status": { "nodes": { "loaded": 3, "failed": 0 } },
        }))
        .unwrap()
    };
    [
        ("51ab90c3de", 3, "1.3.9", "2026-11-20T13:10:00Z"),
        ("7d4c9e21ab", 4, "1.4.0", "2026-11-21T13:30:22Z"),
    ]
    .map(revision)
    .into()
}

fn metric(
    name: &str,
    evidence: f64,
    candidate: f64,
    stable: f64,
    tolerance: &str,
    share: &str,
) -> Value {
    json!({
        "name": name, "e": format!("{evidence:.4}"), "p": "1", "tolerance": tolerance, "dispersion": "1", "share": share,
        "observed": { "candidate": format!("{candidate:.6}"), "stable": format!("{stable:.6}") },
    })
}

/// A node whose condition `Ready` has this reason. `converged` is whether it has loaded all its functions.
pub(super) fn node(name: &str, reason: &str, converged: bool) -> Value {
    let condition = |kind: &str, status: bool, reason: &str| {
        json!({
            "type": kind, "status": if status { "True" } else { "False" }, "lastTransitionTime": "2026-11-21T13:30:22Z",
            "reason": reason, "message": "",
        })
    };
    let converging = if converged { "Converged" } else { "Loading" };
    json!({
        "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeNode",
        "metadata": { "name": name, "resourceVersion": "100", "creationTimestamp": "2026-11-19T13:30:22Z" },
        "spec": {},
        "status": {
            "shimVersion": "0.1.0", "wasmtimeVersion": "48.0.8", "region": "eu-west-1", "zone": "eu-west-1a",
            "functions": { "desired": 12, "loaded": if converged { 12 } else { 7 }, "failed": 0 },
            "lastContact": "2026-11-21T13:40:22Z",
            "conditions": [condition("Converged", converged, converging), condition("Ready", reason == "Serving", reason)],
        },
    })
}

/// A node that cannot load revisions of four functions.
pub(super) fn node_with_problem(name: &str) -> Value {
    let mut node = node(name, "Serving", false);
    let problem = |number: usize| {
        json!({
            "namespace": "shop", "function": format!("checkout-{number}"), "revision": "checkout-7d4c9e21ab", "reason": "PullFailed",
            "message": "the registry refused access", "since": "2026-11-21T13:40:22Z",
        })
    };
    node["status"]["functions"] = json!({ "desired": 12, "loaded": 11, "failed": 1 });
    node["status"]["exceptions"] = (0..4).map(problem).collect();
    node
}
