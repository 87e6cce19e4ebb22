//! The committed definitions are those of the types, and they have the shape that every kind must have.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

fn committed(folder: &str) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder);
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn committed_definitions_are_those_of_the_types() {
    let generated: BTreeMap<_, _> = crds::files().unwrap().into_iter().collect();
    for folder in ["crds/yaml", "charts/selvage/files/crds"] {
        let committed = committed(folder);
        assert_eq!(
            committed.keys().collect::<Vec<_>>(),
            generated.keys().collect::<Vec<_>>(),
            "{folder}: run `make crds`"
        );
        for (name, text) in &generated {
            assert!(
                committed[name] == *text,
                "{folder}/{name} is not what the types say: run `make crds`"
            );
        }
    }
}

#[test]
fn the_page_of_fields_is_that_of_the_types() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fields.md");
    let committed = std::fs::read_to_string(page).unwrap();
    assert!(
        committed == crds::field_reference().unwrap(),
        "docs/fields.md: run `make crds`"
    );
}

/// A reader finds in each table first what can be used, and a field of the status by its whole path.
#[test]
fn tables_of_fields_end_with_those_of_later_versions() {
    let page = crds::field_reference().unwrap();
    let (mut later, mut root, mut tables) = (false, "", 0);
    for line in page.lines() {
        if let Some(part) = line.strip_prefix("| Field of `") {
            root = if part.starts_with("status`") {
                "status."
            } else {
                ""
            };
            (later, tables) = (false, tables + 1);
        } else if let Some(row) = line.strip_prefix("| `") {
            assert!(row.starts_with(root), "{line}");
            let is_later = row.contains("| Not supported yet");
            assert!(is_later || !later, "{line}");
            later = is_later;
        }
    }
    let kinds = crds::all();
    let anchor = page.split_once("](#").unwrap().1;
    assert!(
        anchor.starts_with("rolloutpolicy-rp-namespaced)")
            && page.contains("\n## RolloutPolicy (`rp`, Namespaced)\n"),
        "the link leads to the heading"
    );
    assert!(tables >= kinds.len(), "{tables} tables");
}

#[test]
fn the_page_of_values_is_that_of_the_chart() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let generated = crds::values_reference(&read("charts/selvage/values.yaml")).unwrap();
    assert!(
        read("docs/values.md") == generated,
        "docs/values.md: run `make crds`"
    );
}

/// Calls `visit` with the path of every schema.
fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), child, visit);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(
            &format!("{path}{{}}"),
            &schema["additionalProperties"],
            visit,
        );
    }
}

/// `kubectl explain --recursive` prints the fields without their descriptions, so the description above them has to name those
/// that the operator refuses.
#[test]
fn rollout_settings_name_their_fields_of_later_versions() {
    for (kind, field) in [("EdgeFunction", Some("rollout")), ("RolloutPolicy", None)] {
        let crds = crds::all();
        let crd = crds.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
        let crd = serde_json::to_value(crd).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let settings = field.map_or(spec, |field| &spec["properties"][field]);
        let mut refused: Vec<String> = Vec::new();
        walk("", settings, &mut |path, schema| {
            let text = schema["description"].as_str().unwrap_or_default();
            let is_covered = refused.iter().any(|above| path.starts_with(above));
            if text.starts_with("Not supported yet") && !is_covered {
                refused.push(path.to_owned());
            }
        });
        let refused: Vec<String> = refused
            .iter()
            .map(|path| path.trim_start_matches('.').replace("[]", ""))
            .collect();
        let text = settings["description"].as_str().unwrap();
        let (_, list) = text.split_once("NotYetSupported: ").unwrap();
        let named: Vec<&str> = list
            .trim_end_matches('.')
            .split(", ")
            .map(|name| name.split(' ').next().unwrap())
            .collect();
        assert_eq!(named, refused, "{kind}");
    }
}

/// Returns what `check` finds in the schemas below `spec` and `status` of all kinds.
fn findings(check: impl Fn(&str, &Value) -> Option<&'static str>) -> Vec<String> {
    let mut found = Vec::new();
    for crd in crds::all() {
        let crd = serde_json::to_value(&crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            // kinds without a controller that reports on them have no status
            let Some(properties) = schema["properties"].get(part) else {
                continue;
            };
            walk(
                &format!("{kind}.{part}"),
                properties,
                &mut |path, schema| {
                    if let Some(finding) = check(path, schema) {
                        found.push(format!("{path}: {finding}"));
                    }
                },
            );
        }
    }
    found
}

fn none(found: Vec<String>) {
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// HK-6: every string, list, map and number has a bound.
#[test]
fn everything_is_bounded() {
    none(findings(|_, schema| match schema["type"].as_str()? {
        "string" => (schema["maxLength"].is_null()
            && schema["enum"].is_null()
            && schema["format"] != "date-time")
            .then_some("a text without maxLength"),
        "array" => schema["maxItems"]
            .is_null()
            .then_some("a list without maxItems"),
        "object" => (schema["additionalProperties"].is_object()
            && schema["maxProperties"].is_null())
        .then_some("a map without maxProperties"),
        "integer" => {
            let generation = schema["description"]
                .as_str()
                .is_some_and(|d| d.contains("eneration"));
            if schema["minimum"].is_null() {
                Some("a number without minimum")
            } else {
                (schema["maximum"].is_null() && !generation).then_some("a number without maximum")
            }
        }
        "boolean" => None,
        _ => Some("a type that no field should have"),
    }));
}

#[test]
fn every_list_says_how_it_merges() {
    none(findings(|_, schema| {
        if schema["type"] != "array" {
            return None;
        }
        match schema["x-kubernetes-list-type"].as_str() {
            Some("map") => schema["x-kubernetes-list-map-keys"]
                .is_null()
                .then_some("a map list without keys"),
            Some("atomic" | "set") => None,
            _ => Some("a list without type"),
        }
    }));
}

#[test]
fn every_field_is_described() {
    none(findings(|path, schema| {
        if path.ends_with("[]") || path.ends_with("{}") {
            return None;
        }
        let described = schema["description"]
            .as_str()
            .is_some_and(|d| d.len() > 3 && d.ends_with(['.', ')']));
        (!described).then_some("no description that ends in a dot")
    }));
}

/// A default that the server writes could never change. `/scale`, which an autoscaler reads, needs one: without a value at its
/// path the API server answers with an error. The status needs one because kstatus regards an object without status as done.
#[test]
fn only_the_field_of_scale_and_the_status_are_defaulted_by_the_api_server() {
    let found = findings(|_, schema| (!schema["default"].is_null()).then_some("a default"));
    let expected = ["spec.placement", "spec.placement.replicas", "status"]
        .map(|field| format!("EdgeFunction.{field}: a default"));
    assert_eq!(found, expected);
    let functions = crds::all().into_iter().next().unwrap();
    let functions = serde_json::to_value(functions).unwrap();
    let version = &functions["spec"]["versions"][0];
    let path = version["subresources"]["scale"]["specReplicasPath"].as_str();
    assert_eq!(path, Some(".spec.placement.replicas"));
    let replicas = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["placement"]
        ["properties"]["replicas"];
    assert_eq!(replicas["default"], crds::function::ALL_NODES);
    assert_eq!(replicas["default"].as_f64(), replicas["maximum"].as_f64());
}

/// HK-6: every rule's message names the fix.
#[test]
fn every_rule_names_the_fix() {
    none(findings(|_, schema| {
        let rules = schema["x-kubernetes-validations"].as_array()?;
        rules
            .iter()
            .any(|rule| rule["message"].as_str().is_none_or(str::is_empty))
            .then_some("a rule without message")
    }));
}

#[test]
fn kinds_have_names_and_subresources() {
    let found: Vec<_> = crds::all()
        .iter()
        .map(|crd| {
            let crd = serde_json::to_value(crd).unwrap();
            let names = &crd["spec"]["names"];
            let version = &crd["spec"]["versions"][0];
            let kind = names["kind"].as_str().unwrap();
            let reported = ["EdgeFunction", "EdgeRevision", "EdgeNode"].contains(&kind);
            assert_eq!(
                version["subresources"]["status"].is_object(),
                reported,
                "{kind}: has a status subresource exactly if a status is written"
            );
            format!(
                "{} {} {} {}",
                names["kind"].as_str().unwrap(),
                crd["spec"]["scope"].as_str().unwrap(),
                names["shortNames"][0].as_str().unwrap(),
                names["categories"],
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            r#"EdgeFunction Namespaced ef ["selvage","all"]"#,
            r#"EdgeRevision Namespaced erev ["selvage"]"#,
            r#"RolloutPolicy Namespaced rp ["selvage"]"#,
            r#"EdgeNode Cluster en ["selvage"]"#,
            r#"HostClaim Cluster hc ["selvage"]"#,
        ]
    );
}

#[test]
fn columns_are_those_of_the_manual() {
    let columns = |kind: &str| {
        let crd = crds::all()
            .into_iter()
            .find(|c| c.spec.names.kind == kind)
            .unwrap();
        let columns = crd.spec.versions[0]
            .additional_printer_columns
            .clone()
            .unwrap();
        columns
            .iter()
            .map(|c| {
                if c.priority == Some(1) {
                    format!("({})", c.name)
                } else {
                    c.name.clone()
                }
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        columns("EdgeFunction"),
        "Ready Phase Stable Candidate Weight Nodes Age (Message) (URL) (Digest)"
    );
    assert_eq!(columns("EdgeRevision"), "Function Number Digest Loaded Age");
    assert_eq!(
        columns("EdgeNode"),
        "Ready Shim Functions Region Age (Contact)"
    );
    assert_eq!(columns("HostClaim"), "Host Namespace Age");
}

/// FC-13, HK-7: an object with fields and words of a later version is read.
#[test]
fn unknown_fields_and_words_are_tolerated() {
    let function: crds::EdgeFunction = serde_json::from_value(serde_json::json!({
        "apiVersion": "selvage.dev/v1alpha1",
        "kind": "EdgeFunction",
        "metadata": { "name": "f", "namespace": "d" },
        "spec": {
            "source": { "image": "r.example/f:1", "mirror": "later" },
            "routes": [{ "hosts": ["f.example"], "weight": 1 }],
            "rollout": { "strategy": "Quantum", "canary": { "steps": [{ "weight": "5%" }] } }
        },
        "status": { "phase": "Dreaming", "rollout": { "state": "Warping" } }
    }))
    .unwrap();
    let rollout = function.spec.rollout.clone().unwrap();
    assert_eq!(
        rollout.body.strategy,
        Some(crds::rollout::Strategy::Unknown)
    );
    assert_eq!(
        rollout.body.canary.unwrap().steps[0].weight.as_deref(),
        Some("5%")
    );
    assert_eq!(
        function.status.unwrap().rollout.unwrap().state,
        Some(crds::rollout::State::Unknown)
    );
}

#[test]
fn what_is_absent_is_not_written() {
    let spec = crds::EdgeFunctionSpec {
        rollout: Some(crds::rollout::FunctionRollout::default()),
        ..Default::default()
    };
    let function = crds::EdgeFunction::new("f", spec);
    let text = serde_json::to_string(&function.spec).unwrap();
    assert_eq!(text, r#"{"source":{},"routes":[],"rollout":{}}"#);
    assert_eq!(
        serde_json::to_string(&crds::EdgeFunctionStatus::default()).unwrap(),
        "{}"
    );
}
