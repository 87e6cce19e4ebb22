//! A shell like the one of a reader: with kubectl, its plugin and Helm in `PATH`, and the chart in its folder.

use crate::world::World;
use anyhow::{Result, ensure};
use e2e::{
    cluster::{Purpose, helm, install},
    selvage::{dist, root},
};
use std::{fs, os::unix::fs::symlink, process::Stdio};
use tokio::process::Command;

/// Runs a script in an empty folder, with its own copy of the kubeconfig. Returns what it printed.
///
/// # Errors
/// If the script fails or takes longer than `limit`, such as `10m`.
pub(crate) async fn run(world: &World, limit: &str, script: &str) -> Result<String> {
    tokio::task::spawn_blocking(|| install(&[Purpose::Tests])).await??;
    let folder = tempfile::tempdir()?;
    let programs = folder.path().join("programs");
    fs::create_dir(&programs)?;
    symlink(
        world.cluster.kubectl().get_program(),
        programs.join("kubectl"),
    )?;
    symlink(helm()?, programs.join("helm"))?;
    let plugin = "kubectl-selvage";
    symlink(dist().join(plugin), programs.join(plugin))?;
    symlink(root().join("charts"), folder.path().join("charts"))?;
    let kubeconfig = folder.path().join("kubeconfig");
    fs::copy(world.cluster.kubeconfig(), &kubeconfig)?;
    let path = std::env::var("PATH")?;
    let mut shell = Command::new("timeout");
    shell
        .args([limit, "bash", "-c", script])
        .current_dir(folder.path())
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("KUBECONFIG", kubeconfig)
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ran = shell.output().await?;
    let text = String::from_utf8_lossy(&ran.stdout);
    let error = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "{}\n{text}\n{error}", ran.status);
    Ok(text.into_owned())
}
