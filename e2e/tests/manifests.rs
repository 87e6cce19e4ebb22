//! Tests of the API with a real API server: good manifests are accepted, bad ones are refused with a message that
//! names the fix, and immutable fields cannot be changed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Cluster, Options},
    documented::{self, Documented, Invocation},
    selvage::dist,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams, ValidationDirective},
    core::GroupVersionKind,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// One line of the table of bad manifests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    /// Name of the good object to which the change is applied.
    #[serde(default = "function")]
    of: String,
    /// Change, as a JSON merge patch.
    #[serde(default)]
    change: Value,
    /// Sets a text of a given length at a JSON pointer.
    long: Option<Long>,
    /// Sets a list of equal items at a JSON pointer.
    many: Option<Many>,
    /// Part of the expected error message.
    says: String,
}

#[derive(Deserialize)]
struct Long {
    at: String,
    length: usize,
}

#[derive(Deserialize)]
struct Many {
    at: String,
    count: usize,
    item: Value,
}

fn function() -> String {
    "function".to_owned()
}

fn good_objects() -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        (
            "function",
            json!({
                "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction", "metadata": { "name": "f" },
                "spec": { "source": { "image": "registry.example/shop/checkout:1.4.0" }, "routes": [{ "hosts": ["a.example"] }] }
            }),
        ),
        (
            "policy",
            json!({ "apiVersion": "selvage.dev/v1alpha1", "kind": "RolloutPolicy", "metadata": { "name": "p" }, "spec": {} }),
        ),
        (
            "claim",
            json!({
                "apiVersion": "selvage.dev/v1alpha1", "kind": "HostClaim", "metadata": { "name": "shop.example" },
                "spec": { "host": "shop.example", "namespace": "default" }
            }),
        ),
    ])
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(target) = target.as_object_mut() else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Sets `value` at a path such as `/spec/canary/steps` and creates the objects on the way.
fn put(target: &mut Value, at: &str, value: Value) {
    let patch = at
        .rsplit('/')
        .filter(|k| !k.is_empty())
        .fold(value, |inner, key| json!({ key: inner }));
    merge(target, &patch);
}

fn manifests() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifests"))
}

fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let kind = object["kind"].as_str().unwrap();
    let gvk = GroupVersionKind::gvk("selvage.dev", "v1alpha1", kind);
    match kind {
        "EdgeFunction" => {
            Api::default_namespaced_with(client.clone(), &ApiResource::from_gvk(&gvk))
        }
        "RolloutPolicy" => Api::default_namespaced_with(
            client.clone(),
            &ApiResource::from_gvk_with_plural(&gvk, "rolloutpolicies"),
        ),
        "EdgeRevision" => {
            Api::default_namespaced_with(client.clone(), &ApiResource::from_gvk(&gvk))
        }
        _ => Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk)),
    }
}

/// Runs `kubectl apply --dry-run=server` for a new object. It is strict, so unknown fields are errors.
async fn try_to_create(client: &Client, object: &Value) -> Result<(), String> {
    let url = format!(
        "{}?dryRun=All&fieldValidation=Strict&fieldManager=test",
        api(client, object).resource_url()
    );
    let request = http::Request::post(url)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    match client.request::<Value>(request).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Applies an object like `kubectl apply --server-side --dry-run=server`.
async fn try_to_apply(client: &Client, object: &Value) -> Result<(), String> {
    let params = PatchParams {
        dry_run: true,
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("test")
    };
    let name = object["metadata"]["name"].as_str().unwrap();
    match api(client, object)
        .patch(name, &params, &Patch::Apply(object))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Starts a control plane with the committed definitions.
async fn start() -> Result<Cluster> {
    let options = Options {
        nodes: 0,
        registry: false,
        prometheus: None,
    };
    let cluster = Cluster::start(&options, &|_, _| {}).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client());
    let folder = manifests().join("../../../crds/yaml");
    for entry in fs::read_dir(folder)? {
        let text = fs::read_to_string(entry?.path())?;
        let crd: CustomResourceDefinition = serde_yaml::from_str(&text)?;
        let created = crds.create(&PostParams::default(), &crd).await?;
        let name = created.metadata.name.context("a definition has a name")?;
        let established = kube::runtime::conditions::is_crd_established();
        kube::runtime::wait::await_condition(crds.clone(), &name, established).await?;
        let crd = crds.get(&name).await?;
        let complaint = crd
            .status
            .into_iter()
            .flat_map(|s| s.conditions.unwrap_or_default());
        let complaint: Vec<_> = complaint
            .filter(|c| c.type_ == "NonStructuralSchema")
            .collect();
        ensure!(complaint.is_empty(), "{name}: {complaint:?}");
    }
    Ok(cluster)
}

/// HK-6: the API server refuses every bad manifest of the table with the expected message.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_accepts_good_manifests_and_refuses_bad_ones() -> Result<()> {
    let cluster = start().await?;
    let client = cluster.client();
    let mut wrong = Vec::new();

    for entry in fs::read_dir(manifests().join("good"))? {
        let path = entry?.path();
        let object: Value = serde_yaml::from_str(&fs::read_to_string(&path)?)?;
        let applied = try_to_apply(&client, &object).await;
        if let Err(refusal) = try_to_create(&client, &object).await.and(applied) {
            wrong.push(format!("{} is refused: {refusal}", path.display()));
        }
    }

    let cases: Vec<Case> =
        serde_yaml::from_str(&fs::read_to_string(manifests().join("bad.yaml"))?)?;
    assert!(cases.len() >= 40, "only {} bad manifests", cases.len());
    let good = good_objects();
    for (name, object) in &good {
        try_to_apply(&client, object)
            .await
            .map_err(|e| anyhow::anyhow!("{name}: {e}"))?;
    }
    for case in &cases {
        let mut object = good[case.of.as_str()].clone();
        if !case.change.is_null() {
            merge(&mut object, &case.change);
        }
        if let Some(long) = &case.long {
            put(&mut object, &long.at, json!("a".repeat(long.length)));
        }
        if let Some(many) = &case.many {
            put(
                &mut object,
                &many.at,
                json!(vec![many.item.clone(); many.count]),
            );
        }
        if try_to_apply(&client, &object).await.is_ok() {
            wrong.push(format!("{}: accepted by server-side apply", case.case));
        }
        match try_to_create(&client, &object).await {
            Ok(()) => wrong.push(format!("{}: accepted", case.case)),
            Err(refusal) if !refusal.contains(&case.says) => {
                wrong.push(format!(
                    "{}: expected {:?} in {refusal}",
                    case.case, case.says
                ));
            }
            Err(_) => {}
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );

    documented_objects_are_accepted(&client).await?;
    immutable_specs_never_change(&client).await?;
    scale_changes_replicas(&cluster).await?;
    a_whole_status_comes_back(&cluster).await?;
    explain_reads_like_a_manual(&cluster).await
}

/// The API server accepts every object that the documentation shows, by `kubectl create` and by server-side apply.
async fn documented_objects_are_accepted(client: &Client) -> Result<()> {
    let mut refused = Vec::new();
    for Documented { origin, mut object } in documented::objects()? {
        // the namespaces of the documentation do not exist here
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("namespace");
        }
        let applied = try_to_apply(client, &object).await;
        if let Err(refusal) = try_to_create(client, &object).await.and(applied) {
            refused.push(format!("{origin}: {refusal}"));
        }
    }
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    Ok(())
}

/// The programs know the commands and options of the documentation.
#[test]
fn documented_commands_are_accepted() -> Result<()> {
    let mut refused = Vec::new();
    for (written, program, least) in [
        ("kubectl selvage", "kubectl-selvage", 20),
        ("node-shim", "node-shim", 5),
    ] {
        let invocations = documented::invocations(written)?;
        ensure!(invocations.len() >= least, "{written}: {invocations:?}");
        for Invocation { origin, arguments } in invocations {
            // help is printed as soon as its option is read, after everything before it was accepted
            let program = dist().join(program);
            let mut command = Command::new(&program);
            let ran = command.args(&arguments).arg("--help").output();
            let ran = ran.with_context(|| program.display().to_string())?;
            if !ran.status.success() {
                let error = String::from_utf8_lossy(&ran.stderr);
                refused.push(format!("{origin}: {written} {arguments:?}: {error}"));
            }
        }
    }
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    Ok(())
}

/// Revisions and claims are immutable.
async fn immutable_specs_never_change(client: &Client) -> Result<()> {
    let revision = json!({
        "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeRevision", "metadata": { "name": "f-51ab90c3de" },
        "spec": { "function": "f", "number": 1, "digest": "sha256:00" }
    });
    for (object, change, says) in [
        (
            revision,
            json!({ "spec": { "digest": "sha256:01" } }),
            "an EdgeRevision is immutable",
        ),
        (
            good_objects()["claim"].clone(),
            json!({ "spec": { "namespace": "thief" } }),
            "a HostClaim is immutable",
        ),
    ] {
        let api = api(client, &object);
        api.create(
            &PostParams::default(),
            &serde_json::from_value(object.clone())?,
        )
        .await?;
        let name = object["metadata"]["name"].as_str().context("a name")?;
        let refused = api
            .patch(name, &PatchParams::default(), &Patch::Merge(&change))
            .await;
        let message = refused.err().map(|e| e.to_string()).unwrap_or_default();
        ensure!(message.contains(says), "expected {says:?} in {message:?}");
        let same = api.get(name).await?.data["spec"] == object["spec"];
        ensure!(same, "{name} was changed");
    }
    Ok(())
}

/// `kubectl scale` and an autoscaler find the number of replicas, also when the manifest has none.
async fn scale_changes_replicas(cluster: &Cluster) -> Result<()> {
    let object = good_objects()["function"].clone();
    let functions = api(&cluster.client(), &object);
    functions
        .create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    let scale = functions.get_scale("f").await?;
    let replicas = scale.spec.and_then(|spec| spec.replicas);
    ensure!(replicas == Some(10_000), "all nodes: {replicas:?}");
    kubectl(cluster, &["scale", "edgefunction", "f", "--replicas=3"])?;
    let scaled = functions.get("f").await?.data["spec"].clone();
    ensure!(scaled["placement"] == json!({ "replicas": 3 }), "{scaled}");
    Ok(())
}

/// The API server keeps every field that the types can write, and the columns show a running rollout.
async fn a_whole_status_comes_back(cluster: &Cluster) -> Result<()> {
    let text = fs::read_to_string(manifests().join("status.yaml"))?;
    let written: crds::EdgeFunctionStatus = serde_yaml::from_str(&text)?;
    let object: Value = serde_yaml::from_str(&text)?;
    ensure!(
        serde_json::to_value(&written)? == object,
        "the types lose a field of status.yaml"
    );

    let functions: Api<crds::EdgeFunction> = Api::default_namespaced(cluster.client());
    let patch = json!({ "status": written });
    functions
        .patch_status("f", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    let read = functions.get("f").await?.status.context("a status")?;
    ensure!(
        read == written,
        "the API server lost a field: {}",
        serde_json::to_string(&read)?
    );

    let table = kubectl(cluster, &["get", "ef", "f", "-o", "wide"])?;
    let words: Vec<_> = table
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>())
        .collect();
    ensure!(
        words[0]
            == [
                "NAME",
                "READY",
                "PHASE",
                "STABLE",
                "CANDIDATE",
                "WEIGHT",
                "NODES",
                "AGE",
                "MESSAGE",
                "URL",
                "DIGEST"
            ],
        "{table}"
    );
    let row = [
        "f",
        "False",
        "Progressing",
        "checkout-51ab90c3de",
        "checkout-7d4c9e21ab",
        "5%",
        "2/3",
    ];
    ensure!(words[1][..7] == row, "{table}");
    ensure!(
        table.contains("http://shop.example/checkout") && table.contains("812 requests"),
        "{table}"
    );
    Ok(())
}

/// `kubectl explain` describes every field under its short name, with unit and default.
async fn explain_reads_like_a_manual(cluster: &Cluster) -> Result<()> {
    for (field, parts) in [
        (
            "ef.spec.limits",
            ["Default 64Mi, 64Ki to 4Gi", "Default 100, 1 to 100000"],
        ),
        (
            "ef.spec.rollout",
            ["Canary (default)", "RolloutPolicy of this namespace"],
        ),
        ("rp.spec.canary.steps", ["Hold (default)", "Default 2h"]),
        (
            "erev.spec",
            ["Digest of the component's bytes", "counting up from 1"],
        ),
        ("en.status", ["Version of the node-shim", "ten minutes"]),
        (
            "hc.spec",
            [
                "Host name as functions write it",
                "Namespace that owns the host name",
            ],
        ),
    ] {
        let text = kubectl(cluster, &["explain", field])?;
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            ensure!(
                flat.contains(part),
                "kubectl explain {field} does not contain {part:?}:\n{text}"
            );
        }
    }
    Ok(())
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let output = cluster.kubectl().args(arguments).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl {arguments:?}: {stderr}");
    Ok(String::from_utf8(output.stdout)?)
}
