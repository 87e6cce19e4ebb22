//! Candidates that the newest spec does not ask for, while the registry is unavailable.

use crate::{
    scenarios,
    world::{SOON, World, brisk},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

scenarios![alone: [a_candidate_that_spec_does_not_ask_for_gets_nothing_without_the_registry]];

/// Requests per second that suffice for a step within a few evaluations, so that a candidate whose weight may rise
/// gets more weight.
const RATE: u32 = 300;
/// Time in which a step would be taken, if the weight could rise.
const WHILE: Duration = Duration::from_secs(20);

fn spec(world: &World, version: &str) -> Value {
    let mut spec = brisk(world.spec(version, "abandoned.example"));
    spec["rollout"]["canary"] = json!({ "steps": [
        { "weight": "20%", "minDuration": "10s" },
        { "weight": "50%", "minDuration": "10s" },
    ] });
    spec
}

fn has_share(function: &Value) -> bool {
    function["status"]["traffic"][1]["weight"].as_u64() > Some(0)
}

async fn a_candidate_that_spec_does_not_ask_for_gets_nothing_without_the_registry(
    world: &mut World,
) -> Result<()> {
    let ns = world.namespace("t-abandoned").await?;
    world.serve(&ns, "hello", spec(world, "v1")).await?;
    let load = world.load("abandoned.example", RATE)?;
    world.apply(&ns, "hello", spec(world, "v2")).await?;
    world.function(&ns, "hello", SOON, has_share).await?;
    let registry = world.cluster.registry.as_mut().context("no registry")?;
    registry.process().kill();
    let result = without_registry(world, &ns).await;
    let registry = world.cluster.registry.as_mut().context("no registry")?;
    registry.process().restart()?;
    registry.ready().await?;
    result?;
    let seen = load.finish().await?;
    ensure!(seen.failed == 0, "{seen:?}");
    Ok(())
}

async fn without_registry(world: &World, ns: &str) -> Result<()> {
    // back to the image of a kept revision
    world.apply(ns, "hello", spec(world, "v1")).await?;
    let back = gets_nothing(world, ns).await?;
    let newest = &back["status"]["history"][0];
    ensure!(newest["outcome"] == "Withdrawn", "{newest}");
    world.ready(ns, "hello").await?;
    // forward again, to the image of another kept revision
    world.apply(ns, "hello", spec(world, "v2")).await?;
    world.function(ns, "hello", SOON, has_share).await?;
    // and to an image that cannot be resolved now
    let mut unknown = spec(world, "v2");
    let image = &world.images["v2"];
    unknown["source"]["image"] = format!("{image}-unknown").into();
    world.apply(ns, "hello", unknown).await?;
    gets_nothing(world, ns).await?;
    Ok(())
}

/// Checks that the candidate receives no requests on any node, at once and permanently.
async fn gets_nothing(world: &World, ns: &str) -> Result<Value> {
    let limit = Duration::from_secs(10);
    let gone = |f: &Value| !has_share(f);
    let function = world.function(ns, "hello", limit, gone).await?;
    // nodes receive the change concurrently with the write of the status
    world
        .until(async |w: &World| {
            for node in w.nodes() {
                for _ in 0..20 {
                    // a kept-alive connection may end between two requests
                    let answer = w.edge.get(node, "abandoned.example", "/").await;
                    if answer.is_ok_and(|answer| answer.version == "v1") {
                        continue;
                    }
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
    let load = world.load("abandoned.example", RATE)?;
    let again = world.function(ns, "hello", WHILE, has_share).await;
    ensure!(again.is_err(), "it got a share again");
    let seen = load.finish().await?;
    ensure!(
        seen.answered("v2") == 0 && seen.failed == 0,
        "the candidate still answers: {seen:?}"
    );
    Ok(function)
}
