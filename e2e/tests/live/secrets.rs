//! Functions that use values of Secrets, while pods are replaced, crash and restart. The example component answers
//! with the value that it receives.

use crate::{
    faults::{kill_container, restarted},
    scenarios,
    world::{LATER, SOON, World, brisk},
};
use anyhow::{Context, Result, ensure};
use e2e::selvage::{Answer, NAMESPACE, condition};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

scenarios![alone: [
    secrets_stay_when_a_shim_is_replaced,
    secrets_come_back_when_a_shim_crashes,
    secrets_that_changed_are_never_empty,
    the_operators_own_secret_is_restored_with_the_same_content,
]];

const RATE: u32 = 100;
/// Time for which requests continue after a change. Errors with a lock or a stream appear within seconds.
const AFTERWARDS: Duration = Duration::from_secs(30);

/// Creates a namespace that grants its Secrets to the operator.
pub(crate) async fn granted(world: &World, name: &str) -> Result<String> {
    let ns = world.namespace(name).await?;
    world.kubectl(&[
        "create",
        "rolebinding",
        "selvage-secrets",
        "--namespace",
        &ns,
        "--clusterrole",
        "selvage-secrets-reader",
        "--serviceaccount",
        &format!("{NAMESPACE}:selvage-operator"),
    ])?;
    Ok(ns)
}

async fn write_secret(world: &World, ns: &str, value: &str) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(world.cluster.client(), ns);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "greeting" },
        "stringData": { "word": value },
    });
    let manager = PatchParams::apply("e2e").force();
    api.patch("greeting", &manager, &Patch::Apply(&secret))
        .await?;
    Ok(())
}

/// Returns the spec of a function that answers with the value of the Secret.
fn spec(world: &World, host: &str) -> Value {
    let mut spec = brisk(world.spec("v1", host));
    let reference = json!({ "secretKeyRef": { "name": "greeting", "key": "word" } });
    spec["env"] = json!([{ "name": "GREETING", "valueFrom": reference }]);
    spec
}

/// The pods of node-shims, without those that still drain, such as after an upgrade of the chart.
pub(crate) async fn shims(world: &World) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let shims = ListParams::default().labels("app.kubernetes.io/component=node-shim");
    let mut found = pods.list(&shims).await?.items;
    found.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(found)
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_ref());
    statuses.is_some_and(|all| all.iter().all(|one| one.ready))
}

fn address(world: &World, pod: &Pod) -> Result<Ipv4Addr> {
    let on = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let on = on.context("not placed")?;
    let nodes = world.cluster.nodes();
    let node = nodes.iter().find(|node| node.name() == on);
    Ok(node.context("no such node")?.address())
}

/// Deletes the pod of a node-shim and waits until it is gone and another one is ready on its node. Returns the node.
pub(crate) async fn replace(world: &World) -> Result<Ipv4Addr> {
    let before = shims(world).await?;
    let old = before.first().context("no shim")?;
    let on = address(world, old)?;
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), NAMESPACE);
    pods.delete(name(old), &DeleteParams::default()).await?;
    let limit = Instant::now() + LATER;
    while Instant::now() < limit {
        let now = shims(world).await?;
        let gone = pods.get_opt(name(old)).await?.is_none();
        if gone && now.len() == before.len() && now.iter().all(is_ready) {
            return Ok(on);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("no pod took the place of {}", name(old))
}

/// Sends requests to every node for [`AFTERWARDS`]. Every response must be correct.
async fn answers(
    world: &World,
    nodes: &[Ipv4Addr],
    host: &str,
    good: impl Fn(&Answer) -> bool,
) -> Result<()> {
    let end = Instant::now() + AFTERWARDS;
    while Instant::now() < end {
        for node in nodes {
            let answer = world.edge.get(*node, host, "/").await?;
            ensure!(good(&answer), "{node}: {answer:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn shows(answer: &Answer, word: &str) -> bool {
    answer.status == 200 && answer.body == format!("{word} from v1\n")
}

/// The Secret never changes; the pod of one node is replaced under load.
async fn secrets_stay_when_a_shim_is_replaced(world: &mut World) -> Result<()> {
    let ns = granted(world, "t-secrets-replaced").await?;
    let host = "secrets-replaced.example";
    write_secret(world, &ns, "one").await?;
    world.serve(&ns, "hello", spec(world, host)).await?;
    let load = world.load(host, RATE)?;
    replace(world).await?;
    answers(world, &world.nodes(), host, |answer| shows(answer, "one")).await?;
    let seen = load.finish().await?;
    ensure!(seen.failed == 0 && seen.unattributed() == 0, "{seen:?}");
    let after = world.ready(&ns, "hello").await?;
    ensure!(
        condition(&after, "Distributed").0 == "True",
        "{}",
        after["status"]
    );
    Ok(())
}

/// After SIGKILL, a node-shim answers again with its values of Secrets, and no request is answered without them.
async fn secrets_come_back_when_a_shim_crashes(world: &mut World) -> Result<()> {
    let ns = granted(world, "t-secrets-crashed").await?;
    let host = "secrets-crashed.example";
    write_secret(world, &ns, "one").await?;
    world.serve(&ns, "hello", spec(world, host)).await?;
    let shims = shims(world).await?;
    let shim = shims.first().context("no shim")?;
    let on = address(world, shim)?;
    kill_container(world, shim)?;
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let limit = Instant::now() + SOON;
    loop {
        // a node without a process refuses connections; a node with a process must answer correctly
        if let Ok(answer) = world.edge.get(on, host, "/").await {
            ensure!(shows(&answer, "one"), "{on}: {answer:?}");
        }
        let now = pods.get(name(shim)).await?;
        if restarted(&now, shim) && is_ready(&now) {
            break;
        }
        ensure!(Instant::now() < limit, "it did not start again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world
        .until(async |w: &World| Ok(w.edge.get(on, host, "/").await.is_ok()))
        .await?;
    answers(world, &world.nodes(), host, |answer| shows(answer, "one")).await
}

/// A Secret is changed and its rollout aborted; then both operators restart and no longer have the former value.
async fn secrets_that_changed_are_never_empty(world: &mut World) -> Result<()> {
    let ns = granted(world, "t-secrets-changed").await?;
    let host = "secrets-changed.example";
    write_secret(world, &ns, "one").await?;
    let served = world.serve(&ns, "hello", spec(world, host)).await?;
    let stable = served["status"]["stable"]["revision"].clone();
    write_secret(world, &ns, "two").await?;
    let on_trial = world
        .function(&ns, "hello", SOON, |f| {
            f["status"]["candidate"]["revision"].is_string()
        })
        .await?;
    let candidate = on_trial["status"]["candidate"]["revision"].as_str();
    let candidate = candidate.context("no candidate")?;
    world
        .objects
        .annotate(&ns, "hello", "abort", candidate)
        .await?;
    world
        .function(&ns, "hello", SOON, |f| f["status"]["phase"] == "RolledBack")
        .await?;
    let operator = "deployment/selvage-operator";
    world.kubectl(&["-n", NAMESPACE, "rollout", "restart", operator])?;
    e2e::cluster::rolled_out(&world.cluster, NAMESPACE, operator, LATER)?;
    answers(world, &world.nodes(), host, |answer| shows(answer, "one")).await?;
    let known = world
        .function(&ns, "hello", SOON, |f| {
            condition(f, "Distributed") == ("True", "SecretsInMemoryOnly")
        })
        .await?;
    let text = known["status"]["conditions"].to_string();
    let stable = stable.as_str().context("no stable")?;
    let retry = format!("selvage.dev/retry={candidate}");
    for part in [stable, "greeting", &retry] {
        ensure!(text.contains(part), "{part} is missing in {text}");
    }

    // a pod that starts now cannot have the value: it answers 503 and does not run without
    let on = replace(world).await?;
    let refused = |answer: &Answer| answer.status == 503 && answer.error == "secrets_unavailable";
    answers(world, &[on], host, refused).await?;
    world
        .function(&ns, "hello", SOON, |f| {
            condition(f, "Distributed") == ("False", "SecretsUnavailable")
        })
        .await?;
    let others: Vec<Ipv4Addr> = world
        .nodes()
        .into_iter()
        .filter(|node| *node != on)
        .collect();
    for node in others {
        let answer = world.edge.get(node, host, "/").await?;
        ensure!(shows(&answer, "one"), "{node}: {answer:?}");
    }
    // the command in the condition helps
    write_secret(world, &ns, "one").await?;
    world
        .until(async |w: &World| Ok(shows(&w.edge.get(on, host, "/").await?, "one")))
        .await?;
    let back = world.ready(&ns, "hello").await?;
    ensure!(
        back["status"]["stable"]["revision"] == stable,
        "{}",
        back["status"]
    );
    Ok(())
}

/// `kubectl delete secret selvage-node-api`, as a prune does that knows only what is in Git: nodes that start find their
/// CA, and functions with references keep their revisions.
async fn the_operators_own_secret_is_restored_with_the_same_content(
    world: &mut World,
) -> Result<()> {
    const OWN: &str = "selvage-node-api";
    let ns = granted(world, "t-secrets-own").await?;
    let host = "secrets-own.example";
    write_secret(world, &ns, "one").await?;
    let before = world.serve(&ns, "hello", spec(world, host)).await?;
    let secrets: Api<Secret> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let old = secrets.get(OWN).await?;
    secrets.delete(OWN, &DeleteParams::default()).await?;
    world
        .until(async |_: &World| {
            let new = secrets.get_opt(OWN).await?;
            Ok(new.is_some_and(|new| new.metadata.uid != old.metadata.uid && new.data == old.data))
        })
        .await?;
    replace(world).await?;
    answers(world, &world.nodes(), host, |answer| shows(answer, "one")).await?;
    let after = world.ready(&ns, "hello").await?;
    ensure!(
        before["status"]["stable"]["revision"] == after["status"]["stable"]["revision"],
        "{}",
        after["status"]
    );
    Ok(())
}
