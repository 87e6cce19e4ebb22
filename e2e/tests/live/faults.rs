//! Failures of parts. Functions continue to be served, and decisions are neither lost nor repeated.

use crate::{
    scenarios,
    world::{LATER, SOON, World, brisk},
};
use anyhow::{Context, Result, ensure};
use e2e::selvage::{NAMESPACE, condition};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Event, Pod},
};
use kube::{Api, api::ListParams};
use serde_json::Value;
use std::time::Duration;

scenarios![alone: [
    the_leader_is_killed_in_each_state,
    the_api_server_is_away_for_30_seconds,
    a_shim_starts_again_with_registry_and_operator_away,
    a_dead_node_does_not_stop_a_rollout,
]];

const RATE: u32 = 300;

/// Sends SIGKILL to the process of a container, like a crash: nothing terminates gracefully.
pub(crate) fn kill_container(world: &World, pod: &Pod) -> Result<()> {
    let status = pod.status.as_ref().context("no status")?;
    let id = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|c| c.container_id.clone())
        .context("no container")?;
    let id = id.rsplit_once('/').context("container id")?.1.to_owned();
    let on = pod
        .spec
        .as_ref()
        .and_then(|s| s.node_name.clone())
        .context("not placed")?;
    let node = world
        .cluster
        .nodes()
        .iter()
        .find(|n| n.name() == on)
        .context("no such node")?;
    let out = node
        .command("ctr")?
        .args(["-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", &id])
        .output()?;
    ensure!(
        out.status.success(),
        "ctr: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(())
}

pub(crate) async fn leader(world: &World) -> Result<Pod> {
    let leases: Api<Lease> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let lease = leases.get("selvage-operator").await?;
    let holder = lease
        .spec
        .and_then(|s| s.holder_identity)
        .context("no replica leads")?;
    let pod = holder.split('/').next().unwrap_or_default().to_owned();
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), NAMESPACE);
    Ok(pods.get(&pod).await?)
}

/// Returns the number of Events with a reason in a namespace.
async fn count_events(world: &World, ns: &str, reason: &str) -> Result<usize> {
    let events: Api<Event> = Api::namespaced(world.cluster.client(), ns);
    let found = events.list(&ListParams::default()).await?;
    Ok(found
        .items
        .iter()
        .filter(|e| e.reason.as_deref() == Some(reason))
        .count())
}

/// FC-5: SIGKILL of the leader while stepping, while baking and after a rollback loses and repeats nothing.
async fn the_leader_is_killed_in_each_state(world: &mut World) -> Result<()> {
    let ns = world.namespace("t-leader").await?;
    world
        .serve(&ns, "hello", brisk(world.spec("v1", "leader.example")))
        .await?;
    let load = world.load("leader.example", RATE)?;
    world
        .apply(&ns, "hello", brisk(world.spec("v2", "leader.example")))
        .await?;
    for state in ["Stepping", "Baking"] {
        let limit = LATER;
        world
            .function(&ns, "hello", limit, |f| {
                f["status"]["rollout"]["state"] == state
            })
            .await?;
        kill_container(world, &leader(world).await?)?;
    }
    let done = world
        .function(&ns, "hello", LATER, |f| {
            condition(f, "Ready").0 == "True"
                && f["status"]["resolved"]["digest"] == world.digests["v2"].as_str()
                && f["status"]["rollout"]["state"] == "Idle"
        })
        .await?;
    ensure!(
        done["status"]["history"][0]["outcome"] == "Promoted",
        "{}",
        done["status"]["history"]
    );
    ensure!(
        done["status"]["history"].as_array().map(Vec::len) == Some(2),
        "{}",
        done["status"]["history"]
    );
    // events follow the persisted transition: there must be two, and never a third
    world
        .until(async |w: &World| Ok(count_events(w, &ns, "Promoted").await? >= 2))
        .await?;
    let seen = load.finish().await?;
    ensure!(seen.failed == 0, "{seen:?}");

    let load = world.load("leader.example", RATE)?;
    world
        .apply(&ns, "hello", world.spec("v3", "leader.example"))
        .await?;
    let rolled_back = |f: &Value| f["status"]["phase"] == "RolledBack";
    let back = world.function(&ns, "hello", LATER, rolled_back).await?;
    let killed = leader(world).await?;
    kill_container(world, &killed)?;
    // the next leader does not try the rejected revision again
    world
        .until(async |w: &World| {
            Ok(leader(w)
                .await
                .is_ok_and(|l| l.metadata.uid != killed.metadata.uid || restarted(&l, &killed)))
        })
        .await?;
    let promotions = count_events(world, &ns, "Promoted").await?;
    ensure!(promotions == 2, "{promotions} promotions were reported");
    let after = world.function(&ns, "hello", SOON, rolled_back).await?;
    ensure!(
        after["status"]["history"] == back["status"]["history"],
        "{}",
        after["status"]["history"]
    );
    let seen = load.finish().await?;
    ensure!(seen.failed_of("v2") == 0, "{seen:?}");
    Ok(())
}

pub(crate) fn restarted(now: &Pod, before: &Pod) -> bool {
    let count = |pod: &Pod| {
        pod.status
            .as_ref()
            .and_then(|s| Some(s.container_statuses.as_ref()?.first()?.restart_count))
    };
    count(now) > count(before)
}

/// FC-1: an outage of the API server does not affect requests, and the rollout continues afterwards.
async fn the_api_server_is_away_for_30_seconds(world: &mut World) -> Result<()> {
    let ns = world.namespace("t-api").await?;
    world
        .serve(&ns, "hello", world.spec("v1", "api.example"))
        .await?;
    let load = world.load("api.example", RATE)?;
    world.cluster.control_plane.api_server.kill();
    // the outage itself is under test: this is not a wait for an event
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.cluster.control_plane.api_server.restart()?;
    world
        .until(async |w: &World| Ok(w.cluster.client().apiserver_version().await.is_ok()))
        .await?;
    let seen = load.finish().await?;
    ensure!(
        seen.failed == 0 && seen.total > u64::from(RATE) * 25,
        "{seen:?}"
    );
    // an edit right after the outage reaches every node
    let fresh = world.spec("v1", "api-fresh.example");
    world.apply(&ns, "fresh", fresh).await?;
    for node in world.nodes() {
        world
            .until(async |w: &World| {
                Ok(w.edge
                    .get(node, "api-fresh.example", "/")
                    .await
                    .is_ok_and(|a| a.version == "v1"))
            })
            .await?;
    }
    // and the rollout continues where it was
    world.cluster.nodes_ready(SOON).await?;
    world
        .apply(&ns, "hello", world.spec("v2", "api.example"))
        .await?;
    world
        .function(&ns, "hello", LATER, |f| {
            f["status"]["rollout"]["state"] != "Idle"
        })
        .await?;
    Ok(())
}

/// FN-2: everything else is unavailable, and the node serves what it has on disk.
async fn a_shim_starts_again_with_registry_and_operator_away(world: &mut World) -> Result<()> {
    let ns = world.namespace("t-disk").await?;
    world
        .serve(&ns, "hello", world.spec("v1", "disk.example"))
        .await?;
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let shims = pods
        .list(&ListParams::default().labels("app.kubernetes.io/component=node-shim"))
        .await?;
    let shim = shims.items.first().context("no shim")?.clone();
    let on = shim
        .spec
        .as_ref()
        .and_then(|s| s.node_name.clone())
        .context("not placed")?;
    let address = world
        .cluster
        .nodes()
        .iter()
        .find(|n| n.name() == on)
        .context("no node")?
        .address();
    scale_operator(world, 0)?;
    let gone = operators_are_gone(&pods).await;
    world
        .cluster
        .registry
        .as_mut()
        .context("no registry")?
        .process()
        .kill();
    kill_container(world, &shim)?;
    let name = shim.metadata.name.clone().unwrap_or_default();
    let came_back = world
        .until(async |_: &World| {
            let now = pods.get(&name).await?;
            let ready = now
                .status
                .as_ref()
                .and_then(|s| Some(s.container_statuses.as_ref()?.first()?.ready));
            Ok(restarted(&now, &shim) && ready == Some(true))
        })
        .await;
    let answered = world
        .until(async |w: &World| {
            Ok(w.edge
                .get(address, "disk.example", "/")
                .await
                .is_ok_and(|a| a.version == "v1"))
        })
        .await;
    scale_operator(world, 2)?;
    let registry = world.cluster.registry.as_mut().context("no registry")?;
    registry.process().restart()?;
    registry.ready().await?;
    gone.and(came_back).and(answered)?;
    e2e::cluster::rolled_out(
        &world.cluster,
        NAMESPACE,
        "deployment/selvage-operator",
        LATER,
    )
}

fn scale_operator(world: &World, replicas: u8) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    let operator = "deployment/selvage-operator";
    world.kubectl(&["-n", NAMESPACE, "scale", operator, &replicas])
}

/// Waits until no pod of an operator exists. After an outage of the API server, the controllers of Kubernetes look at a
/// Deployment again only after a minute.
async fn operators_are_gone(pods: &Api<Pod>) -> Result<()> {
    let operators = ListParams::default().labels("app.kubernetes.io/component=operator");
    let pause = Duration::from_millis(100);
    e2e::cluster::wait::until(LATER, pause, async || {
        Ok(pods.list(&operators).await?.items.is_empty().then_some(()))
    })
    .await
}

async fn a_dead_node_does_not_stop_a_rollout(world: &mut World) -> Result<()> {
    let ns = world.namespace("t-node").await?;
    world
        .serve(&ns, "hello", brisk(world.spec("v1", "node.example")))
        .await?;
    let last = world.cluster.nodes().len() - 1;
    let load = world.load_on("node.example", RATE, last)?;
    world
        .apply(&ns, "hello", brisk(world.spec("v2", "node.example")))
        .await?;
    world
        .function(&ns, "hello", SOON, |f| {
            f["status"]["rollout"]["state"] == "Stepping"
        })
        .await?;
    world.cluster.node(last)?.kill();
    let done = world
        .function(&ns, "hello", LATER, |f| {
            f["status"]["history"][0]["outcome"] == "Promoted"
                && f["status"]["rollout"]["state"] == "Idle"
                && f["status"]["resolved"]["digest"] == world.digests["v2"].as_str()
        })
        .await;
    world.cluster.node(last)?.restart()?;
    world.cluster.nodes_ready(LATER).await?;
    done?;
    let seen = load.finish().await?;
    ensure!(seen.failed == 0, "on the living nodes: {seen:?}");
    // the node returns with the version that was promoted meanwhile
    let back = world.nodes()[last];
    world
        .until(async |w: &World| {
            Ok(w.edge
                .get(back, "node.example", "/")
                .await
                .is_ok_and(|a| a.version == "v2"))
        })
        .await
}
