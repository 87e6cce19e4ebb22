//! Checks the objects that the documentation shows against the types. `e2e/tests/manifests.rs` asks a real API server.

use e2e::documented::{Documented, objects, objects_below, objects_of_all_kinds};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Returns what the type `T` says against an object: a field with a wrong value, or one that it does not have.
fn refused<T: DeserializeOwned + Serialize>(object: &Value) -> Option<String> {
    let typed: T = match serde_json::from_value(object.clone()) {
        Ok(typed) => typed,
        Err(error) => return Some(error.to_string()),
    };
    let kept = serde_json::to_value(typed).unwrap();
    lost("", object, &kept)
}

/// Returns the path of the first field that is not the same in `kept`, which may have more.
fn lost(path: &str, written: &Value, kept: &Value) -> Option<String> {
    match (written, kept) {
        (Value::Object(written), Value::Object(_)) => written.iter().find_map(|(key, value)| {
            lost(
                &format!("{path}.{key}"),
                value,
                kept.get(key).unwrap_or(&Value::Null),
            )
        }),
        (Value::Array(written), Value::Array(kept)) if written.len() == kept.len() => {
            let mut pairs = written.iter().zip(kept);
            pairs.find_map(|(written, kept)| lost(&format!("{path}[]"), written, kept))
        }
        _ if written == kept => None,
        _ => Some(format!("no field {path}, or not with {written}")),
    }
}

#[test]
fn documented_objects_have_only_fields_that_exist() {
    let mut wrong = Vec::new();
    for one in objects().unwrap() {
        let refusal = match one.object["kind"].as_str().unwrap() {
            "EdgeFunction" => refused::<crds::EdgeFunction>(&one.object),
            "RolloutPolicy" => refused::<crds::RolloutPolicy>(&one.object),
            kind => Some(format!("{kind} is not written by users")),
        };
        wrong.extend(refusal.map(|refusal| format!("{}: {refusal}", one.origin)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn fields_that_do_not_exist_are_found() {
    let of = |spec: Value| {
        let object = serde_json::json!({ "apiVersion": "selvage.dev/v1alpha1", "kind": "RolloutPolicy", "metadata": { "name": "a" }, "spec": spec });
        refused::<crds::RolloutPolicy>(&object)
    };
    let steps = |step: Value| serde_json::json!({ "canary": { "steps": [step] } });
    assert_eq!(of(steps(serde_json::json!({ "weight": "5%" }))), None);
    for step in [
        serde_json::json!({ "wieght": "5%" }),
        serde_json::json!({ "minRequests": "5" }),
    ] {
        assert!(of(steps(step.clone())).is_some(), "{step}");
    }
}

/// The tests with Argo CD and Flux apply the files of `integrations`, of which the pages show whole objects.
#[test]
fn pages_show_the_objects_of_the_integrations() {
    let of_tools = |all: Vec<Documented>| {
        all.into_iter().filter(|one| {
            let version = one.object["apiVersion"].as_str().unwrap_or_default();
            version.starts_with("argoproj.io/") || version.contains("fluxcd.io/")
        })
    };
    let files: Vec<_> = of_tools(objects_below("integrations").unwrap()).collect();
    let shown: Vec<_> = of_tools(objects_of_all_kinds().unwrap()).collect();
    let other: Vec<_> = shown
        .iter()
        .filter(|one| files.iter().all(|file| file.object != one.object))
        .map(|one| &one.origin)
        .collect();
    assert!(other.is_empty(), "no file of `integrations` has {other:?}");
    let missing: Vec<_> = files
        .iter()
        .filter(|file| shown.iter().all(|one| file.object != one.object))
        .map(|file| &file.origin)
        .collect();
    assert!(missing.is_empty(), "no page shows {missing:?}");
}
