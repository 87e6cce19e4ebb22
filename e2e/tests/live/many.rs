//! Many functions at once: the work of the leader is proportional to the number of functions, not to its square.
//!
//! `SELVAGE_MANY=2000 cargo test --workspace --test live -- many` tries more functions than the usual 300.

use crate::{
    faults::leader,
    scenarios,
    world::{SOON, World},
};
use anyhow::{Context, Result, ensure};
use e2e::selvage::{Kind, NAMESPACE, condition};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::ListParams};
use std::time::{Duration, Instant};

scenarios![alone: [many_functions_cost_each_a_few_reconciles]];

/// Maximum number of reconciles of the leader per function, from the first to the last status write. The usual number
/// is about 15.
const RECONCILES: f64 = 40.0;
/// Status writes per second that the leader makes for changes on nodes to functions without a rollout.
const WRITES_PER_SECOND: u64 = 5;
/// Number of concurrent requests of the test to the API server.
const AT_ONCE: usize = 16;
/// Period without changes in which the leader must be idle.
const REST: Duration = Duration::from_secs(20);

/// Counters of the leader since it started.
#[derive(Debug)]
struct Work {
    reconciles: f64,
    status_writes: f64,
    cpu: f64,
    /// Resident memory, in bytes.
    memory: f64,
}

async fn many_functions_cost_each_a_few_reconciles(world: &mut World) -> Result<()> {
    let count: usize = std::env::var("SELVAGE_MANY").map_or(Ok(300), |count| count.parse())?;
    let world = &*world;
    let ns = world.namespace("t-many").await?;
    let pod = leader(world).await?;
    let (begin, before) = (Instant::now(), work(world, &pod).await?);
    let apply = async |n: usize| {
        let (name, host) = (format!("f-{n}"), format!("f-{n}.many.example"));
        world.apply(&ns, &name, world.spec("v1", &host)).await
    };
    futures::stream::iter(0..count)
        .map(apply)
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    let line = Duration::from_secs(count as u64 / WRITES_PER_SECOND);
    let pause = Duration::from_secs(2);
    let limit = line * 2 + SOON * 2;
    e2e::cluster::wait::until(limit, pause, async || {
        let missing = count - distributed(world, &ns).await?;
        Ok((missing == 0).then_some(()))
    })
    .await?;
    let (took, after) = (begin.elapsed(), work(world, &pod).await?);
    tokio::time::sleep(REST).await;
    let rested = work(world, &pod).await?;
    println!(
        "    {count} functions in {:.0} s: {:.1} reconciles, {:.1} status writes and {:.1} ms of the leader's CPU each, \
         {:.1} s in all; at rest {:.2} % of a core and {:.1} KiB of its memory each, {:.0} MiB in all",
        took.as_secs_f64(),
        (after.reconciles - before.reconciles) / count as f64,
        (after.status_writes - before.status_writes) / count as f64,
        (after.cpu - before.cpu) / count as f64 * 1e3,
        after.cpu - before.cpu,
        (rested.cpu - after.cpu) / REST.as_secs_f64() * 100.0,
        (rested.memory - before.memory) / count as f64 / 1024.0,
        rested.memory / 1024.0 / 1024.0,
    );
    ensure!(
        after.reconciles - before.reconciles <= RECONCILES * count as f64,
        "{before:?}, then {after:?}"
    );
    ensure!(
        rested.reconciles - after.reconciles <= count as f64 / 10.0,
        "{after:?}, after {REST:?} without a change {rested:?}"
    );
    let now = leader(world).await?;
    ensure!(now.uid() == pod.uid(), "another replica leads now");
    Ok(())
}

/// Returns the number of functions that are Ready and that all nodes serve, according to their status.
async fn distributed(world: &World, ns: &str) -> Result<usize> {
    let all = world.objects.api(Kind::Function, ns);
    let all = all.list(&ListParams::default()).await?.items;
    let settled = all.iter().filter(|function| {
        let status = &function.data["status"];
        let whole = serde_json::json!({ "status": status });
        condition(&whole, "Ready").0 == "True"
            && status["nodes"]["applied"] == status["nodes"]["desired"]
            && status["nodes"]["desired"] == world.nodes().len()
    });
    Ok(settled.count())
}

async fn work(world: &World, pod: &Pod) -> Result<Work> {
    let path = format!(
        "/api/v1/namespaces/{NAMESPACE}/pods/{}:9180/proxy/metrics",
        pod.name_any()
    );
    let request = http::Request::get(path).body(Vec::new())?;
    let text = world.cluster.client().request_text(request).await?;
    let sum = |series: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(series));
        lines
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    };
    let (cpu, memory) = processor_and_memory(pod)?;
    Ok(Work {
        reconciles: sum("selvage_reconcile_seconds_count"),
        status_writes: sum("selvage_status_writes_total"),
        cpu,
        memory,
    })
}

/// Returns the CPU time, in seconds, and the resident memory, in bytes, of the processes of a pod, whose node runs on this
/// machine.
fn processor_and_memory(pod: &Pod) -> Result<(f64, f64)> {
    let uid = pod.uid().context("no uid")?;
    let (mut ticks, mut kibibytes) = (0, 0);
    for process in std::fs::read_dir("/proc")?
        .flatten()
        .map(|entry| entry.path())
    {
        let read = |file: &str| std::fs::read_to_string(process.join(file)).unwrap_or_default();
        let groups = read("cgroup");
        if !groups.contains(&uid) && !groups.contains(&uid.replace('-', "_")) {
            continue;
        }
        let stat = read("stat");
        // utime and stime are the 14th and 15th field; the second may contain spaces
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let times = fields.split_whitespace().skip(11).take(2);
        ticks += times
            .filter_map(|time| time.parse::<u64>().ok())
            .sum::<u64>();
        let status = read("status");
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        kibibytes += resident
            .and_then(|size| size.trim().parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok((ticks as f64 / 100.0, kibibytes as f64 * 1024.0))
}
