//! Many functions deleted at once.

use crate::{
    scenarios,
    world::{LATER, SOON, World},
};
use anyhow::{Result, ensure};
use e2e::{
    cluster::wait,
    selvage::{Kind, condition},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::DeleteParams, api::ListParams};
use std::time::Duration;

scenarios![alone: [functions_of_deleted_namespaces_are_gone_within_seconds]];

/// Deleted namespaces, and the number of functions in each: more than a fifth of all functions.
const DELETED: [(&str, usize); 4] = [
    ("t-gone-a", 10),
    ("t-gone-b", 9),
    ("t-gone-c", 9),
    ("t-gone-d", 9),
];
/// Limit from the moment at which the API server has none of them left.
const GONE: Duration = Duration::from_secs(10);
/// Limit for the release of hosts, which happens after ten seconds without a function.
const RELEASED: Duration = Duration::from_secs(40);
const RATE: u32 = 50;

fn hosts() -> Vec<String> {
    DELETED
        .iter()
        .flat_map(|(ns, count)| (0..*count).map(move |n| format!("f{n}.{ns}.example")))
        .collect()
}

async fn functions_of_deleted_namespaces_are_gone_within_seconds(world: &mut World) -> Result<()> {
    let other = world.namespace("t-stays").await?;
    let first = world.spec("v1", "stays.example");
    world.serve(&other, "hello", first).await?;
    for (ns, count) in DELETED {
        world.namespace(ns).await?;
        for n in 0..count {
            let host = format!("f{n}.{ns}.example");
            let spec = world.spec("v1", &host);
            world.apply(ns, &format!("f{n}"), spec).await?;
        }
    }
    for (ns, count) in DELETED {
        for n in 0..count {
            let served = |f: &serde_json::Value| condition(f, "Ready").0 == "True";
            world.function(ns, &format!("f{n}"), LATER, served).await?;
        }
    }
    let load = world.load("stays.example", RATE)?;
    let namespaces: Api<Namespace> = Api::all(world.cluster.client());
    for (ns, _) in DELETED {
        namespaces.delete(ns, &DeleteParams::default()).await?;
    }
    world
        .until(async |w: &World| {
            for (ns, _) in DELETED {
                let api = w.objects.api(Kind::Function, ns);
                if !api.list(&ListParams::default()).await?.items.is_empty() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
    all_answer_no_route(world).await?;
    let pause = Duration::from_millis(200);
    wait::until(RELEASED, pause, async || {
        let claims = world.objects.api(Kind::Claim, "");
        let claims = claims.list(&ListParams::default()).await?.items;
        let owners = claims.iter().map(|claim| &claim.data["spec"]["namespace"]);
        let kept = owners.filter(|owner| DELETED.iter().any(|(ns, _)| *owner == ns));
        Ok((kept.count() == 0).then_some(()))
    })
    .await?;
    let seen = load.finish().await?;
    ensure!(seen.failed == 0, "the function that stays: {seen:?}");
    world
        .objects
        .wait(Kind::Claim, "", "stays.example", SOON, |_| true)
        .await?;
    Ok(())
}

async fn all_answer_no_route(world: &World) -> Result<()> {
    let pause = Duration::from_millis(200);
    let hosts = hosts();
    let mut last = String::new();
    let gone = wait::until(GONE, pause, async || {
        for node in world.nodes() {
            for host in &hosts {
                let answer = world.edge.get(node, host, "/").await?;
                if (answer.status, answer.error.as_str()) != (404, "no_route") {
                    last = format!("{host} on {node}: {answer:?}");
                    return Ok(None);
                }
            }
        }
        Ok(Some(()))
    })
    .await;
    ensure!(gone.is_ok(), "deleted functions answer: {last}");
    Ok(())
}
