//! Removal of the parts of objects that the operator does not read, before the objects are kept in memory.

use crds::{ACTION_PREFIX, EdgeFunction};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
use kube::Resource;
use serde_json::{Map, Value, json};

/// Copy of the whole object that `kubectl apply` keeps in it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Removes managed fields, which are half of an object.
pub(super) fn strip<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Removes from a function what is larger than the rest of it: the copy of `kubectl apply`, and the managed fields, except
/// those that show which manager wrote an action.
pub(crate) fn slim_function(function: &mut EdgeFunction) {
    let meta = &mut function.metadata;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
    let Some(mut managers) = meta.managed_fields.take() else {
        return;
    };
    managers.retain_mut(|manager| {
        manager.fields_v1 = manager.fields_v1.take().and_then(actions);
        manager.fields_v1.is_some()
    });
    managers.shrink_to_fit();
    meta.managed_fields = Some(managers).filter(|managers| !managers.is_empty());
}

/// The annotations among these fields that request actions.
fn actions(fields: FieldsV1) -> Option<FieldsV1> {
    let annotations = fields.0.pointer("/f:metadata/f:annotations")?;
    let is_action = |name: &str| {
        let name = name.strip_prefix("f:");
        name.is_some_and(|name| name.starts_with(ACTION_PREFIX))
    };
    let names = annotations.as_object()?.keys();
    let actions: Map<String, Value> = names
        .filter(|name| is_action(name))
        .map(|name| (name.clone(), json!({})))
        .collect();
    let kept = json!({ "f:metadata": { "f:annotations": actions } });
    (!actions.is_empty()).then_some(FieldsV1(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_managers_of_actions_are_kept() {
        let object = json!({
            "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction",
            "metadata": {
                "name": "f",
                "annotations": { "a": "b", "selvage.dev/pause": "r", LAST_APPLIED: "{}" },
                "managedFields": [
                    { "manager": "selvage", "fieldsV1": { "f:status": { "f:phase": {} } } },
                    { "manager": "helm", "fieldsV1": { "f:metadata": { "f:annotations": { "f:a": {} } }, "f:spec": {} } },
                    { "manager": "kubectl-annotate", "fieldsV1": { "f:metadata": { "f:annotations": {
                        "f:a": {}, "f:selvage.dev/pause": {},
                    } } } },
                ],
            },
            "spec": { "source": { "image": "i" }, "routes": [] },
        });
        let mut function: EdgeFunction = serde_json::from_value(object).unwrap();
        slim_function(&mut function);
        let meta = serde_json::to_value(&function.metadata).unwrap();
        assert_eq!(
            meta["annotations"],
            json!({ "a": "b", "selvage.dev/pause": "r" })
        );
        let fields = json!({ "f:metadata": { "f:annotations": { "f:selvage.dev/pause": {} } } });
        assert_eq!(
            meta["managedFields"],
            json!([{ "manager": "kubectl-annotate", "fieldsV1": fields }])
        );
        function
            .metadata
            .annotations
            .as_mut()
            .unwrap()
            .remove("selvage.dev/pause");
        function.metadata.managed_fields.as_mut().unwrap().pop();
        slim_function(&mut function);
        assert_eq!(function.metadata.managed_fields, None);
    }
}
