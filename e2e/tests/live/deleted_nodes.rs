//! Nodes whose object is deleted while they run.

use crate::{
    scenarios,
    world::{LATER, SOON, World},
};
use anyhow::{Context, Result, ensure};
use e2e::selvage::NAMESPACE;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};

scenarios![alone: [a_deleted_node_answers_until_its_pod_is_gone]];

const HOST: &str = "departed.example";
const RATE: u32 = 100;

/// `kubectl delete node`, as at the end of a drain: the node-shim runs and receives requests until Kubernetes deletes its pod.
/// The node returns with all functions when kubelet registers it again.
async fn a_deleted_node_answers_until_its_pod_is_gone(world: &mut World) -> Result<()> {
    let ns = world.namespace("t-departed").await?;
    world.serve(&ns, "hello", world.spec("v1", HOST)).await?;
    let count = world.nodes().len();
    let first = world.cluster.nodes().first().context("no node")?;
    let (name, address) = (first.name().to_owned(), first.address());
    let shim = shim_of(world, &name).await?.context("no node-shim")?;
    let load = world.load_on(HOST, RATE, 1)?;
    world.kubectl(&["delete", "node", &name])?;
    let counted = world
        .function(&ns, "hello", SOON, |f| {
            f["status"]["nodes"]["desired"] == count - 1
        })
        .await;
    let mut answers = Vec::new();
    for _ in 0..RATE {
        answers.push(world.edge.get(address, HOST, "/").await);
    }
    let seen = load.finish().await;
    let still = shim_of(world, &name).await;
    world.cluster.node(0)?.restart()?;
    world.cluster.nodes_ready(LATER).await?;
    counted?;
    let seen = seen?;
    ensure!(
        still? == Some(shim),
        "{name} lost its pod: nothing was measured"
    );
    ensure!(seen.failed == 0, "on the deleted node: {seen:?}");
    for answer in answers {
        let answer = answer?;
        ensure!(answer.version == "v1", "{answer:?}");
    }
    world
        .function(&ns, "hello", LATER, |f| {
            f["status"]["nodes"]["applied"] == count
        })
        .await?;
    world
        .until(async |w: &World| {
            let answer = w.edge.get(address, HOST, "/").await;
            Ok(answer.is_ok_and(|answer| answer.version == "v1"))
        })
        .await
}

/// Returns the uid of the pod of the node-shim on a node.
async fn shim_of(world: &World, node: &str) -> Result<Option<String>> {
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let there = ListParams::default()
        .labels("app.kubernetes.io/component=node-shim")
        .fields(&format!("spec.nodeName={node}"));
    let found = pods.list(&there).await?;
    Ok(found
        .items
        .into_iter()
        .next()
        .and_then(|pod| pod.metadata.uid))
}
