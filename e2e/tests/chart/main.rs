//! Tests of the chart with Helm and a real API server: it renders for every kind of installation, the API server
//! accepts every object, the schemas of older versions have every field, typos are refused, pods are as restricted as
//! documented, and it installs, upgrades and uninstalls cleanly.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod kinds;
mod krew;
mod monitoring;
mod older;
mod published;
mod render;
mod values;
mod versions;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, Options, Registry};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{Api, Client, api::PostParams};
use render::{chart, render, run_helm};
use serde_json::{Value, json};
use values::{INSTALLATIONS, REFUSED};

const NAMESPACE: &str = "selvage-system";

#[test]
fn lint_finds_nothing() -> Result<()> {
    for (name, settings) in INSTALLATIONS {
        let said = run_helm(&["lint", "--strict", "--namespace", NAMESPACE], settings)?;
        let said = said.map_err(|said| anyhow::anyhow!("{name}: {said}"))?;
        ensure!(!said.contains("WARNING"), "{name}: {said}");
    }
    Ok(())
}

#[test]
fn typos_are_refused() -> Result<()> {
    for (setting, names) in REFUSED {
        match run_helm(&["template", "selvage"], &[setting])? {
            Ok(_) => anyhow::bail!("{setting} was taken"),
            Err(said) => ensure!(said.contains(names), "{setting}: {said}"),
        }
    }
    Ok(())
}

/// What the notes say about a setting, and only with it.
const NOTES: [(&str, &str); 10] = [
    (
        "monitoring.podMonitor.enabled=true",
        "the PodMonitor selvage-node-shim",
    ),
    ("monitoring.dashboards.enabled=true", "Grafana dashboards"),
    (
        "edge.httpRoute.enabled=true",
        "of the Gateways gateways/public",
    ),
    (
        "edge.exposure=HostPort",
        "edge.exposure=HostPort), port 8000 and, over TLS, 443.",
    ),
    (
        "edge.exposure=HostNetwork",
        "port 8080 and, over TLS, 9443.",
    ),
    (
        "prometheus.caSecret.name=prometheus-ca",
        "prometheus-access, prometheus-ca",
    ),
    ("page.enabled=true", "service/selvage-page"),
    (
        "page.token.name=page-token",
        "its token is in the Secret page-token",
    ),
    ("crds.install=false", "install them from crds/yaml"),
    ("operator.replicas=1", "With fewer than two operators"),
];

#[test]
fn the_notes_describe_these_values() -> Result<()> {
    let mut seen = BTreeSet::new();
    for (name, settings) in INSTALLATIONS {
        let arguments = [
            "install",
            "selvage",
            "--dry-run=client",
            "--namespace",
            NAMESPACE,
        ];
        let said = run_helm(&arguments, settings)?;
        let said = said.map_err(|said| anyhow::anyhow!("{name}: {said}"))?;
        let (_, notes) = said.split_once("NOTES:").context("there are notes")?;
        for (setting, text) in NOTES {
            let is_set = settings.contains(&setting);
            ensure!(notes.contains(text) == is_set, "{name}, {text:?}: {notes}");
            seen.extend(is_set.then_some(setting));
        }
    }
    ensure!(seen.len() == NOTES.len(), "{seen:?}");
    Ok(())
}

#[test]
fn values_and_their_schema_name_the_same_keys() -> Result<()> {
    let text = std::fs::read_to_string(chart().join("values.yaml"))?;
    let values: Value = serde_yaml::from_str(&text)?;
    let schema = std::fs::read_to_string(chart().join("values.schema.json"))?;
    let mut schema: Value = serde_json::from_str(&schema)?;
    // Helm adds it for charts that contain this one
    let properties = schema["properties"].as_object_mut();
    properties.context("properties")?.remove("global");
    let mut differ = Vec::new();
    same_keys("", &schema, &schema, &values, &mut differ);
    ensure!(
        differ.is_empty(),
        "values.yaml and values.schema.json differ in {differ:?}"
    );
    Ok(())
}

/// Compares the keys of a section and of all sections in it.
fn same_keys(path: &str, root: &Value, schema: &Value, values: &Value, differ: &mut Vec<String>) {
    let reference = schema["$ref"].as_str();
    let schema = reference
        .and_then(|reference| root.pointer(reference.trim_start_matches('#')))
        .unwrap_or(schema);
    let (Some(properties), Some(values)) = (schema["properties"].as_object(), values.as_object())
    else {
        return;
    };
    let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
    if keys(properties) != keys(values) {
        differ.push(path.to_owned());
    }
    for (key, value) in values {
        let path = format!("{path}.{key}");
        let of_key = properties.get(key).unwrap_or(&Value::Null);
        same_keys(&path, root, of_key, value, differ);
    }
}

async fn control_plane() -> Result<Cluster> {
    let options = Options {
        nodes: 0,
        registry: false,
        prometheus: None,
    };
    Cluster::start(&options, &|_, _| {}).await
}

async fn namespace(client: &Client, name: &str, security: &str) -> Result<()> {
    let labels = json!({ "pod-security.kubernetes.io/enforce": security });
    let object = json!({ "metadata": { "name": name, "labels": labels } });
    let api: Api<Namespace> = Api::all(client.clone());
    api.create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    Ok(())
}

/// Waits until the namespace has its service account, which the admission of pods needs.
async fn default_account(cluster: &Cluster, namespace: &str) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), namespace);
    let exists = |account: Option<&ServiceAccount>| account.is_some();
    kube::runtime::wait::await_condition(accounts, "default", exists).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_every_object() -> Result<()> {
    let cluster = control_plane().await?;
    kinds::install(&cluster).await?;
    namespace(&cluster.client(), NAMESPACE, "privileged").await?;
    // the pod of `helm test` uses it
    default_account(&cluster, NAMESPACE).await?;
    for (name, settings) in INSTALLATIONS {
        let file = tempfile::NamedTempFile::new()?;
        let objects = render(settings)?;
        let stream: Vec<String> = objects.iter().map(Value::to_string).collect();
        std::fs::write(file.path(), stream.join("\n---\n"))?;
        let output = cluster
            .kubectl()
            .args([
                "apply",
                "--server-side",
                "--dry-run=server",
                "--validate=strict",
                "-f",
            ])
            .arg(file.path())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name}: {said}");
        ensure!(!said.contains("Warning"), "{name}: {said}");
        let taken = String::from_utf8_lossy(&output.stdout).lines().count();
        ensure!(
            taken == objects.len(),
            "{name}: {taken} of {} objects",
            objects.len()
        );
    }
    restricted_pods(&cluster).await
}

/// Returns the warnings of Pod Security about the pods of a workload in a namespace that enforces `restricted`.
async fn verdict(cluster: &Cluster, kind: &str) -> Result<String> {
    let workload = render(&[])?
        .into_iter()
        .find(|object| object["kind"] == kind);
    let template = workload.context("the workload is rendered")?["spec"]["template"].clone();
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "tried" }, "spec": template["spec"]
    });
    pod["spec"]["serviceAccountName"] = json!("default");
    let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(cluster.client(), "strict");
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let answer = api.create(&params, &serde_json::from_value(pod)?).await;
    Ok(answer
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default())
}

/// The operator satisfies `restricted`. The node-shim does too, except for its folder on the node and the init
/// container that changes the owner of that folder.
async fn restricted_pods(cluster: &Cluster) -> Result<()> {
    namespace(&cluster.client(), "strict", "restricted").await?;
    default_account(cluster, "strict").await?;
    let operator = verdict(cluster, "Deployment").await?;
    ensure!(
        operator.is_empty(),
        "the operator is not restricted: {operator}"
    );
    let shim = verdict(cluster, "DaemonSet").await?;
    for expected in [
        "container \"prepare-state\" must not include \"CHOWN\" in securityContext.capabilities.add",
        "volume \"state\" uses restricted volume type \"hostPath\"",
        "container \"prepare-state\" must not set runAsUser=0",
    ] {
        ensure!(shim.contains(expected), "expected {expected:?} in {shim}");
    }
    ensure!(
        !shim.contains("\"node-shim\""),
        "the serving container is not restricted: {shim}"
    );
    Ok(())
}

/// Returns the names of all objects in the cluster that Helm or Selvage created, as `kind/name`.
fn leftovers(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let kinds = "all,serviceaccounts,secrets,configmaps,roles,rolebindings,poddisruptionbudgets,networkpolicies,leases,\
                 clusterroles,clusterrolebindings,flowschemas,prioritylevelconfigurations,crds";
    let output = cluster
        .kubectl()
        .args([
            "get",
            kinds,
            "-A",
            "-o",
            "name",
            "-l",
            "app.kubernetes.io/managed-by=Helm",
        ])
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = String::from_utf8(output.stdout)?;
    let crds = cluster
        .kubectl()
        .args(["get", "crds", "-o", "name"])
        .output()?;
    Ok(names
        .lines()
        .chain(String::from_utf8(crds.stdout)?.lines())
        .map(str::to_owned)
        .collect())
}

fn helm_does(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let output = cluster
        .helm()?
        .args(arguments)
        .args(["--namespace", NAMESPACE])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm {arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Hands definitions that were kept over to another release, with the command of docs/install.md.
fn install_under_another_name(cluster: &Cluster, chart: &str) -> Result<()> {
    let other = ["install", "edge", chart];
    ensure!(
        helm_does(cluster, &other).is_err(),
        "Helm takes over definitions of another release by itself: the documented command is not needed"
    );
    let adopt = [
        "annotate",
        "crd",
        "-l",
        "app.kubernetes.io/part-of=selvage",
        "--overwrite",
        "meta.helm.sh/release-name=edge",
        &format!("meta.helm.sh/release-namespace={NAMESPACE}"),
    ];
    let adopted = cluster.kubectl().args(adopt).output()?;
    ensure!(
        adopted.status.success(),
        "{}",
        String::from_utf8_lossy(&adopted.stderr)
    );
    helm_does(cluster, &other)?;
    helm_does(cluster, &["uninstall", "edge"])?;
    Ok(())
}

/// Upgrades to the chart that `chart` names, after a definition became like that of an older release.
fn upgrade_over_an_old_definition(cluster: &Cluster, chart: &[&str]) -> Result<()> {
    let old = r#"{"spec":{"names":{"kind":"HostClaim","listKind":"HostClaimList","plural":"hostclaims","singular":"hostclaim","shortNames":["old"]}}}"#;
    let patched = cluster
        .kubectl()
        .args([
            "patch",
            "crd",
            "hostclaims.selvage.dev",
            "--type=merge",
            "-p",
            old,
        ])
        .output()?;
    ensure!(
        patched.status.success(),
        "{}",
        String::from_utf8_lossy(&patched.stderr)
    );
    let upgrade = [
        "upgrade",
        "selvage",
        "--set",
        "operator.replicas=3",
        "--force-conflicts",
    ];
    helm_does(cluster, &[&upgrade, chart].concat())?;
    let names = [
        "get",
        "crd",
        "hostclaims.selvage.dev",
        "-o",
        "jsonpath={.spec.names.shortNames}",
    ];
    let names = cluster.kubectl().args(names).output()?.stdout;
    ensure!(names == br#"["hc"]"#, "{}", String::from_utf8_lossy(&names));
    Ok(())
}

/// FC-16: an uninstall ends clean.
#[tokio::test(flavor = "multi_thread")]
async fn it_comes_changes_and_goes() -> Result<()> {
    let cluster = control_plane().await?;
    let chart = chart();
    let chart = chart.to_str().context("the path of the chart is text")?;
    let before = leftovers(&cluster)?;
    ensure!(before.is_empty(), "{before:?}");
    let registry = Registry::start(cluster.run()).await?;
    let folder = tempfile::tempdir()?;
    let published = published::publish(&registry, folder.path())?;
    let from_registry = published.arguments();
    let install = [
        &["install", "selvage", "--create-namespace"],
        &from_registry[..],
    ]
    .concat();
    let notes = helm_does(&cluster, &install)?;
    for line in [
        "helm test selvage -n selvage-system",
        "kubectl get edgefunctions -A",
        "selvage-secrets-reader",
        "prometheus.url",
    ] {
        ensure!(
            notes.contains(line),
            "the notes do not say {line:?}:\n{notes}"
        );
    }

    upgrade_over_an_old_definition(&cluster, &from_registry)?;

    helm_does(&cluster, &["uninstall", "selvage"])?;
    let after = leftovers(&cluster)?;
    let kept: BTreeSet<_> = [
        "edgefunctions",
        "edgenodes",
        "edgerevisions",
        "hostclaims",
        "rolloutpolicies",
    ]
    .map(|plural| format!("customresourcedefinition.apiextensions.k8s.io/{plural}.selvage.dev"))
    .into();
    let strays: Vec<_> = after.difference(&kept).collect();
    ensure!(strays.is_empty(), "left behind: {strays:?}");
    ensure!(
        after == kept,
        "the definitions, and with them every function, are gone: {after:?}"
    );

    // and installed again over the objects that were kept
    helm_does(&cluster, &["install", "selvage", chart])?;
    helm_does(&cluster, &["uninstall", "selvage"])?;
    older::upgrade_and_roll_back(&cluster, chart)?;
    install_under_another_name(&cluster, chart)
}
