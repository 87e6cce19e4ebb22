//! CustomResourceDefinitions that are deleted, together with all objects, and put back. Everything that other scenarios left
//! behind is deleted as well, so this is the last one.

use crate::{
    faults::restarted,
    scenarios,
    world::{LATER, SOON, World},
};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::wait,
    selvage::{self, Kind, NAMESPACE},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

scenarios![alone: [definitions_that_are_deleted_and_put_back_need_no_restart]];

const KINDS: [&str; 5] = [
    "edgefunctions",
    "edgenodes",
    "edgerevisions",
    "hostclaims",
    "rolloutpolicies",
];
/// Enough that their deletion at once is doubted.
const COUNT: usize = 30;
/// Number of deletions that are believed before they are many, if there are no other functions.
const BELIEVED: usize = 9;
/// Time in which believed deletions reach the nodes.
const SPREAD: Duration = Duration::from_secs(5);
/// How long the definitions are away.
const AWAY: Duration = Duration::from_secs(30);

fn host(n: usize) -> String {
    format!("f{n}.definitions.example")
}

fn name(n: usize) -> String {
    format!("f{n:02}")
}

/// FC-19: nodes serve what the operator keeps because nothing confirms its deletion, and after definitions and functions are applied again all of them serve,
/// although no pod of Selvage was restarted.
async fn definitions_that_are_deleted_and_put_back_need_no_restart(
    world: &mut World,
) -> Result<()> {
    let ns = world.namespace("t-definitions").await?;
    let before = pods(world).await?;
    apply_all(world, &ns).await?;
    let functions = world.objects.api(Kind::Function, "");
    let all = functions.list(&ListParams::default()).await?.items.len();
    let definitions = KINDS.map(|kind| format!("{kind}.selvage.dev"));
    let mut delete = vec!["delete", "crd", "--wait"];
    delete.extend(definitions.iter().map(String::as_str));
    world.kubectl(&delete)?;

    tokio::time::sleep(SPREAD).await;
    let kept = served(world).await?;
    // which of many functions are deleted first is up to the API server
    let least = if all == COUNT { COUNT - BELIEVED } else { 0 };
    ensure!(kept.len() >= least, "only {} are served", kept.len());
    let begin = Instant::now();
    while begin.elapsed() < AWAY {
        let now = served(world).await?;
        ensure!(now == kept, "{kept:?} were served, then {now:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    let files = selvage::root().join("charts/selvage/files/crds");
    world.kubectl(&["create", "-f", &files.display().to_string()])?;
    wait::until(SOON, Duration::from_millis(500), async || {
        let functions = world.objects.api(Kind::Function, &ns);
        let served = functions.list(&ListParams::default()).await;
        Ok(served.is_ok().then_some(()))
    })
    .await
    .context("the API server serves the kind again")?;
    apply_all(world, &ns).await?;
    for n in 0..COUNT {
        for node in world.nodes() {
            let answer = world.edge.get(node, &host(n), "/").await?;
            ensure!(answer.version == "v1", "{} on {node}: {answer:?}", host(n));
        }
        let function = world.function(&ns, &name(n), SOON, |_| true).await?;
        let revision = function["status"]["stable"]["revision"].as_str();
        let revision = revision.context("no stable revision")?;
        let found = world.objects.api(Kind::Revision, &ns).get(revision).await?;
        let owner = found.owner_references().first().map(|owner| &owner.uid);
        ensure!(
            owner.map(String::as_str) == function["metadata"]["uid"].as_str(),
            "{revision} is owned by {owner:?}"
        );
    }
    for (was, is) in before.iter().zip(pods(world).await?) {
        ensure!(
            was.metadata.uid == is.metadata.uid && !restarted(&is, was),
            "{} was replaced or restarted",
            was.name_any()
        );
    }
    Ok(())
}

/// Returns the functions that every node serves.
async fn served(world: &World) -> Result<BTreeSet<usize>> {
    let mut served: BTreeSet<usize> = (0..COUNT).collect();
    for n in 0..COUNT {
        for node in world.nodes() {
            if world.edge.get(node, &host(n), "/").await?.version != "v1" {
                served.remove(&n);
            }
        }
    }
    Ok(served)
}

async fn apply_all(world: &World, ns: &str) -> Result<()> {
    for n in 0..COUNT {
        let spec = world.spec("v1", &host(n));
        world.apply(ns, &name(n), spec).await?;
    }
    for n in 0..COUNT {
        let served = |f: &serde_json::Value| {
            selvage::condition(f, "Ready").0 == "True"
                && selvage::condition(f, "Distributed").0 == "True"
        };
        world.function(ns, &name(n), LATER, served).await?;
    }
    Ok(())
}

/// Returns the pods of Selvage in order of their names.
async fn pods(world: &World) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let mut found = api.list(&ListParams::default()).await?.items;
    found.sort_by_key(ResourceExt::name_any);
    Ok(found)
}
