//! The plugin of kubectl: waits for a rollout, calls the function, promotes it, returns to the revision before it, and
//! aborts that.

use crate::{
    scenarios,
    world::{LATER, SOON, World},
};
use anyhow::{Context, Result, ensure};
use e2e::{documented, selvage};
use serde_json::{Value, json};
use std::process::{Output, Stdio};
use tokio::process::Command;

scenarios![together: [
    the_plugin_waits_promotes_and_returns,
    kubectl_completes_names_of_functions,
]];

/// Runs `kubectl selvage` with arguments, without a terminal.
async fn run(world: &World, arguments: &[&str]) -> Result<Output> {
    let program = selvage::dist().join("kubectl-selvage");
    let run = Command::new(&program)
        .args(arguments)
        .env("KUBECONFIG", world.cluster.kubeconfig())
        .kill_on_drop(true)
        .output();
    let limited = tokio::time::timeout(LATER, run).await;
    limited
        .with_context(|| format!("{arguments:?} does not end"))?
        .with_context(|| format!("{} cannot run: run `make dist`", program.display()))
}

/// Runs a command that ends with `code`, and returns what it printed.
async fn ends(world: &World, code: i32, arguments: &[&str]) -> Result<String> {
    let output = run(world, arguments).await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(code),
        "{arguments:?}: {}, not {code}\n{text}{error}",
        output.status
    );
    Ok(text)
}

fn baking(function: &Value) -> bool {
    function["status"]["rollout"]["state"] == "Baking"
}

async fn the_plugin_waits_promotes_and_returns(world: &World) -> Result<()> {
    let ns = world.namespace("t-plugin").await?;
    let n = ns.as_str();
    let spec = |version: &str| {
        let mut spec = world.spec(version, "plugin.example");
        // no step needs evidence, so no requests are needed; the bake lasts until the plugin ends it
        spec["rollout"] = json!({
            "strategy": "AllAtOnce",
            "bake": { "duration": "10m", "holdback": "10%" },
        });
        spec
    };
    world.apply(n, "hello", spec("v1")).await?;
    let live = ends(world, 0, &["status", "hello", "-n", n, "--wait"]).await?;
    ensure!(live.contains("Ready: hello-"), "{live}");
    // through the port-forward of a real API server
    let answer = ends(world, 0, &["invoke", "hello", "-n", n, "--fail"]).await?;
    ensure!(answer == "hello from v1\n", "{answer}");

    world.apply(n, "hello", spec("v2")).await?;
    world.function(n, "hello", SOON, baking).await?;
    for (revision, expected) in [
        ("stable", "hello from v1\n"),
        ("candidate", "hello from v2\n"),
    ] {
        let invoke = ["invoke", "hello", "-n", n, "--fail", "--revision", revision];
        let answer = ends(world, 0, &invoke).await?;
        ensure!(answer == expected, "{revision}: {answer}");
    }
    let (wait, promote) = (
        ["status", "hello", "-n", n, "--wait"],
        ["promote", "hello", "-n", n],
    );
    let (waited, promoted) = tokio::join!(ends(world, 0, &wait), ends(world, 0, &promote));
    let (waited, promoted) = (waited?, promoted?);
    ensure!(promoted.starts_with("promote: done."), "{promoted}");
    ensure!(waited.contains("Ready: hello-"), "{waited}");
    let refused = ends(world, 1, &["promote", "hello", "-n", n]).await?;
    ensure!(refused.contains("No rollout runs"), "{refused}");

    let undone = ends(world, 0, &["undo", "hello", "-n", n]).await?;
    ensure!(undone.contains(&world.images["v1"]), "{undone}");
    world
        .function(n, "hello", SOON, |f| {
            baking(f) && f["spec"]["source"]["image"] == world.images["v1"].as_str()
        })
        .await?;
    ends(world, 0, &["abort", "hello", "-n", n]).await?;
    let stalled = ends(world, 1, &["status", "hello", "-n", n, "--wait"]).await?;
    ensure!(stalled.contains("Stalled (Aborted)"), "{stalled}");
    Ok(())
}

/// The page shows the program that kubectl asks.
async fn kubectl_completes_names_of_functions(world: &World) -> Result<()> {
    let ns = world.namespace("t-completion").await?;
    let spec = world.spec("v1", "completion.example");
    world.apply(&ns, "hello", spec).await?;
    let pages = documented::commands("kubectl.md")?;
    let install = pages
        .iter()
        .find(|block| block.contains("kubectl_complete-selvage"))
        .context("the page installs no completion")?;
    let home = tempfile::tempdir()?;
    let kubectl = world.cluster.kubectl();
    let kubectl = kubectl.get_program().to_string_lossy().into_owned();
    let completed = Command::new("sh")
        .args([
            "-ec",
            &format!("{install}\n'{kubectl}' __complete selvage -n {ns} status he"),
        ])
        .env("HOME", home.path())
        .env(
            "PATH",
            format!(
                "{}:{}:{}",
                home.path().join(".local/bin").display(),
                selvage::dist().display(),
                std::env::var("PATH")?
            ),
        )
        .env("KUBECONFIG", world.cluster.kubeconfig())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let completed = tokio::time::timeout(SOON, completed).await??;
    let text = String::from_utf8_lossy(&completed.stdout).into_owned();
    let error = String::from_utf8_lossy(&completed.stderr);
    // with the last line, the shell adds no names of files
    ensure!(text == "hello\n:4\n", "{text}{error}");
    Ok(())
}
