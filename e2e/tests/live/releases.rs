//! Upgrades of Selvage itself.

use crate::{
    scenarios,
    world::{PAGE_PORT, SETTINGS, SOON, World},
};
use anyhow::{Context, Result, ensure};
use e2e::selvage::{NAMESPACE, RELEASE, helm_upgrade};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use std::{collections::BTreeSet, time::Duration};
use tokio::{sync::oneshot, task::JoinHandle};

scenarios![alone: [an_upgrade_of_the_chart_loses_no_request]];

const RATE: u32 = 100;

/// Returns the names of Selvage's pods that are not terminating.
async fn pods(world: &World) -> Result<BTreeSet<String>> {
    let api: Api<Pod> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let found = api.list(&ListParams::default()).await?.items;
    let stay = found
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(stay.filter_map(|pod| pod.metadata.name).collect())
}

/// Opens the page through every node, twenty times a second and each time with a new connection, until it is stopped. It then
/// returns the number of responses.
fn open_page(world: &World, mut stopped: oneshot::Receiver<()>) -> Result<JoinHandle<Result<u32>>> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()?;
    let pages: Vec<_> = world
        .nodes()
        .iter()
        .map(|node| format!("http://{node}:{PAGE_PORT}/api/functions"))
        .collect();
    Ok(tokio::spawn(async move {
        let mut opened = 0;
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        for page in pages.iter().cycle() {
            tokio::select! {
                _ = &mut stopped => break,
                _ = ticks.tick() => {}
            }
            client
                .get(page)
                .send()
                .await?
                .error_for_status()
                .context("the page")?;
            opened += 1;
        }
        Ok(opened)
    }))
}

/// Replaces every pod of operator and node-shims while requests arrive through every node.
async fn an_upgrade_of_the_chart_loses_no_request(world: &mut World) -> Result<()> {
    let ns = world.namespace("t-upgrade").await?;
    let host = "upgrade.example";
    let before = world.serve(&ns, "hello", world.spec("v1", host)).await?;
    let old = pods(world).await?;
    ensure!(
        old.len() == 5,
        "expected two operators and three shims: {old:?}"
    );

    let load = world.load(host, RATE)?;
    let (stop, stopped) = oneshot::channel();
    let page = open_page(world, stopped)?;
    let next = [
        "operator.podAnnotations.release=next",
        "nodeShim.podAnnotations.release=next",
    ];
    let settings = [&SETTINGS[..], &next].concat();
    // Helm waits for every pod; the requests continue meanwhile
    tokio::task::block_in_place(|| helm_upgrade(&world.cluster, &settings))?;
    world
        .until(async |world| {
            let now = pods(world).await?;
            Ok(now.len() == 5 && now.is_disjoint(&old))
        })
        .await?;
    drop(stop);
    let opened = page
        .await?
        .context("the page while its pods were replaced")?;
    ensure!(opened > 20, "the page was opened {opened} times");
    let seen = load.finish().await?;
    ensure!(seen.failed == 0 && seen.unattributed() == 0, "{seen:?}");
    ensure!(seen.answered("v1") == seen.total, "{seen:?}");

    // the new programs took over the state of the old ones: nothing was rolled out again
    let after = world
        .function(&ns, "hello", SOON, |f| f["status"]["phase"] == "Ready")
        .await?;
    for field in ["stable", "history"] {
        let (was, is) = (&before["status"][field], &after["status"][field]);
        ensure!(was == is, "{field} was {was}, is {is}");
    }

    let mut test = world.cluster.helm()?;
    test.args(["test", RELEASE, "--namespace", NAMESPACE]);
    let output = tokio::task::block_in_place(|| test.output())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm test: {said}");
    Ok(())
}
