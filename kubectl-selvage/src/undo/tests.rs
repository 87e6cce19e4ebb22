use super::*;
use crate::fixtures::{function, merge, object, revisions};

fn undone(object: &Value, to: Option<&str>) -> Result<Undo, String> {
    let function: EdgeFunction = serde_json::from_value(object.clone()).unwrap();
    undo(object, &function, &revisions(), to)
}

#[test]
fn a_running_or_rejected_rollout_returns_to_stable() {
    for state in ["stepping", "rolled-back", "refused", "held"] {
        let undo = undone(&object(state), None).unwrap();
        assert_eq!(undo.revision, "checkout-51ab90c3de", "{state}");
        assert_eq!(
            undo.changes,
            [
                "source.image: registry.example/shop/checkout:1.4.0 → registry.example/shop/checkout:1.3.9"
            ]
        );
        // everything else stays as it is written
        let mut expected = object(state)["spec"].clone();
        expected["source"]["image"] = "registry.example/shop/checkout:1.3.9".into();
        assert_eq!(undo.spec, expected);
    }
}

#[test]
fn at_rest_the_previous_revision_comes_back_with_its_configuration() {
    let undo = undone(&object("ready"), None).unwrap();
    assert_eq!(undo.revision, "checkout-40de8f1122");
    assert_eq!(
        undo.changes,
        [
            "source.image: registry.example/shop/checkout:1.3.9 → registry.example/shop/checkout:1.3.8",
            "limits: nothing → {\"memory\":\"32Mi\"}",
            "env MODE: changed",
            "env DB_URL: removed",
        ]
    );
    assert_eq!(undo.spec["limits"], json!({ "memory": "32Mi" }));
    assert_eq!(
        undo.spec["env"],
        json!([{ "name": "MODE", "value": "test" }])
    );
    assert_eq!(undo.spec["routes"], object("ready")["spec"]["routes"]);
    // values are not printed
    assert!(!undo.changes.concat().contains("live"));
}

#[test]
fn without_a_previous_revision_the_history_names_it() {
    let mut ready = object("ready");
    merge(
        &mut ready,
        json!({ "status": { "rollout": { "previous": null } } }),
    );
    assert_eq!(
        undone(&ready, None).unwrap_err(),
        "checkout-51ab90c3de is stable, and no revision that was stable before it is kept. Name one: --to-revision REVISION."
    );
    ready["status"]["history"] =
        json!([{ "revision": "checkout-40de8f1122", "attempt": 1, "outcome": "Promoted" }]);
    assert_eq!(
        undone(&ready, None).unwrap().revision,
        "checkout-40de8f1122"
    );
}

#[test]
fn a_revision_is_named_or_numbered() {
    for to in ["checkout-40de8f1122", "1"] {
        let undo = undone(&object("ready"), Some(to)).unwrap();
        assert_eq!(undo.revision, "checkout-40de8f1122");
    }
    assert_eq!(
        undone(&object("ready"), Some("9")).unwrap_err(),
        "9 is not kept. Kept are: checkout-7d4c9e21ab (4), checkout-51ab90c3de (3), checkout-40de8f1122 (1)."
    );
    assert_eq!(
        undone(&object("ready"), Some("3")).unwrap_err(),
        "The spec describes checkout-51ab90c3de already."
    );
    assert!(
        undone(&object("failed"), None)
            .unwrap_err()
            .starts_with("No revision is stable yet.")
    );
}

#[test]
fn an_image_string_of_two_digests_is_written_as_a_digest() {
    let stepping = object("stepping");
    let function = function("stepping");
    let mut revisions = revisions();
    let other = revisions.get_mut("checkout-7d4c9e21ab").unwrap();
    other.spec.image = Some("registry.example/shop/checkout:1.3.9".to_owned());
    let undo = undo(&stepping, &function, &revisions, None).unwrap();
    assert_eq!(
        undo.spec["source"]["image"],
        "registry.example/shop/checkout@sha256:51ab90"
    );
}

#[test]
fn references_stay_while_the_spec_has_them() {
    let mut stepping = object("stepping");
    let reference = json!({ "name": "LEVEL", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "level" } } });
    stepping["spec"]["env"]
        .as_array_mut()
        .unwrap()
        .push(reference.clone());
    stepping["spec"]["config"] = json!([{ "configMapRef": { "name": "settings" } }]);
    let function: EdgeFunction = serde_json::from_value(stepping.clone()).unwrap();
    let mut revisions = revisions();
    let stable = revisions.get_mut("checkout-51ab90c3de").unwrap();
    let copied = json!({ "name": "LEVEL", "value": "debug" });
    stable
        .spec
        .env
        .push(serde_json::from_value(copied).unwrap());
    let whole = json!([{ "values": { "level": "debug" } }]);
    stable.spec.config = serde_json::from_value(whole.clone()).unwrap();
    let hashes = json!([
        { "kind": "ConfigMap", "name": "settings", "key": "level", "hash": "bb" },
        { "kind": "ConfigMap", "name": "settings", "hash": "cc" },
    ]);
    let hashes: Vec<crds::ReferenceHash> = serde_json::from_value(hashes).unwrap();
    stable.spec.references.extend(hashes);
    let kept = undo(&stepping, &function, &revisions, None).unwrap();
    assert_eq!(kept.spec["env"][2], reference);
    assert_eq!(kept.spec["config"], stepping["spec"]["config"]);
    assert_eq!(kept.changes.len(), 1);
    // another revision has other content, so the revision may be a new one
    assert!(
        kept.notes[0].contains("the content of ConfigMap settings may have changed"),
        "{:?}",
        kept.notes
    );

    let mut without = stepping.clone();
    merge(
        &mut without,
        json!({ "spec": { "config": null, "env": [] } }),
    );
    let function: EdgeFunction = serde_json::from_value(without.clone()).unwrap();
    let written = undo(&without, &function, &revisions, None).unwrap();
    assert_eq!(
        written.spec["env"][2],
        json!({ "name": "LEVEL", "value": "debug" })
    );
    assert_eq!(written.spec["config"], whole);
    assert!(
        written.notes[0].contains("to which the spec no longer refers"),
        "{:?}",
        written.notes
    );
}

/// The spec has no field for certificates themselves, so the reference of the revision is written.
#[test]
fn certificates_of_authorities_stay_a_reference() {
    let stepping = object("stepping");
    let function: EdgeFunction = serde_json::from_value(stepping.clone()).unwrap();
    let egress =
        json!({ "allow": ["https://a.example"], "caConfigMapRef": { "name": "company-ca" } });
    let mut revisions = revisions();
    let stable = revisions.get_mut("checkout-51ab90c3de").unwrap();
    stable.spec.egress = serde_json::from_value(egress.clone()).unwrap();
    stable.spec.ca_certificates = Some("-----BEGIN CERTIFICATE-----".to_owned());
    let hash = json!({ "kind": "ConfigMap", "name": "company-ca", "key": "ca.crt", "hash": "dd" });
    stable
        .spec
        .references
        .push(serde_json::from_value(hash).unwrap());
    let undo = undo(&stepping, &function, &revisions, None).unwrap();
    assert_eq!(undo.spec["egress"], egress);
    assert_eq!(undo.spec.get("caCertificates"), None);
    let notes = undo.notes.concat();
    assert!(
        notes.contains("the content of ConfigMap company-ca may have changed"),
        "{notes}"
    );
    assert!(!notes.contains("no longer refers"), "{notes}");
}

#[test]
fn the_tool_that_writes_the_spec_back_is_named() {
    let mut stepping = object("stepping");
    let notes = |object: &Value| undone(object, None).unwrap().notes.concat();
    assert!(notes(&stepping).starts_with("If the manifest is kept in Git"));
    stepping["metadata"]["managedFields"] = json!([{ "manager": "argocd-controller" }]);
    assert!(notes(&stepping).starts_with("Argo CD applies this function"));
    stepping["metadata"]["managedFields"] =
        json!([{ "manager": "kubectl" }, { "manager": "kustomize-controller" }]);
    assert!(notes(&stepping).starts_with("Flux applies this function"));
}

#[test]
fn pull_secrets_of_the_spec_stay_unless_the_revision_had_others() {
    let mut stepping = object("stepping");
    stepping["spec"]["source"]["imagePullSecrets"] = json!([{ "name": "registry" }]);
    let undo = undone(&stepping, None).unwrap();
    assert_eq!(
        undo.spec["source"]["imagePullSecrets"],
        json!([{ "name": "registry" }])
    );
}
