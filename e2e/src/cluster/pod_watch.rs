//! Runs commands that wait for pods and ends them early when one of the pods cannot become ready.

use super::{Cluster, control_plane::client, pod_failure::verdict};
use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::StreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Event, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    fmt::Debug,
    path::Path,
    pin::pin,
    process::{Command, Output},
    time::{Duration, Instant},
};

/// Time for which a pod may fail for a temporary reason before the wait ends.
const PATIENCE: Duration = Duration::from_secs(45);

/// Waits until a workload is rolled out, like `kubectl rollout status`.
///
/// # Errors
/// Returns an error when the workload is not rolled out after `limit`, or at once when a pod in the namespace cannot
/// become ready.
pub fn rolled_out(
    cluster: &Cluster,
    namespace: &str,
    workload: &str,
    limit: Duration,
) -> Result<()> {
    let timeout = format!("--timeout={}s", limit.as_secs());
    let mut kubectl = cluster.kubectl();
    kubectl.args(["-n", namespace, "rollout", "status", workload, &timeout]);
    let output = cluster.output_unless_hopeless(namespace, kubectl)?;
    ensure!(
        output.status.success(),
        "{workload} in {namespace}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Runs `command` to its end while watching the pods of a namespace.
///
/// # Errors
/// Returns an error when the command cannot be started or a pod of the namespace cannot become ready; the error then
/// has the complete reason.
pub(crate) fn output_unless_hopeless(
    kubeconfig: &Path,
    namespace: &str,
    command: Command,
) -> Result<Output> {
    let wait = async {
        let hopeless = hopeless(client(kubeconfig).await?, namespace);
        let mut command = tokio::process::Command::from(command);
        // dropping the wait ends the command
        command.kill_on_drop(true);
        tokio::select! {
            output = command.output() => output.context("start the command"),
            reason = hopeless => bail!("{}", reason?),
        }
    };
    // the caller may run on a runtime already, so this one is on a separate thread
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .context("make a runtime")?
                    .block_on(wait)
            })
            .join()
            .map_err(|_| anyhow!("waiting for pods ended abruptly"))?
    })
}

/// Completes with the reason once a pod of the namespace cannot become ready; otherwise never.
async fn hopeless(client: Client, namespace: &str) -> Result<String> {
    let mut pods = BTreeMap::new();
    let mut events = BTreeMap::new();
    let mut failing: BTreeMap<String, Instant> = BTreeMap::new();
    let mut pod_changes = pin!(changes::<Pod>(client.clone(), namespace));
    let mut event_changes = pin!(changes::<Event>(client, namespace));
    loop {
        let next = failing.values().min().map(|since| *since + PATIENCE);
        tokio::select! {
            change = pod_changes.next() => apply(&mut pods, change.context("the watch of pods ended")?),
            change = event_changes.next() => apply(&mut events, change.context("the watch of events ended")?),
            () = at(next) => {}
        }
        let all: Vec<Event> = events.values().cloned().collect();
        let now = Instant::now();
        failing.retain(|name, _| pods.contains_key(name));
        for (name, pod) in &pods {
            let Some(failure) = verdict(pod, &all) else {
                failing.remove(name);
                continue;
            };
            let since = *failing.entry(name.clone()).or_insert(now);
            if failure.certain || now.duration_since(since) >= PATIENCE {
                return Ok(failure.message);
            }
        }
    }
}

/// Completes at the given time, or never without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Returns the changes of objects of a kind. The watch reconnects while the API server is unavailable.
fn changes<K>(client: Client, namespace: &str) -> impl futures::Stream<Item = watcher::Event<K>>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    watcher(
        Api::<K>::namespaced(client, namespace),
        watcher::Config::default(),
    )
    .default_backoff()
    .filter_map(async |change| change.ok())
}

fn apply<K: ResourceExt>(objects: &mut BTreeMap<String, K>, change: watcher::Event<K>) {
    match change {
        watcher::Event::Init => objects.clear(),
        watcher::Event::InitDone => {}
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            objects.insert(object.name_any(), object);
        }
        watcher::Event::Delete(object) => {
            objects.remove(&object.name_any());
        }
    }
}
