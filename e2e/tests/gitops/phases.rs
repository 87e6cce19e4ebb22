//! One story in Argo CD: every phase of a rollout, every action, and what must not happen on the way.

use crate::argo_cd::ArgoCd;
use crate::world::{Shown, World};
use anyhow::{Result, ensure};
use e2e::selvage::{Kind, condition};
use serde_json::Value;

const HOST: &str = "staging.shop.example";

pub(crate) async fn argo_cd(world: &World) -> Result<()> {
    let argo = ArgoCd::start(world).await?;
    let shown = argo.deploy(world, "staging").await?;
    argo.shows("staging", "Synced", "Healthy").await?;
    never(&shown.take(), &["Degraded", "Suspended", "Unknown"])?;

    let load = world.load(HOST)?;
    good_version(world, &argo, &shown).await?;
    bad_version(world, &argo, &shown).await?;
    everything_at_once(world, &argo, &shown).await?;
    actions(world, &argo, &shown).await?;
    scale(world, &argo, &shown).await?;
    prune(world, &argo, &shown).await?;
    drop(load);

    let _load = world.load("shop.example")?;
    approval(world, &argo).await
}

/// Healthy again only after the promotion.
async fn good_version(world: &World, argo: &ArgoCd, shown: &Shown) -> Result<()> {
    println!("  a good version");
    world.release("staging", "v2")?;
    argo.refresh("staging").await?;
    argo.shows("staging", "Synced", "Progressing").await?;
    argo.shows("staging", "Synced", "Healthy").await?;
    let function = world.function("staging", |_| true).await?;
    ensure!(
        function["status"]["history"][0]["outcome"] == "Promoted",
        "healthy before the promotion"
    );
    let image = &world.images["v2"];
    let digest = function["status"]["resolved"]["digest"]
        .as_str()
        .unwrap_or_default();
    ensure!(image.ends_with(digest), "{digest}");
    let all = shown.take();
    never(&all, &["Degraded", "Suspended", "Unknown", "Missing"])?;
    ensure!(
        all.iter()
            .any(|one| one.contains("Progressing (function Progressing: ")
                && one.contains("f")
                && !one.contains(": -)")),
        "no message in {all:#?}"
    );
    Ok(())
}

/// Degraded with the counts, the same after another look at the repository, and Healthy after the revert.
async fn bad_version(world: &World, argo: &ArgoCd, shown: &Shown) -> Result<()> {
    println!("  a bad version");
    world.release("staging", "v3")?;
    argo.refresh("staging").await?;
    argo.shows("staging", "Synced", "Degraded").await?;
    let function = world
        .function("staging", |f| f["status"]["phase"] == "RolledBack")
        .await?;
    shown.until("Degraded: rolled back from").await?;
    argo.refresh("staging").await?;
    let later = world.function("staging", |_| true).await?;
    ensure!(
        later["status"]["history"] == function["status"]["history"],
        "the rejected version was tried again"
    );
    ensure!(
        argo.actions("staging").await? == ["retry"],
        "{:?}",
        argo.actions("staging").await?
    );

    println!("  git revert");
    world.repository.revert()?;
    argo.refresh("staging").await?;
    argo.shows("staging", "Synced", "Healthy").await?;
    never(&shown.take(), &["Suspended", "Unknown", "Missing"])
}

/// A commit with a ConfigMap, a Secret, a RolloutPolicy and the function is one rollout, in which nothing flaps.
async fn everything_at_once(world: &World, argo: &ArgoCd, shown: &Shown) -> Result<()> {
    println!("  ConfigMap, Secret, RolloutPolicy and function in one commit");
    let before = world.function("staging", |_| true).await?;
    let repository = &world.repository;
    repository.replace("base/configuration.yaml", "hello", "good day")?;
    repository.replace("base/policy.yaml", "duration: 10s", "duration: 11s")?;
    repository.write(
        "base/secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: { name: checkout }\nstringData: { key: value }\n",
    )?;
    repository.replace(
        "base/kustomization.yaml",
        "  - policy.yaml",
        "  - policy.yaml\n  - secret.yaml",
    )?;
    repository.replace(
        "base/function.yaml",
        "  rollout:",
        "    - name: KEY\n      valueFrom:\n        secretKeyRef: { name: checkout, key: key }\n  rollout:",
    )?;
    repository.commit("everything at once")?;
    argo.refresh("staging").await?;
    argo.shows("staging", "Synced", "Progressing").await?;
    argo.shows("staging", "Synced", "Healthy").await?;
    let after = world.function("staging", |_| true).await?;
    let count = |function: &Value| function["status"]["history"].as_array().map_or(0, Vec::len);
    println!("    rollouts: {}", count(&after) - count(&before));
    never(
        &shown.take(),
        &["Degraded", "Suspended", "Unknown", "Missing"],
    )
}

/// Each action that is enabled acts, also twice in a row.
async fn actions(world: &World, argo: &ArgoCd, shown: &Shown) -> Result<()> {
    println!("  actions");
    ensure!(
        argo.actions("staging").await?.is_empty(),
        "actions without a rollout"
    );
    world
        .repository
        .replace("base/configuration.yaml", "good day", "bye")?;
    world
        .repository
        .replace("base/policy.yaml", "minDuration: 5s", "minDuration: 1h")?;
    world.repository.commit("another greeting, slowly")?;
    argo.refresh("staging").await?;
    world
        .function("staging", |f| f["status"]["rollout"]["state"] == "Stepping")
        .await?;
    for _ in 0..2 {
        act(world, argo, "pause", |f| f["status"]["phase"] == "Paused").await?;
        argo.shows("staging", "Synced", "Suspended").await?;
        act(world, argo, "resume", |f| {
            f["status"]["phase"] == "Progressing"
        })
        .await?;
        argo.shows("staging", "Synced", "Progressing").await?;
    }
    act(world, argo, "promote", |f| {
        f["status"]["rollout"]["step"] == 1
    })
    .await?;
    for _ in 0..2 {
        act(world, argo, "abort", |f| {
            f["status"]["phase"] == "RolledBack"
        })
        .await?;
        argo.shows("staging", "Synced", "Degraded").await?;
        act(world, argo, "retry", |f| {
            f["status"]["rollout"]["state"] == "Stepping"
        })
        .await?;
        argo.shows("staging", "Synced", "Progressing").await?;
    }
    act(world, argo, "promote", |f| {
        f["status"]["rollout"]["step"] == 1
    })
    .await?;
    act(world, argo, "promote-full", |f| {
        f["status"]["rollout"]["state"] == "Baking"
    })
    .await?;
    act(world, argo, "promote", |f| {
        condition(f, "Ready").0 == "True"
    })
    .await?;
    argo.shows("staging", "Synced", "Healthy").await?;
    let all = shown.take();
    never(
        &all,
        &[
            "OutOfSync Suspended",
            "OutOfSync Degraded",
            "Unknown",
            "Missing",
        ],
    )
}

/// Runs an action that is enabled and waits for its effect.
async fn act(
    world: &World,
    argo: &ArgoCd,
    action: &str,
    holds: impl Fn(&Value) -> bool,
) -> Result<()> {
    let enabled = argo.actions("staging").await?;
    println!("    enabled: {}; {action}", enabled.join(" "));
    ensure!(
        enabled.iter().any(|one| one == action),
        "{action} is not among {enabled:?}"
    );
    argo.act("staging", action).await?;
    world.function("staging", holds).await?;
    Ok(())
}

/// Self-healing reverts neither the scale nor the annotations of actions.
async fn scale(world: &World, argo: &ArgoCd, shown: &Shown) -> Result<()> {
    println!("  kubectl scale");
    world.kubectl(&[
        "--namespace",
        "shop-staging",
        "scale",
        "edgefunction/checkout",
        "--replicas=1",
    ])?;
    let scaled = world
        .function("staging", |f| f["status"]["nodes"]["desired"] == 1)
        .await?;
    argo.refresh("staging").await?;
    argo.shows("staging", "Synced", "Healthy").await?;
    let later = world.function("staging", |_| true).await?;
    ensure!(
        later["spec"] == scaled["spec"],
        "self-healing changed {}",
        later["spec"]
    );
    ensure!(
        later["metadata"]["annotations"] == scaled["metadata"]["annotations"],
        "annotations changed"
    );
    never(
        &shown.take(),
        &["OutOfSync", "Degraded", "Unknown", "Missing"],
    )
}

/// A commit without the function removes it in mid-rollout.
async fn prune(world: &World, argo: &ArgoCd, shown: &Shown) -> Result<()> {
    println!("  prune in mid-rollout");
    world
        .repository
        .replace("base/configuration.yaml", "bye", "later")?;
    world.repository.commit("a rollout that does not end")?;
    argo.refresh("staging").await?;
    world
        .function("staging", |f| f["status"]["rollout"]["state"] == "Stepping")
        .await?;
    for file in ["base/function.yaml", "staging/version.yaml"] {
        world.repository.remove(file)?;
    }
    world
        .repository
        .replace("base/kustomization.yaml", "  - function.yaml\n", "")?;
    world.repository.replace(
        "staging/kustomization.yaml",
        "patches:\n  - path: version.yaml\n",
        "",
    )?;
    world.repository.commit("without the function")?;
    argo.refresh("staging").await?;
    argo.wait("staging", |status| {
        let resources = status["resources"].as_array();
        let gone = resources.is_some_and(|all| all.iter().all(|one| one["kind"] != "EdgeFunction"));
        gone && status["sync"]["status"] == "Synced" && status["health"]["status"] == "Healthy"
    })
    .await?;
    let revisions = world.objects.api(Kind::Revision, "shop-staging");
    let left = revisions.list(&kube::api::ListParams::default()).await?;
    println!("    revisions left: {}", left.items.len());
    never(&shown.take(), &["Degraded", "Unknown"])?;
    // production still needs the function
    world.repository.revert()
}

/// Suspended while a person must approve, and Healthy after the action of Argo CD.
async fn approval(world: &World, argo: &ArgoCd) -> Result<()> {
    println!("  approval");
    world
        .repository
        .replace("base/policy.yaml", "minDuration: 1h", "minDuration: 5s")?;
    world.repository.commit("short steps again")?;
    let shown = argo.deploy(world, "production").await?;
    argo.shows("production", "Synced", "Healthy").await?;
    world.release("production", "v2")?;
    argo.refresh("production").await?;
    argo.shows("production", "Synced", "Progressing").await?;
    argo.shows("production", "Synced", "Suspended").await?;
    let enabled = argo.actions("production").await?;
    println!("    enabled: {}", enabled.join(" "));
    ensure!(enabled.iter().any(|one| one == "approve"), "{enabled:?}");
    let all = shown.take();
    ensure!(
        all.iter()
            .any(|one| one.contains("aiting for approval (manager")),
        "{all:#?}"
    );
    argo.act("production", "approve").await?;
    argo.shows("production", "Synced", "Healthy").await?;
    never(&shown.take(), &["Degraded", "Unknown", "Missing"])
}

/// Checks that none of these words was shown.
pub(crate) fn never(all: &[String], words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(
            !all.iter().any(|one| one.contains(word)),
            "{word} in {all:#?}"
        );
    }
    Ok(())
}
