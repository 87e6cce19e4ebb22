//! Two builds of the same code: only chance or Selvage itself can roll one of them back.
//!
//! `SELVAGE_IDENTICAL=20 cargo test --workspace --test live -- identical` plays 20 rollouts at each of three rates, with the
//! default analysis, instead of a single short one. Its duration is about 40 minutes.

use crate::{
    rollouts::{outcome, rolled_back},
    scenarios,
    world::{LATER, World, brisk},
};
use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use std::time::{Duration, Instant};

scenarios![together: [identical_versions_are_promoted]];

/// Requests per second of a function, and the number of functions at once. All load generators have one address, and each has
/// at most 32 requests under way at a node, which refuses more than 256 connections of an address.
const RATES: [(u32, usize); 3] = [(50, 7), (300, 5), (1000, 2)];
/// Time limit for a rollout at the lowest rate with the default analysis.
const PATIENCE: Duration = Duration::from_secs(1500);

async fn identical_versions_are_promoted(world: &World) -> Result<()> {
    let Ok(count) = std::env::var("SELVAGE_IDENTICAL") else {
        let back = rollout(world, "t-identical", RATES[1].0, brisk, LATER).await?;
        ensure!(back.is_none(), "{}", back.unwrap_or_default());
        return Ok(());
    };
    let count: usize = count.parse()?;
    let (mut all, mut back) = (0, 0);
    for (rate, at_once) in RATES {
        let started = Instant::now();
        let one = async |n: usize| {
            let ns = format!("t-identical-{rate}-{n}");
            rollout(world, &ns, rate, std::convert::identity, PATIENCE).await
        };
        let results: Vec<Option<Value>> = futures::stream::iter(0..count)
            .map(one)
            .buffer_unordered(at_once)
            .try_collect()
            .await?;
        let rolled_back: Vec<&Value> = results.iter().flatten().collect();
        println!(
            "    {count} rollouts of identical code at {rate} requests per second each, {at_once} at once, in {:.0} s: {} rolled back",
            started.elapsed().as_secs_f64(),
            rolled_back.len()
        );
        for entry in &rolled_back {
            println!("      {}", entry["message"]);
        }
        all += count;
        back += rolled_back.len();
    }
    ensure!(back * 50 <= all, "{back} of {all} were rolled back");
    Ok(())
}

/// Plays one rollout and returns the entry of the history if it was rolled back.
async fn rollout(
    world: &World,
    ns: &str,
    rate: u32,
    change: impl Fn(Value) -> Value,
    limit: Duration,
) -> Result<Option<Value>> {
    let ns = world.namespace(ns).await?;
    let host = format!("{ns}.example");
    world
        .serve(&ns, "hello", change(world.spec("v1", &host)))
        .await?;
    let load = world.load(&host, rate)?;
    world
        .apply(&ns, "hello", change(world.spec("v2", &host)))
        .await?;
    let ended = |f: &Value| {
        f["status"]["history"][1].is_object() && (rolled_back(f) || outcome(f).0 == "Promoted")
    };
    let done = world.function(&ns, "hello", limit, ended).await?;
    let seen = load.finish().await?;
    ensure!(seen.failed == 0, "{seen:?}");
    Ok(rolled_back(&done).then(|| done["status"]["history"][0].clone()))
}
