//! What a leader costs as functions become more: CPU time and memory. Each number of functions is measured in a process of
//! its own, because the memory of a process does not shrink.
//!
//! `cargo test --workspace --locked --lib growth_of_the_leader -- --ignored --nocapture` prints a table. The variable
//! `SELVAGE_FUNCTIONS` replaces the numbers of functions.

use std::io::{BufRead, Write};
use std::process::Command;

use super::fake::Fake;
use super::many::Running;
use super::*;

const SIZES: &str = "500,1000,2000,4000,8000";
const SIZE: &str = "SELVAGE_FUNCTIONS";
/// Name of a file with the objects of the API server.
const OBJECTS: &str = "SELVAGE_OBJECTS";
/// Start of the line with the results of a process.
const RESULT: &str = "measured:";

#[test]
#[ignore = "a measurement"]
fn growth_of_the_leader() {
    println!(
        "| functions | CPU to serve all, s | CPU in a minute at rest, ms | RSS, MiB | without the API server, MiB | a function, KiB |"
    );
    println!("|---|---|---|---|---|---|");
    let sizes = std::env::var(SIZE).unwrap_or_else(|_| SIZES.to_owned());
    for size in sizes.split(',') {
        let [serve, rest, all, fake, empty] = in_process("growth_of_one_size", SIZE, size)[..]
        else {
            panic!("five results")
        };
        let leader = all - fake;
        let each = (leader - empty) / size.parse::<f64>().unwrap();
        println!(
            "| {size} | {:.1} | {rest:.0} | {:.0} | {:.0} | {each:.1} |",
            serve / 1e3,
            all / 1024.0,
            leader / 1024.0,
        );
    }
}

/// Runs another test of this file in a process of its own, and returns its results.
fn in_process(test: &str, variable: &str, value: &str) -> Vec<f64> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--nocapture", "--exact"])
        .arg(format!("reconcile::tests::growth::{test}"))
        .env(variable, value)
        // one arena, so that freed memory is used again
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once(RESULT));
    let (_, results) = line.unwrap_or_else(|| panic!("{test} has no result: {text}"));
    let numbers = results.split_whitespace();
    numbers.map(|number| number.parse().unwrap()).collect()
}

/// CPU time until all functions are served and of a minute at rest, in milliseconds; memory of the process, of the objects
/// of its API server, and at the start, in KiB.
#[tokio::test(start_paused = true)]
#[ignore = "a part of a measurement"]
async fn growth_of_one_size() {
    let functions: usize = std::env::var(SIZE).unwrap().parse().unwrap();
    let mut running = Running::start().await;
    let (start, empty) = (cpu(), rss());
    apply(&running.world, functions);
    running.settle(functions).await;
    assert_eq!(running.distributed(), functions);
    let served = cpu();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let rested = cpu();
    running.world.fake.writes();
    let all = rss();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for object in running.world.fake.objects() {
        writeln!(file, "{}", serde_json::to_string(&object).unwrap()).unwrap();
    }
    let fake = in_process(
        "memory_of_the_objects",
        OBJECTS,
        file.path().to_str().unwrap(),
    )[0];
    println!(
        "{RESULT} {} {} {all} {fake} {empty}",
        served - start,
        rested - served
    );
    running.tasks.shutdown().await;
}

/// Memory of the objects of the API server, in KiB.
#[test]
#[ignore = "a part of a measurement"]
fn memory_of_the_objects() {
    let file = std::fs::File::open(std::env::var(OBJECTS).unwrap()).unwrap();
    let fake = Fake::default();
    let empty = rss();
    for line in std::io::BufReader::new(file).lines() {
        let (path, object): (String, Value) = serde_json::from_str(&line.unwrap()).unwrap();
        fake.put(&path, object);
    }
    println!("{RESULT} {}", rss() - empty);
}

/// Applies functions like `kubectl apply` does, with what the API server adds to them.
fn apply(world: &World, functions: usize) {
    for n in 0..functions {
        let spec = json!({
            "source": { "inline": component() },
            "routes": [{ "hosts": [format!("f-{n}.example"), format!("www.f-{n}.example")], "paths": [{ "value": "/" }] }],
            "env": [{ "name": "LOG_LEVEL", "value": "info" }, { "name": "REGION", "value": "eu-central-1" }],
            "limits": { "memory": "64Mi", "cpu": "50ms", "timeout": "30s" },
            "rollout": { "canary": { "steps": [{ "weight": "5%" }, { "weight": "25%" }, { "weight": "50%" }] } },
        });
        let applied = json!({
            "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction",
            "metadata": { "annotations": {}, "labels": { "app": "shop", "team": "checkout" }, "name": format!("f-{n}"), "namespace": "shop" },
            "spec": spec,
        });
        let mut object = applied.clone();
        let meta = &mut object["metadata"];
        meta["uid"] = json!(format!("3f2c6c7e-8a52-4f6b-9d0e-{n:012}"));
        meta["generation"] = json!(1);
        meta["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        meta["annotations"] =
            json!({ "kubectl.kubernetes.io/last-applied-configuration": applied.to_string() });
        meta["managedFields"] = json!([{
            "manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "selvage.dev/v1alpha1",
            "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
            "fieldsV1": super::fake::fields_of(&json!({ "metadata": { "annotations": meta["annotations"], "labels": meta["labels"] }, "spec": spec })),
        }]);
        world.fake.put(&format!("{FUNCTIONS}/f-{n}"), object);
    }
}

/// CPU time of this thread, which plays the API server and the nodes too, in milliseconds.
fn cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: u64 = text.split(' ').next().unwrap().parse().unwrap();
    nanoseconds / 1_000_000
}

/// Resident memory of this process, in KiB.
fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}
