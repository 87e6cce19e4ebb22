//! Faults of evidence, with the real Prometheus and its discovery of pods: verdicts stay right, and rollouts go on.
//! All functions use Prometheus only, so that the counters of the nodes hide nothing.

use crate::{
    rollouts::{outcome, rolled_back, stepping},
    scenarios, secrets,
    world::{LATER, SOON, Traffic, TrafficReport, World, brisk},
};
use anyhow::{Context, Result, ensure};
use e2e::{cluster::Prometheus, selvage::NAMESPACE};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

scenarios![
    together: [prometheus_finds_all_pods_and_evaluates_the_documented_alerts],
    alone: [
        a_rollout_goes_on_after_all_targets_were_renamed,
        a_second_job_for_the_same_pods_adds_no_evidence,
        a_replaced_pod_is_found_during_a_rollout,
        an_abort_acts_while_prometheus_hangs,
    ],
];

const RATE: u32 = 300;
/// Time for which targets have a wrong name.
const RENAMED: Duration = Duration::from_secs(12);

pub(crate) fn prometheus(world: &World) -> Result<&Prometheus> {
    world.cluster.prometheus.as_ref().context("no Prometheus")
}

/// Returns the spec of a function whose first step lasts long enough for everything that a scenario does meanwhile.
fn spec(world: &World, version: &str, host: &str, first: &str) -> Value {
    let mut spec = brisk(world.spec(version, host));
    spec["rollout"]["analysis"]["source"] = "Prometheus".into();
    spec["rollout"]["canary"]["steps"][0]["minDuration"] = first.into();
    spec
}

/// Starts the rollout of a good version, whose first step lasts at least `first`, and waits until it has requests.
pub(crate) async fn begin(world: &World, ns: &str, host: &str, first: &str) -> Result<Traffic> {
    world
        .serve(ns, "hello", spec(world, "v1", host, first))
        .await?;
    let load = world.load(host, RATE)?;
    world
        .apply(ns, "hello", spec(world, "v2", host, first))
        .await?;
    world.function(ns, "hello", SOON, stepping).await?;
    Ok(load)
}

/// Checks that the rollout still runs, so that what a scenario does happens in the middle of it.
async fn still_runs(world: &World, ns: &str) -> Result<()> {
    let running = |f: &Value| stepping(f) || rolled_back(f);
    let now = world.function(ns, "hello", SOON, running).await?;
    ensure!(!rolled_back(&now), "{}", now["status"]["history"][0]);
    Ok(())
}

/// Waits for the promotion. Stable and candidate must not have failed a request, and the evidence must not have more
/// requests of the candidate than the clients.
pub(crate) async fn promoted(world: &World, ns: &str, load: Traffic) -> Result<TrafficReport> {
    let ended = |f: &Value| rolled_back(f) || outcome(f).0 == "Promoted" && !stepping(f);
    let is_new = |f: &Value| f["status"]["history"][1].is_object() && ended(f);
    let done = world.function(ns, "hello", LATER, is_new).await?;
    ensure!(
        outcome(&done).0 == "Promoted",
        "{}",
        done["status"]["history"][0]
    );
    let seen = load.finish().await?;
    ensure!(
        seen.failed_of("v1") == 0 && seen.failed_of("v2") == 0,
        "{seen:?}"
    );
    let counted = &done["status"]["rollout"]["evidence"]["candidate"]["requests"];
    let counted = counted.as_u64().context("no evidence")?;
    ensure!(
        counted > 0 && counted <= seen.answered("v2"),
        "{counted} requests of v2 were counted: {seen:?}"
    );
    Ok(seen)
}

/// Waits until a query has a result whose first value is `wanted`.
pub(crate) async fn until_value(
    world: &World,
    query: &str,
    wanted: impl Fn(f64) -> bool,
) -> Result<()> {
    let read = async |world: &World| {
        let result = prometheus(world)?.query(query).await?;
        let value = result[0]["value"][1]
            .as_str()
            .and_then(|text| text.parse::<f64>().ok());
        Ok(value.is_some_and(&wanted))
    };
    let waited = world.until(read).await;
    waited.with_context(|| format!("wait for {query}"))
}

/// Adds a rule to a list of the job that finds pods.
fn relabel(config: &mut Value, list: &str, rule: Value) {
    let job = &mut config["scrape_configs"][0];
    let mut rules = job[list].as_array().cloned().unwrap_or_default();
    rules.push(rule);
    job[list] = rules.into();
}

/// The local cluster uses the documented scrape job, and every alert of the documentation can be evaluated.
async fn prometheus_finds_all_pods_and_evaluates_the_documented_alerts(
    world: &World,
) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let pods = pods.list(&ListParams::default()).await?.items;
    let wanted: BTreeSet<String> = pods.iter().map(ResourceExt::name_any).collect();
    ensure!(
        wanted.len() == 5,
        "two operators and three shims: {wanted:?}"
    );
    world
        .until(async |world| {
            let targets = prometheus(world)?.targets().await?;
            let up = targets
                .iter()
                .filter(|target| target["scrapePool"] == "selvage" && target["health"] == "up");
            let found = up.filter_map(|target| target["labels"]["pod"].as_str());
            Ok(found.map(str::to_owned).collect::<BTreeSet<_>>() == wanted)
        })
        .await?;
    for (metric, component, count) in [
        ("process_start_time_seconds", "node-shim", 3.0),
        ("selvage_leading", "operator", 2.0),
    ] {
        let query = format!(
            "count({metric}{{namespace=\"{NAMESPACE}\",job=\"{component}\",node=~\"node.\"}})"
        );
        until_value(world, &query, |value| value == count).await?;
    }
    world
        .until(async |world| {
            let alerts = prometheus(world)?.alerts().await?;
            // "unknown" before the first evaluation
            let with =
                |health: &'static str| alerts.iter().filter(move |one| one["health"] == health);
            let failed = with("err").next();
            ensure!(failed.is_none(), "{failed:?}");
            Ok(!alerts.is_empty() && with("ok").count() == alerts.len())
        })
        .await
}

/// FE-3: for some seconds, all node-shims have the name of one node, first as a label of their targets and then in
/// what they write.
async fn a_rollout_goes_on_after_all_targets_were_renamed(world: &mut World) -> Result<()> {
    let world = &*world;
    let ns = world.namespace("t-renamed").await?;
    let load = begin(world, &ns, "renamed.example", "60s").await?;
    let other = world.nodes().len() - 1;
    let other = world.cluster.nodes()[other].name();
    let count = format!(
        "count(selvage_node_info{{namespace=\"{NAMESPACE}\",job=\"node-shim\",node_name=\"{other}\"}})"
    );
    for list in ["relabel_configs", "metric_relabel_configs"] {
        let rule = json!({ "target_label": "node_name", "replacement": other });
        let prometheus = prometheus(world)?;
        prometheus
            .reconfigure(|config| relabel(config, list, rule))
            .await?;
        until_value(world, &count, |value| value >= 3.0).await?;
        // the duration of the fault is a part of it: this is not a wait for an event
        tokio::time::sleep(RENAMED).await;
        prometheus.reconfigure(|_| ()).await?;
        until_value(world, &count, |value| value == 1.0).await?;
    }
    still_runs(world, &ns).await?;
    let seen = promoted(world, &ns, load).await?;
    ensure!(seen.failed == 0, "{seen:?}");
    Ok(())
}

/// FE-3: another job scrapes the same pods, so that every series exists twice. The rollout goes on, or is held with a
/// reason and goes on after the job has been removed.
async fn a_second_job_for_the_same_pods_adds_no_evidence(world: &mut World) -> Result<()> {
    let world = &*world;
    let ns = world.namespace("t-doubled").await?;
    let load = begin(world, &ns, "doubled.example", "20s").await?;
    prometheus(world)?
        .reconfigure(|config| {
            let mut again = config.clone();
            relabel(
                &mut again,
                "relabel_configs",
                json!({ "target_label": "job", "replacement": "again" }),
            );
            let mut again = again["scrape_configs"][0].take();
            again["job_name"] = "again".into();
            if let Some(jobs) = config["scrape_configs"].as_array_mut() {
                jobs.push(again);
            }
        })
        .await?;
    let doubled = "count(selvage_node_info{job=\"again\"})";
    until_value(world, doubled, |value| value == 3.0).await?;
    still_runs(world, &ns).await?;
    let goes_on = |f: &Value| {
        let rollout = &f["status"]["rollout"];
        rollout["step"].as_u64() > Some(0) || rollout["hold"].is_object() || !stepping(f)
    };
    let during = world.function(&ns, "hello", LATER, goes_on).await?;
    ensure!(!rolled_back(&during), "{}", during["status"]["history"][0]);
    prometheus(world)?.reconfigure(|_| ()).await?;
    // the series of a job that is gone stay for five minutes, so wait for its targets
    world
        .until(async |world| {
            let targets = prometheus(world)?.targets().await?;
            Ok(!targets.iter().any(|target| target["scrapePool"] == "again"))
        })
        .await?;
    let seen = promoted(world, &ns, load).await?;
    ensure!(seen.failed == 0, "{seen:?}");
    Ok(())
}

/// FE-3: the pod of a node-shim is replaced by another one with another name and address. No program but Prometheus
/// has a part in finding it, so a cluster that `make demo KEEP=1` left behind finds it as well.
async fn a_replaced_pod_is_found_during_a_rollout(world: &mut World) -> Result<()> {
    let world = &*world;
    let ns = world.namespace("t-replaced").await?;
    // a pod that drains needs up to 75 s
    let load = begin(world, &ns, "replaced.example", "100s").await?;
    let names = async || -> Result<BTreeSet<String>> {
        let pods = secrets::shims(world).await?;
        Ok(pods.iter().map(ResourceExt::name_any).collect())
    };
    let before = names().await?;
    secrets::replace(world).await?;
    let after = names().await?;
    let new = after.difference(&before).next().context("no new pod")?;
    for query in [
        format!("up{{pod=\"{new}\"}}"),
        format!("sum(selvage_requests_total{{pod=\"{new}\",function_namespace=\"{ns}\"}})"),
    ] {
        until_value(world, &query, |value| value > 0.0).await?;
    }
    still_runs(world, &ns).await?;
    // while the node has no pod, clients get no response from it
    let seen = promoted(world, &ns, load).await?;
    ensure!(seen.answered("v2") > 0, "{seen:?}");
    Ok(())
}

/// FE-1: Prometheus accepts connections and does not answer. The status names this, and an abort does not wait for it.
async fn an_abort_acts_while_prometheus_hangs(world: &mut World) -> Result<()> {
    let ns = world.namespace("t-frozen").await?;
    let load = begin(world, &ns, "frozen.example", "60s").await?;
    let prometheus = world.cluster.prometheus.as_mut().context("no Prometheus")?;
    prometheus.process().freeze()?;
    let aborted = abort_without_an_answer(world, &ns).await;
    let prometheus = world.cluster.prometheus.as_mut().context("no Prometheus")?;
    prometheus.process().thaw()?;
    let aborted = aborted?;
    ensure!(
        outcome(&aborted).0 == "Aborted",
        "{}",
        aborted["status"]["history"][0]
    );
    let seen = load.finish().await?;
    ensure!(seen.failed == 0, "{seen:?}");
    Ok(())
}

async fn abort_without_an_answer(world: &World, ns: &str) -> Result<Value> {
    let named = |f: &Value| {
        let message = f["status"]["message"].as_str().unwrap_or_default();
        message.contains("Prometheus has not answered")
    };
    let waiting = world.function(ns, "hello", LATER, named).await?;
    let candidate = waiting["status"]["candidate"]["revision"]
        .as_str()
        .context("no candidate")?;
    world
        .objects
        .annotate(ns, "hello", "abort", candidate)
        .await?;
    world.function(ns, "hello", SOON, rolled_back).await
}
