//! Memory of a node with many functions whose code is mapped and that have no requests, and what they cost a request to another
//! function. The node runs in this process.

use crate::data_plane::{LocalDataPlane, ask, function};
use anyhow::{Context, Result, ensure};
use node_shim::{descriptors, engine::Compiler};
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Component of all functions
    #[arg(long, default_value = "target/dist/examples/hello-bare.wasm")]
    guest: PathBuf,
    /// Numbers of idle functions
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    functions: Vec<usize>,
    /// Number of rounds with and without the idle functions
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Requests per round, one after another
    #[arg(long, default_value_t = 5000)]
    requests: usize,
}

const CALLED: &str = "called.example";
/// Maximum memory of the largest number of functions, in bytes.
const MEMORY: u64 = 2 << 30;
/// Maximum ratio of the latency beside idle functions to that without them.
const SLOWER: f64 = 1.1;

/// Loads each number of idle functions and prints a table.
///
/// # Errors
/// Returns an error when a function cannot be loaded, a request fails or a bound is missed.
pub(crate) fn run(args: &Args, print: &mut dyn FnMut(&str)) -> Result<()> {
    descriptors::raise_limit();
    let wasm = fs::read(&args.guest).with_context(|| args.guest.display().to_string())?;
    let folder = tempfile::tempdir()?;
    let code = folder.path().join("code");
    let compiled = Compiler::new()?.precompile(&wasm);
    fs::write(&code, compiled.map_err(|e| anyhow::anyhow!("{e:#}"))?)?;
    print(
        "| idle functions | memory MiB | KiB of each | mappings | open files | p50 µs alone | p50 µs beside them | ÷ |",
    );
    print("|---|---|---|---|---|---|---|---|");
    let plane = LocalDataPlane::start()?;
    let called = plane.load("called", &code)?;
    let alone = || vec![function(&called, None)];
    plane.publish(alone());
    time_requests(plane.address(), args.requests)?;
    let before = memory()?;
    let (mut idle, mut met) = (Vec::new(), true);
    for count in &args.functions {
        while idle.len() < *count {
            let namespace = format!("idle{}", idle.len());
            idle.push(plane.load(&namespace, &code)?);
        }
        let (mut base, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            plane.publish(alone());
            base.push(time_requests(plane.address(), args.requests)?);
            let all = idle.iter().map(|one| function(one, None));
            plane.publish(alone().into_iter().chain(all).collect());
            beside.push(time_requests(plane.address(), args.requests)?);
        }
        let used = memory()?.saturating_sub(before);
        let (base, beside) = (median(base)?, median(beside)?);
        let ratio = beside.as_secs_f64() / base.as_secs_f64();
        met &= used < MEMORY && ratio <= SLOWER;
        print(&format!(
            "| {count} | {} | {:.1} | {} | {} | {:.1} | {:.1} | {ratio:.2} |",
            used >> 20,
            used as f64 / 1024.0 / *count as f64,
            fs::read_to_string("/proc/self/maps")?.lines().count(),
            fs::read_dir("/proc/self/fd")?.count(),
            base.as_secs_f64() * 1e6,
            beside.as_secs_f64() * 1e6,
        ));
    }
    ensure!(
        met,
        "the memory is not below {} MiB, or a request takes more than {SLOWER} times as long",
        MEMORY >> 20
    );
    Ok(())
}

/// Returns the memory of this process that is not a copy of a file, in bytes.
fn memory() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        value.with_context(|| format!("no {name} in /proc/self/status"))
    };
    Ok((kib("RssAnon:")? + kib("RssShmem:")?) << 10)
}

/// Returns the median latency of requests sent one after another.
fn time_requests(address: SocketAddr, requests: usize) -> Result<Duration> {
    let mut client = TcpStream::connect(address)?;
    client.set_nodelay(true)?;
    let mut times = Vec::with_capacity(requests);
    for _ in 0..requests {
        let sent = Instant::now();
        let status = ask(&mut client, CALLED)?;
        times.push(sent.elapsed());
        ensure!(status == 200, "status {status}");
    }
    median(times)
}

fn median(mut times: Vec<Duration>) -> Result<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("no requests")
}
