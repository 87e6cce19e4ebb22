//! Images that the registry no longer has.

use crate::{
    faults::{kill_container, restarted},
    scenarios,
    world::{LATER, World},
};
use anyhow::{Context, Result, ensure};
use e2e::{
    push::push_bytes,
    selvage::{self, NAMESPACE, condition},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use serde_json::Value;
use std::net::Ipv4Addr;

scenarios![alone: [a_removed_image_stops_only_the_node_that_lost_it]];

const HOST: &str = "removed.example";

/// FD-8: the image of a function is removed from the registry, and then one node loses its disk. The others serve, and
/// `Distributed` names the node and the reason until the image is pushed again.
async fn a_removed_image_stops_only_the_node_that_lost_it(world: &mut World) -> Result<()> {
    let ns = world.namespace("t-removed").await?;
    let image = world.images["v1"].replace("hello:v1", "removed:1");
    let mut component = std::fs::read(selvage::dist().join("examples/hello-v1.wasm"))?;
    // a custom section, so that no other function has this component
    component.extend([0, 5, 4, b'g', b'o', b'n', b'e']);
    let digest = push_bytes(&image, component.clone(), None).await?;
    let mut spec = world.spec("v1", HOST);
    spec["source"]["image"] = image.clone().into();
    world.serve(&ns, "removed", spec).await?;
    remove(&image, &digest).await?;
    let (name, address) = lose_the_disk_of_a_node(world).await?;

    let behind = world
        .function(&ns, "removed", LATER, |f| {
            let message = message_of(f, "Distributed");
            let parts = [name.as_str(), "PullFailed", "(404)"];
            condition(f, "Distributed").0 == "False"
                && parts.iter().all(|part| message.contains(part))
        })
        .await;
    let mut answers = Vec::new();
    for node in world.nodes() {
        answers.push((node, world.edge.get(node, HOST, "/").await?));
    }
    push_bytes(&image, component, None).await?;
    behind?;
    for (node, answer) in &answers {
        let expected = if *node == address { 503 } else { 200 };
        ensure!(answer.status == expected, "{node}: {answer:?}");
    }
    world
        .function(&ns, "removed", LATER, |f| {
            condition(f, "Distributed").0 == "True" && condition(f, "Ready").0 == "True"
        })
        .await?;
    let answer = world.edge.get(address, HOST, "/").await?;
    ensure!(answer.version == "v1", "{answer:?}");
    Ok(())
}

/// Removes a manifest from the registry. Its components are removed by the next garbage collection of the registry, which
/// makes no difference to nodes.
async fn remove(image: &str, digest: &str) -> Result<()> {
    let (registry, repository) = image.split_once('/').context("image reference")?;
    let repository = repository.split(':').next().unwrap_or_default();
    let url = format!("http://{registry}/v2/{repository}/manifests/{digest}");
    let response = reqwest::Client::new().delete(&url).send().await?;
    response.error_for_status()?;
    Ok(())
}

/// Empties the state directory of one node-shim and kills it. Returns its node when it is ready again.
async fn lose_the_disk_of_a_node(world: &World) -> Result<(String, Ipv4Addr)> {
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let shims = ListParams::default().labels("app.kubernetes.io/component=node-shim");
    let shims = pods.list(&shims).await?;
    let shim = shims.items.first().context("no shim")?;
    let on = shim.spec.as_ref().and_then(|s| s.node_name.as_deref());
    let on = on.context("not placed")?;
    let mut nodes = world.cluster.nodes().iter();
    let node = nodes.find(|n| n.name() == on).context("no node")?;
    let emptied = node
        .command("sh")?
        .args(["-c", "rm -rf /var/lib/selvage/*"])
        .status()?;
    ensure!(emptied.success(), "the state of {on} was not removed");
    kill_container(world, shim)?;
    let pod = shim.metadata.name.clone().unwrap_or_default();
    world
        .until(async |_: &World| {
            let now = pods.get(&pod).await?;
            let ready = now
                .status
                .as_ref()
                .and_then(|s| Some(s.container_statuses.as_ref()?.first()?.ready));
            Ok(restarted(&now, shim) && ready == Some(true))
        })
        .await?;
    Ok((on.to_owned(), node.address()))
}

fn message_of<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|c| c["type"] == kind));
    found
        .and_then(|c| c["message"].as_str())
        .unwrap_or_default()
}
