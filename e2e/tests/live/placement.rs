//! Functions on some of the nodes: every node answers for them.

use crate::{
    scenarios,
    world::{LATER, World},
};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

scenarios![together: [scaling_loses_no_request_on_any_node]];

const HOST: &str = "scaled.example";

/// `kubectl scale --replicas=1` and back. Requests are sent to every node all the time, and none fails.
async fn scaling_loses_no_request_on_any_node(world: &World) -> Result<()> {
    let ns = world.namespace("t-scale").await?;
    world.serve(&ns, "hello", world.spec("v1", HOST)).await?;
    ensure!(world.nodes().len() >= 3, "{} nodes", world.nodes().len());
    let load = world.load(HOST, 100)?;
    for replicas in [1, 3, 2, 1, 3] {
        scale(world, &ns, replicas)?;
        world
            .function(&ns, "hello", LATER, |f| {
                f["status"]["replicas"] == replicas && f["status"]["nodes"]["applied"] == replicas
            })
            .await?;
        for node in world.nodes() {
            let answer = world.edge.get(node, HOST, "/").await?;
            ensure!(answer.status == 200, "{node} with {replicas}: {answer:?}");
        }
    }
    moves_to_other_nodes(world, &ns).await?;
    let seen = load.finish().await?;
    ensure!(seen.failed == 0 && seen.total > 0, "{seen:?}");
    let anywhere = json!({ "spec": { "placement": { "nodeSelector": null } } });
    patch(world, &ns, &anywhere)?;
    scale(world, &ns, 0)?;
    world
        .until(async |w| {
            for node in w.nodes() {
                let answer = w.edge.get(node, HOST, "/").await?;
                if (answer.status, answer.error.as_str()) != (503, "not_placed") {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
}

/// The function moves from one node to another, and to a third, each of which has dropped it before.
async fn moves_to_other_nodes(world: &World, ns: &str) -> Result<()> {
    let names: Vec<String> = world
        .cluster
        .nodes()
        .iter()
        .map(|n| n.name().to_owned())
        .collect();
    for name in &names {
        let selector = json!({ "kubernetes.io/hostname": name });
        let there = json!({ "spec": { "placement": { "nodeSelector": selector } } });
        patch(world, ns, &there)?;
        world
            .function(ns, "hello", LATER, |f| {
                f["status"]["nodes"]["serving"] == json!([name])
                    && f["status"]["nodes"]["desired"] == 1
                    && f["status"]["nodes"]["applied"] == 1
            })
            .await?;
        for node in world.nodes() {
            let answer = world.edge.get(node, HOST, "/").await?;
            ensure!(answer.status == 200, "{node}, placed on {name}: {answer:?}");
        }
    }
    Ok(())
}

fn patch(world: &World, ns: &str, change: &Value) -> Result<()> {
    let change = change.to_string();
    world.kubectl(&[
        "patch",
        "ef",
        "hello",
        "-n",
        ns,
        "--type=merge",
        "-p",
        &change,
    ])
}

fn scale(world: &World, ns: &str, replicas: u32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    world.kubectl(&["scale", "ef", "hello", "-n", ns, &replicas])
}
