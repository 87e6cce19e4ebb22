//! Definitions of the kinds of other projects of which the chart creates objects, from the Go modules in `e2e/kinds`.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use e2e::{cluster::Cluster, selvage::root};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, api::PostParams};
use serde_json::Value;

/// Folders of definitions, each with its module, and the names of the files in them.
const DEFINITIONS: [(&str, &str, &[&str]); 2] = [
    (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd",
        &[
            "monitoring.coreos.com_podmonitors.yaml",
            "monitoring.coreos.com_prometheusrules.yaml",
            "monitoring.coreos.com_servicemonitors.yaml",
        ],
    ),
    (
        "sigs.k8s.io/gateway-api",
        "config/crd/standard",
        &["gateway.networking.k8s.io_httproutes.yaml"],
    ),
];

/// Returns the folder of a module. The first call downloads it.
fn folder(module: &str) -> Result<PathBuf> {
    let output = Command::new("go")
        .current_dir(root().join("e2e/kinds"))
        .args(["mod", "download", "-json", module])
        .output()
        .context("run go")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "download {module}: {said}");
    let found: Value = serde_json::from_slice(&output.stdout)?;
    let dir = found["Dir"].as_str().context("the module has a folder")?;
    Ok(dir.into())
}

/// Returns the definitions.
pub(crate) fn definitions() -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for (module, below, files) in DEFINITIONS {
        let folder = folder(module)?.join(below);
        for file in files {
            let text = fs::read_to_string(folder.join(file)).context(*file)?;
            found.push(serde_yaml::from_str(&text).context(*file)?);
        }
    }
    Ok(found)
}

/// Creates the definitions and waits until the API server serves them.
pub(crate) async fn install(cluster: &Cluster) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client());
    for definition in definitions()? {
        let crd: CustomResourceDefinition = serde_json::from_value(definition)?;
        let created = crds.create(&PostParams::default(), &crd).await?;
        let name = created.metadata.name.context("a definition has a name")?;
        let established = kube::runtime::conditions::is_crd_established();
        kube::runtime::wait::await_condition(crds.clone(), &name, established).await?;
    }
    Ok(())
}
