//! Mixed traffic for half an hour: functions in six languages, calls, outbound requests and key-value stores, with one rollout after
//! another and then with upgrades of the node-shims. `make soak` runs it, because it takes too long for every change; `SELVAGE_SOAK_MINUTES`
//! sets another duration.

use crate::{
    egress, languages,
    rollouts::outcome,
    scenarios,
    world::{LATER, SETTINGS, World},
};
use anyhow::{Context, Result, ensure};
use e2e::{
    load::{Load, Plan, Samples},
    push::push_component,
    selvage::{self, EDGE_PORT, NAMESPACE, helm_upgrade},
};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

scenarios![alone: [a_soak_loses_no_request_and_keeps_nothing]];

const NS: &str = "t-soak";
const HOST: &str = "hello.soak.example";
/// Requests per second to the function that is rolled out all the time.
const RATE: u32 = 500;
/// Part of the time with rollouts; the rest is for upgrades.
const ROLLOUTS: f64 = 0.7;
/// Growth that counts as noise: memory in KiB, open files and threads of one pod.
const NOISE: Usage = Usage {
    kibibytes: 24 << 10,
    files: 40,
    threads: 12,
};

/// What the processes of a pod use.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    kibibytes: u64,
    files: u64,
    threads: u64,
}

/// Reads one of the values.
type Measure = fn(&Usage) -> u64;

async fn a_soak_loses_no_request_and_keeps_nothing(world: &mut World) -> Result<()> {
    let minutes = std::env::var("SELVAGE_SOAK_MINUTES").map_or(Ok(30.0), |text| text.parse())?;
    let all = Duration::from_secs_f64(60.0 * minutes);
    let world = &*world;
    let traffic = start(world).await?;
    let begin = Instant::now();
    let mut usage = Vec::new();
    let mut rollouts = 0;
    let mut next = begin;
    while begin.elapsed() < all.mul_f64(ROLLOUTS) {
        let version = if rollouts % 2 == 0 { "v2" } else { "v1" };
        roll_out(world, version)
            .await
            .with_context(|| format!("rollout {rollouts}"))?;
        rollouts += 1;
        if Instant::now() >= next {
            usage.push(pods(world).await?);
            next += all.mul_f64(ROLLOUTS) / 16;
        }
    }
    let mut upgrades = 0;
    while begin.elapsed() < all {
        let label = format!("nodeShim.podAnnotations.upgrade=u{upgrades}");
        let settings = [&SETTINGS[..], &[&label]].concat();
        tokio::task::block_in_place(|| helm_upgrade(&world.cluster, &settings))?;
        upgrades += 1;
    }
    println!("    {rollouts} rollouts, then {upgrades} upgrades of three node-shims");
    let mut lost = Vec::new();
    for (name, load) in traffic {
        let samples: Arc<Samples> = tokio::task::spawn_blocking(|| load.finish()).await?;
        let seen = samples.all(..);
        println!(
            "    {name}: {} requests, {} failed, p95 {:?}",
            seen.requests, seen.failed, seen.p95
        );
        for failure in samples.failures(&[], 5) {
            let at = failure.end().as_secs_f64();
            lost.push(format!("{name} at {at:.2} s: {}", failure.outcome()));
        }
    }
    ensure!(lost.is_empty(), "{}", lost.join("; "));
    is_flat(&usage)?;
    ensure!(rollouts > 0 && upgrades > 0, "the time was too short");
    world.ready(NS, "hello").await?;
    Ok(())
}

/// Starts the functions and the requests to them, by name.
async fn start(world: &World) -> Result<Vec<(&'static str, Load)>> {
    world.namespace(NS).await?;
    world.serve(NS, "hello", hello(world, "v1")).await?;
    let get = Method::GET;
    let mut traffic = vec![("hello", load(world, get.clone(), HOST, "/", RATE)?)];

    let image = world.images["v1"].replace("hello:v1", "cart:soak");
    push_component(&image, &selvage::dist().join("examples/cart.wasm"), None).await?;
    let mut cart = world.spec("v1", "cart.soak.example");
    cart["source"]["image"] = image.into();
    cart["keyValue"] = json!([{ "label": "carts", "store": "memory" }]);
    world.serve(NS, "cart", cart).await?;
    for (name, method, path) in [
        ("cart", get.clone(), "/carts/a"),
        ("cart, written", Method::POST, "/carts/a/apples"),
    ] {
        let load = load(world, method, "cart.soak.example", path, 20)?;
        traffic.push((name, load));
    }

    let registry = egress::registry(world)?;
    for (name, host, upstream, allow) in [
        (
            "caller",
            "caller.soak.example",
            format!("hello.{NS}.selvage.internal"),
            format!("function://{NS}/hello"),
        ),
        (
            "egress",
            "egress.soak.example",
            registry.clone(),
            format!("http://{registry}"),
        ),
    ] {
        let mut spec = world.spec("v1", host);
        spec["env"] = json!([{ "name": "UPSTREAM", "value": upstream }]);
        spec["egress"] = json!({ "allow": [allow] });
        world.serve(NS, name, spec).await?;
        traffic.push((name, load(world, get.clone(), host, "/", 20)?));
    }

    for example in languages::examples() {
        let (name, path) = (example.name, example.get.0);
        languages::answers(world, NS, &example).await?;
        let host = format!("{name}.example");
        traffic.push((name, load(world, get.clone(), &host, path, 3)?));
    }
    Ok(traffic)
}

fn load(world: &World, method: Method, host: &str, path: &str, rate: u32) -> Result<Load> {
    let nodes = world.nodes().into_iter();
    Load::start(Plan {
        rate,
        targets: nodes.map(|node| (node, EDGE_PORT).into()).collect(),
        method,
        host: host.into(),
        path: path.into(),
        timeout: Duration::from_secs(10),
    })
}

fn hello(world: &World, version: &str) -> Value {
    let mut spec = world.spec(version, HOST);
    spec["rollout"] = json!({ "strategy": "AllAtOnce", "bake": { "duration": "5s" } });
    spec
}

/// Rolls a version out and waits until it is stable.
async fn roll_out(world: &World, version: &str) -> Result<()> {
    world.apply(NS, "hello", hello(world, version)).await?;
    let digest = &world.digests[version];
    let done = world
        .function(NS, "hello", LATER, |f| {
            f["metadata"]["generation"] == f["status"]["observedGeneration"]
                && f["status"]["resolved"]["digest"] == **digest
                && f["status"]["phase"] == "Ready"
        })
        .await?;
    ensure!(
        outcome(&done).0 == "Promoted",
        "{}",
        done["status"]["history"][0]
    );
    Ok(())
}

/// Returns what each pod of Selvage uses, by name.
async fn pods(world: &World) -> Result<BTreeMap<String, Usage>> {
    let api: Api<Pod> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let mut all = BTreeMap::new();
    for pod in api.list(&ListParams::default()).await?.items {
        let uid = pod.uid().context("no uid")?;
        all.insert(pod.name_any(), usage(&uid)?);
    }
    Ok(all)
}

/// Returns what the processes of a pod use, whose node runs on this machine.
fn usage(uid: &str) -> Result<Usage> {
    let mut sum = Usage::default();
    for process in std::fs::read_dir("/proc")?.flatten().map(|e| e.path()) {
        let read = |file: &str| std::fs::read_to_string(process.join(file)).unwrap_or_default();
        let groups = read("cgroup");
        if !groups.contains(uid) && !groups.contains(&uid.replace('-', "_")) {
            continue;
        }
        let status = read("status");
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        sum.kibibytes += number("VmRSS:");
        sum.threads += number("Threads:");
        sum.files += open_files(&process);
    }
    Ok(sum)
}

/// Returns the number of open files of a process; 0 when it has ended.
fn open_files(process: &Path) -> u64 {
    std::fs::read_dir(process.join("fd")).map_or(0, |files| files.count() as u64)
}

/// Checks that each pod uses no more at the end than in the second quarter of the time, when everything was loaded and warm.
fn is_flat(samples: &[BTreeMap<String, Usage>]) -> Result<()> {
    ensure!(samples.len() >= 8, "only {} samples", samples.len());
    let quarter = samples.len() / 4;
    let (early, late) = (
        &samples[quarter..2 * quarter],
        &samples[samples.len() - quarter..],
    );
    let mut grown = Vec::new();
    for pod in samples[samples.len() - 1].keys() {
        let of = |part: &[BTreeMap<String, Usage>], value: Measure| {
            let mut values: Vec<u64> = part.iter().filter_map(|s| s.get(pod)).map(value).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or(0)
        };
        let kinds: [(&str, Measure); 3] = [
            ("KiB", |u| u.kibibytes),
            ("files", |u| u.files),
            ("threads", |u| u.threads),
        ];
        for (unit, value) in kinds {
            let (before, after) = (of(early, value), of(late, value));
            println!("    {pod}: {before} {unit}, later {after}");
            if after > before + before / 10 + value(&NOISE) {
                grown.push(format!("{pod}: {before} {unit}, later {after}"));
            }
        }
    }
    ensure!(grown.is_empty(), "grown: {}", grown.join("; "));
    Ok(())
}
