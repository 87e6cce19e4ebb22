//! A pipeline that pushes a component and commits its digest, with the commands of the page for Flux.

use crate::flux::Flux;
use crate::phases::never;
use crate::world::{LATER, World};
use anyhow::{Context, Result, ensure};
use e2e::{documented::block, selvage};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The commands of the page push a component and commit its digest, and Flux is ready after its rollout.
pub(crate) async fn story(world: &World, flux: &Flux, url: &str) -> Result<()> {
    println!("  a commit of the pipeline");
    let before = world.function("staging", |_| true).await?;
    let clone = push_and_commit(world, url)?;
    let commit = world.repository.last_commit()?;
    flux.apply("staging").await?;
    let limit = format!("timeout={}s", LATER.as_secs());
    run_block(
        world,
        &clone,
        "kubectl -n flux-system wait",
        &[("timeout=1h", limit)],
    )?;
    let function = world.function("staging", |_| true).await?;
    let image = function["spec"]["source"]["image"].as_str();
    let image = image.context("an image")?;
    ensure!(
        commit.contains(image) && image.contains(":1.4.1@sha256:"),
        "Flux applied {image}, the commit is {commit:?}"
    );
    let status = &function["status"];
    let digest = status["resolved"]["digest"].as_str().unwrap_or_default();
    ensure!(
        image.ends_with(digest),
        "{digest} is served, not that of {image}"
    );
    let newest = &status["history"][0];
    ensure!(
        newest["outcome"] == "Promoted" && *newest != before["status"]["history"][0],
        "ready before the promotion: {newest}"
    );
    let version = world.repository.read("staging/version.yaml")?;
    ensure!(
        version.contains(r#"# {"$imagepolicy""#),
        "the commands removed the comment: {version}"
    );
    flux.ready("production").await?;
    never(&flux.shown.take(), &["Ready=False HealthCheckFailed"])
}

/// Runs the commands of the page with the registry and the repository of the test. Returns the folder with the clone.
fn push_and_commit(world: &World, url: &str) -> Result<PathBuf> {
    let folder = world.folder("pipeline")?;
    let component = selvage::dist().join("examples/hello-v1.wasm");
    fs::copy(component, folder.join("checkout.wasm"))?;
    let registry = world.cluster.registry.as_ref().context("no registry")?;
    let replacements = [
        ("https://git.example/shop/edge.git", url.to_owned()),
        ("registry.example/", format!("{}/", registry.address())),
        ("selvage push", "selvage push --plain-http".into()),
    ];
    run_block(
        world,
        &folder,
        "image=$(kubectl selvage push",
        &replacements,
    )?;
    Ok(folder.join("edge"))
}

/// Runs the block of the page that begins with a text in a folder.
fn run_block(
    world: &World,
    folder: &Path,
    begins: &str,
    replacements: &[(&str, String)],
) -> Result<()> {
    let mut block = block("flux.md", begins)?;
    for (from, to) in replacements {
        ensure!(block.contains(from), "{from} is not in {block}");
        block = block.replace(from, to);
    }
    let path = [world.cluster.tools().dir(), &selvage::dist()]
        .map(|dir| dir.display().to_string())
        .join(":");
    let mut command = Command::new("bash");
    command
        .args(["-euc", &block])
        .current_dir(folder)
        .env("PATH", format!("{path}:/usr/bin:/bin"))
        .env("KUBECONFIG", world.cluster.kubeconfig())
        .env("HOME", folder);
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "pipeline");
        command.env(format!("GIT_{role}_EMAIL"), "pipeline@example");
    }
    let output = command.output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success(), "{block}: {said}");
    Ok(())
}
