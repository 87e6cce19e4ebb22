//! Removal of what an archive for support must not contain: values of variables and of configuration, bytes of components,
//! and copies of manifests. Pure.

use serde_json::Value;

/// Text in place of a removed value.
const REDACTED: &str = "(redacted)";

/// Removes values from an object of any kind. Names, references and lengths of lists stay.
pub(crate) fn redact(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        // both may contain whole manifests
        metadata.remove("managedFields");
        if let Some(annotations) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.retain(|key, _| key.starts_with(crds::ACTION_PREFIX));
        }
    }
    if let Some(spec) = object.get_mut("spec") {
        redact_runtime(spec);
    }
    object
}

fn redact_runtime(spec: &mut Value) {
    let each = |list: Option<&mut Value>, change: &dyn Fn(&mut Value)| {
        let entries = list.and_then(Value::as_array_mut).into_iter().flatten();
        entries.for_each(change);
    };
    each(spec.get_mut("env"), &|entry| replace(entry, "value"));
    each(spec.get_mut("config"), &|entry| {
        let values = entry.get_mut("values").and_then(Value::as_object_mut);
        for value in values.into_iter().flat_map(|values| values.values_mut()) {
            *value = REDACTED.into();
        }
    });
    replace(spec, "inline");
    if let Some(source) = spec.get_mut("source") {
        replace(source, "inline");
    }
}

fn replace(object: &mut Value, field: &str) {
    if let Some(value) = object.get_mut(field) {
        *value = REDACTED.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_value_stays_and_names_and_references_do() {
        let object = json!({
            "metadata": {
                "name": "checkout",
                "managedFields": [{ "manager": "kubectl" }],
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{\"MODE\":\"hunter2\"}",
                    "note": "hunter2",
                    "selvage.dev/pause": "checkout-1",
                },
            },
            "spec": {
                "source": { "inline": "aHVudGVyMg==" },
                "inline": "aHVudGVyMg==",
                "env": [
                    { "name": "MODE", "value": "hunter2" },
                    { "name": "URL", "valueFrom": { "secretKeyRef": { "name": "db", "key": "url" } } },
                ],
                "config": [{ "values": { "level": "hunter2" } }, { "configMapRef": { "name": "settings" } }],
            },
            "status": { "phase": "Ready" },
        });
        let redacted = redact(object);
        let text = redacted.to_string();
        assert!(
            !text.contains("hunter2") && !text.contains("aHVudGVyMg"),
            "{text}"
        );
        assert_eq!(
            redacted["spec"]["env"][0],
            json!({ "name": "MODE", "value": "(redacted)" })
        );
        assert_eq!(
            redacted["spec"]["env"][1]["valueFrom"]["secretKeyRef"]["name"],
            "db"
        );
        assert_eq!(
            redacted["spec"]["config"][0]["values"],
            json!({ "level": "(redacted)" })
        );
        assert_eq!(
            redacted["metadata"]["annotations"],
            json!({ "selvage.dev/pause": "checkout-1" })
        );
        assert_eq!(redacted["status"]["phase"], "Ready");
    }

    #[test]
    fn objects_of_any_form_are_left_as_they_are() {
        for object in [
            json!(null),
            json!([1]),
            json!({ "spec": 3, "metadata": "x" }),
        ] {
            assert_eq!(redact(object.clone()), object);
        }
    }
}
