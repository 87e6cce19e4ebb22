//! Ownership of host names.

use crate::{
    scenarios,
    world::{SOON, World},
};
use anyhow::{Result, ensure};
use e2e::selvage::condition;
use serde_json::Value;

scenarios![together: [
    two_namespaces_that_want_one_host_have_one_owner,
    inside_a_namespace_the_older_route_wins
]];

/// HK-1: the namespace that claims a host second reports it, and receives no request.
async fn two_namespaces_that_want_one_host_have_one_owner(world: &World) -> Result<()> {
    let (a, b) = (
        world.namespace("t-claim-a").await?,
        world.namespace("t-claim-b").await?,
    );
    let (first, second) = (
        world.spec("v1", "claimed.example"),
        world.spec("v2", "claimed.example"),
    );
    tokio::try_join!(
        world.apply(&a, "hello", first),
        world.apply(&b, "hello", second)
    )?;
    let settled = |f: &Value| {
        condition(f, "Ready").0 == "True" || condition(f, "Accepted") == ("False", "HostConflict")
    };
    let one = world.function(&a, "hello", SOON, settled).await?;
    let two = world.function(&b, "hello", SOON, settled).await?;
    let won = [&one, &two].map(|f| condition(f, "Ready").0 == "True");
    ensure!(won[0] != won[1], "winners: {won:?}");
    let version = if won[0] { "v1" } else { "v2" };
    for node in world.nodes() {
        for _ in 0..50 {
            let answer = world.edge.get(node, "claimed.example", "/").await?;
            ensure!(
                answer.status == 200 && answer.version == version,
                "{node}: {answer:?}"
            );
        }
    }
    Ok(())
}

async fn inside_a_namespace_the_older_route_wins(world: &World) -> Result<()> {
    // ages are whole seconds; of two functions with the same age the first by name counts as the older
    let ns = world.namespace("t-route").await?;
    world
        .serve(&ns, "elder", world.spec("v1", "shared.example"))
        .await?;
    world
        .apply(&ns, "younger", world.spec("v2", "shared.example"))
        .await?;
    world
        .function(&ns, "younger", SOON, |f| {
            condition(f, "Accepted") == ("False", "RouteConflict")
        })
        .await?;
    for node in world.nodes() {
        let answer = world.edge.get(node, "shared.example", "/").await?;
        ensure!(answer.version == "v1", "{node}: {answer:?}");
    }
    Ok(())
}
