//! Renders the chart with Helm.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};
use e2e::{cluster::helm, selvage::root};
use serde_json::Value;

use crate::NAMESPACE;

pub(crate) fn chart() -> PathBuf {
    root().join("charts/selvage")
}

/// Runs Helm without a cluster. Returns its error output on failure.
pub(crate) fn run_helm(
    arguments: &[&str],
    settings: &[&str],
) -> Result<std::result::Result<String, String>> {
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
pub(crate) fn render(settings: &[&str]) -> Result<Vec<Value>> {
    let arguments = ["template", "selvage", "--namespace", NAMESPACE];
    let text = run_helm(&arguments, settings)?.map_err(anyhow::Error::msg)?;
    text.split("\n---")
        .map(|part| serde_yaml::from_str(part).context("a rendered object is YAML"))
        .filter(|object| !matches!(object, Ok(Value::Null)))
        .collect()
}
