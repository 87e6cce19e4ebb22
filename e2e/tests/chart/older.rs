//! Upgrade from a chart that has fewer values, and the way back.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use serde_json::Value;
use tempfile::TempDir;

use crate::{helm_does, render::chart};

/// Copies the chart as it was before it had the section `monitoring`.
fn older() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let copied = Command::new("cp")
        .arg("-r")
        .arg(chart().join("."))
        .arg(folder.path())
        .status()?;
    ensure!(copied.success(), "copy the chart: {copied}");
    for file in ["templates/monitoring.yaml", "templates/NOTES.txt"] {
        fs::remove_file(folder.path().join(file))?;
    }
    let read = |file: &str| fs::read_to_string(folder.path().join(file));
    let without = |mut object: Value| {
        let removed = object.as_object_mut()?.remove("monitoring");
        removed.map(|_| object)
    };
    let values = without(serde_yaml::from_str(&read("values.yaml")?)?);
    let values = serde_yaml::to_string(&values.context("values")?)?;
    fs::write(folder.path().join("values.yaml"), values)?;
    let mut schema: Value = serde_json::from_str(&read("values.schema.json")?)?;
    schema["properties"] = without(schema["properties"].take()).context("a schema")?;
    fs::write(folder.path().join("values.schema.json"), schema.to_string())?;
    let about = read("Chart.yaml")?.replace("\nversion: ", "\nversion: 0.0.1-older.");
    fs::write(folder.path().join("Chart.yaml"), about)?;
    Ok(folder)
}

/// Names of the dashboards, and the arguments of the operator.
fn found(cluster: &Cluster) -> Result<(usize, String)> {
    let get = |arguments: &[&str]| -> Result<String> {
        let output = cluster.kubectl().arg("get").args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl get {arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let namespace = ["-n", crate::NAMESPACE];
    let dashboards = ["configmaps", "-l", "grafana_dashboard=1", "-o", "name"];
    let operator = [
        "deployment/selvage-operator",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].args}",
    ];
    let dashboards = get(&[&dashboards[..], &namespace].concat())?;
    let arguments = get(&[&operator[..], &namespace].concat())?;
    Ok((dashboards.lines().count(), arguments))
}

/// Installs the older chart, upgrades it with the command of docs/install.md, rolls back and uninstalls.
pub(crate) fn upgrade_and_roll_back(cluster: &Cluster, chart: &str) -> Result<()> {
    let older = older()?;
    let path = older.path().to_str().context("the path is text")?;
    let kept = "operator.maxRollouts=77";
    helm_does(cluster, &["install", "selvage", path, "--set", kept])?;
    for (arguments, dashboards) in [
        (
            &[
                "upgrade",
                "selvage",
                chart,
                "--reset-then-reuse-values",
                "--set",
                "monitoring.dashboards.enabled=true",
            ][..],
            4,
        ),
        (&["rollback", "selvage", "1"], 0),
    ] {
        helm_does(cluster, arguments)?;
        let (found, operator) = found(cluster)?;
        ensure!(found == dashboards, "{arguments:?}: {found} dashboards");
        ensure!(
            operator.contains("--max-rollouts=77"),
            "{arguments:?}: {operator}"
        );
    }
    helm_does(cluster, &["uninstall", "selvage"])?;
    Ok(())
}
