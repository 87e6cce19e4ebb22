//! Tests of the chart with Helm and a real API server: it renders for every kind of installation, the API server
//! accepts every object, typos are refused, pods are as restricted as documented, and it installs, upgrades and
//! uninstalls cleanly.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Cluster, Options, helm},
    selvage::root,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};

const NAMESPACE: &str = "selvage-system";

/// Values of installations that render different objects.
const INSTALLATIONS: &[(&str, &[&str])] = &[
    ("defaults", &[]),
    (
        "a local cluster",
        &[
            "images.pullPolicy=Never",
            "edge.service.nodePort=30080",
            "registries.insecure={10.0.0.1:5000,registry.local:5000}",
            "prometheus.url=http://10.0.0.1:9090",
            "prometheus.scrapeInterval=2s",
            r#"prometheus.selector=namespace="edge"\,pod=~"shim-\\\\d+""#,
        ],
    ),
    (
        "a cloud",
        &[
            "edge.service.type=LoadBalancer",
            "edge.service.loadBalancerClass=example.com/fast",
            "edge.tls.secretNames={shop.example-tls,api-tls}",
            "edge.tls.nodePort=30443",
            "edge.service.annotations.example\\.com/scheme=internet-facing",
            "networkPolicy.enabled=true",
            "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=monitoring",
            "secrets.namespaces={default,kube-public}",
            "images.pullSecrets[0].name=registry",
            "operator.priorityClassName=system-cluster-critical",
            "nodeShim.priorityClassName=system-node-critical",
            "nodeShim.nodeSelector.pool=edge",
            "nodeShim.tolerations[0].operator=Exists",
            "nodeShim.trustedProxies={10.0.0.0/8}",
            "operator.podLabels.team=edge",
            "operator.podAnnotations.note=yes",
        ],
    ),
    (
        "the smallest",
        &[
            "operator.replicas=1",
            "edge.service.type=ClusterIP",
            "crds.install=false",
            "rbac.aggregate=false",
            "apiPriority.enabled=false",
            "nodeShim.nodeApi=https://operator.example:9443",
        ],
    ),
];

/// Values that must be refused, and what the error must name.
const REFUSED: &[(&str, &str)] = &[
    ("operator.replica=3", "replica"),
    ("operator.replicas=many", "replicas"),
    ("edge.service.type=Ingress", "type"),
    ("edge.service.nodePort=70000", "nodePort"),
    ("edge.tls.secretNames={a,a}", "secretNames"),
    ("edge.tls.secretNames={../a}", "secretNames"),
    ("images.operator.reference=operator", "reference"),
    ("images.pullPolicy=Sometimes", "pullPolicy"),
    ("prometheus.url=prometheus:9090", "url"),
    ("prometheus.scrapeInterval=15", "scrapeInterval"),
    ("prometheus.selector=pod", "selector"),
    (r#"prometheus.selector=pod="x" or up"#, "selector"),
    ("registries.insecure={http://a:5000}", "insecure"),
    ("secrets.namespaces={Shop}", "namespaces"),
    ("nodeShim.stateDir=/", "stateDir"),
    ("nodeShim.keyValue.memory=64M", "memory"),
    ("nodeShim.trustedProxies={10.0.0.1}", "trustedProxies"),
    ("nodeShim.drain.graceSeconds=0", "graceSeconds"),
    ("typo=1", "typo"),
];

fn chart() -> PathBuf {
    root().join("charts/selvage")
}

/// Runs Helm without a cluster. Returns its error output on failure.
fn run_helm(arguments: &[&str], settings: &[&str]) -> Result<std::result::Result<String, String>> {
    let mut command = Command::new(helm()?);
    command.args(arguments).arg(chart());
    for setting in settings {
        command.args(["--set", setting]);
    }
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr) + &text(&output.stdout))
    })
}

/// Returns the objects that an installation renders.
fn render(settings: &[&str]) -> Result<Vec<Value>> {
    let arguments = ["template", "selvage", "--namespace", NAMESPACE];
    let text = run_helm(&arguments, settings)?.map_err(anyhow::Error::msg)?;
    text.split("\n---")
        .map(|part| serde_yaml::from_str(part).context("a rendered object is YAML"))
        .filter(|object| !matches!(object, Ok(Value::Null)))
        .collect()
}

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

#[test]
fn values_and_their_schema_name_the_same_keys() -> Result<()> {
    let text = std::fs::read_to_string(chart().join("values.yaml"))?;
    let values: Value = serde_yaml::from_str(&text)?;
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(
        chart().join("values.schema.json"),
    )?)?;
    let keys = |value: &Value| -> BTreeSet<String> {
        value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone())
            .collect()
    };
    let mut known = keys(&schema["properties"]);
    known.remove("global");
    ensure!(
        known == keys(&values),
        "values.yaml and values.schema.json differ"
    );
    for (name, section) in schema["properties"].as_object().unwrap() {
        ensure!(
            keys(&section["properties"]) == keys(&values[name]),
            "they differ in {name}"
        );
    }
    Ok(())
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

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_every_object() -> Result<()> {
    let cluster = control_plane().await?;
    namespace(&cluster.client(), NAMESPACE, "privileged").await?;
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
    // the admission of pods needs the service account of the namespace
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(cluster.client(), "strict");
    let exists = |account: Option<&k8s_openapi::api::core::v1::ServiceAccount>| account.is_some();
    kube::runtime::wait::await_condition(accounts, "default", exists).await?;
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

/// FC-16: an uninstall ends clean.
#[tokio::test(flavor = "multi_thread")]
async fn it_comes_changes_and_goes() -> Result<()> {
    let cluster = control_plane().await?;
    let chart = chart();
    let chart = chart.to_str().context("the path of the chart is text")?;
    let before = leftovers(&cluster)?;
    ensure!(before.is_empty(), "{before:?}");
    let notes = helm_does(
        &cluster,
        &["install", "selvage", chart, "--create-namespace"],
    )?;
    for line in [
        "kubectl get edgefunctions -A",
        "selvage-secrets-reader",
        "prometheus.url",
    ] {
        ensure!(
            notes.contains(line),
            "the notes do not say {line:?}:\n{notes}"
        );
    }

    // a definition that an older release installed is upgraded
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
        chart,
        "--set",
        "operator.replicas=3",
        "--force-conflicts",
    ];
    helm_does(&cluster, &upgrade)?;
    let names = [
        "get",
        "crd",
        "hostclaims.selvage.dev",
        "-o",
        "jsonpath={.spec.names.shortNames}",
    ];
    let names = cluster.kubectl().args(names).output()?.stdout;
    ensure!(names == br#"["hc"]"#, "{}", String::from_utf8_lossy(&names));

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
    install_under_another_name(&cluster, chart)
}
