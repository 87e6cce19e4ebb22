//! The CustomResourceDefinitions as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use kube::CustomResourceExt;
use serde_json::json;

use crate::function::ALL_NODES;
use crate::{EdgeFunction, EdgeNode, EdgeRevision, HostClaim, RolloutPolicy};

/// Returns the definition of every kind, in a fixed order.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        EdgeFunction::crd(),
        EdgeRevision::crd(),
        RolloutPolicy::crd(),
        EdgeNode::crd(),
        HostClaim::crd(),
    ];
    for crd in &mut all {
        // An uninstallation finds the definitions by this label.
        let labels = crd.metadata.labels.get_or_insert_default();
        labels.insert("app.kubernetes.io/part-of".to_owned(), "selvage".to_owned());
        for version in &mut crd.spec.versions {
            let root = version
                .schema
                .as_mut()
                .and_then(|s| s.open_api_v3_schema.as_mut());
            if let Some(root) = root {
                finish(root);
                repeat_unsupported(root);
                default_replicas(root);
                default_status(root);
                let status = root.properties.as_mut().and_then(|p| p.get_mut("status"));
                if let Some(status) = status {
                    without_rules(status);
                }
            }
        }
    }
    all
}

/// Returns all definitions as one YAML stream for `kubectl apply -f -`.
///
/// # Errors
/// Fails when a definition cannot be written as YAML.
pub fn to_yaml() -> Result<String, serde_yaml::Error> {
    let mut out = String::new();
    for crd in all() {
        out.push_str("---\n");
        out.push_str(&serde_yaml::to_string(&crd)?);
    }
    Ok(out)
}

/// Returns the name and content of one file per kind, as committed in `crds/yaml`.
///
/// # Errors
/// Fails when a definition cannot be written as YAML.
pub fn files() -> Result<Vec<(String, String)>, serde_yaml::Error> {
    all()
        .iter()
        .map(|crd| {
            Ok((
                format!("{}.yaml", crd.spec.names.plural),
                serde_yaml::to_string(crd)?,
            ))
        })
        .collect()
}

/// Removes what the generator writes but a definition must not contain: `null` as a value of its own (the API server prunes
/// nulls where none are allowed), unknown number formats, and the line breaks of the source, which
/// `kubectl explain` would wrap a second time.
fn finish(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(words) = &mut schema.enum_ {
        words.retain(|word| !word.0.is_null());
    }
    if let Some(description) = &mut schema.description {
        *description = description
            .replace("\n\n", "\u{0}")
            .replace('\n', " ")
            .replace('\u{0}', "\n\n");
    }
    match schema.format.as_deref() {
        Some("uint32" | "uint16" | "uint8") => schema.format = Some("int32".to_owned()),
        Some("uint64" | "uint") => schema.format = Some("int64".to_owned()),
        _ => {}
    }
    if schema.format.as_deref() == Some("int32")
        && schema.maximum.is_some_and(|m| m > f64::from(i32::MAX))
    {
        schema.format = Some("int64".to_owned());
    }
    each_child(schema, finish);
}

/// Start of the description of a field that the operator refuses, because this version does not support it.
const UNSUPPORTED: &str = "Not supported yet";

/// Repeats [`UNSUPPORTED`] at every field below such a field, because `kubectl explain` shows a field without those above
/// it.
fn repeat_unsupported(schema: &mut JSONSchemaProps) {
    let next = if is_unsupported(schema) {
        mark_unsupported
    } else {
        repeat_unsupported
    };
    each_child(schema, next);
}

fn mark_unsupported(schema: &mut JSONSchemaProps) {
    if !is_unsupported(schema)
        && let Some(description) = &mut schema.description
    {
        *description = format!("{UNSUPPORTED}. {description}");
    }
    each_child(schema, mark_unsupported);
}

fn is_unsupported(schema: &JSONSchemaProps) -> bool {
    let description = schema.description.as_deref().unwrap_or_default();
    description.starts_with(UNSUPPORTED)
}

/// Gives `spec.placement.replicas` of an EdgeFunction a value in every object. Without one, the API server answers a read of
/// `/scale` with an error, and an autoscaler cannot work.
fn default_replicas(root: &mut JSONSchemaProps) {
    let spec = property(root, "spec");
    let Some(placement) = spec.and_then(|spec| property(spec, "placement")) else {
        return;
    };
    placement.default = Some(JSON(json!({})));
    if let Some(replicas) = property(placement, "replicas") {
        replicas.default = Some(JSON(json!(ALL_NODES)));
    }
}

/// Gives an EdgeFunction that the operator has not seen yet a status of no generation. Without one, kstatus regards the
/// new object as done, and Flux would not wait for it.
fn default_status(root: &mut JSONSchemaProps) {
    let is_function = property(root, "spec").is_some_and(|spec| property(spec, "routes").is_some());
    let status = property(root, "status").filter(|_| is_function);
    if let Some(status) = status {
        status.default = Some(JSON(json!({ "observedGeneration": -1 })));
    }
}

fn property<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

/// Removes validation rules from the status, which only the operator writes. Bounds stay.
fn without_rules(schema: &mut JSONSchemaProps) {
    schema.x_kubernetes_validations = None;
    each_child(schema, without_rules);
}

fn each_child(schema: &mut JSONSchemaProps, visit: fn(&mut JSONSchemaProps)) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    };
    schema
        .properties
        .iter_mut()
        .flat_map(|p| p.values_mut())
        .for_each(visit);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => visit(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(visit),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        visit(value);
    }
}
