//! Latency of a function that is beside others that compute without end: 1, 16, 64 and 400 of their requests at a time
//! in one node. The node runs in this process, on its own core.

use anyhow::{Context, Result, ensure};
use node_shim::{
    counters::CounterTable,
    data_plane::{DataPlane, DataPlaneOptions},
    engine::{Engine, EngineOptions},
    guest_log::GuestLog,
    node_counters::NodeCounters,
    revision::{Revision, RevisionSpec},
    routing_table::{RevisionSlot, RoutingTable, ServedFunction},
};
use node_shim_core::table::{
    FunctionEntry, FunctionKey, Limits, RevisionName, Route, TrafficSplit,
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Component whose latency is measured
    #[arg(long, default_value = "target/dist/examples/hello-bare.wasm")]
    guest: PathBuf,
    /// Component that computes until it is stopped
    #[arg(long, default_value = "target/dist/examples/hello-spin.wasm")]
    spinning: PathBuf,
    /// Seconds for each number of spinning requests
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Namespaces that the spinning requests are spread over
    #[arg(long, default_value_t = 4)]
    namespaces: usize,
}

const SPINNING: [usize; 4] = [1, 16, 64, 400];
/// Maximum ratio of the 99th percentile beside many spinning requests to that beside one.
const BOUND: f64 = 2.0;

/// Measures the latency beside each number of spinning requests and prints a table.
///
/// # Errors
/// Returns an error when a request fails or the bound on the ratio is missed.
pub(crate) fn run(args: &Args, print: &mut dyn FnMut(&str)) -> Result<()> {
    let plane = start(args)?;
    let address = plane.address();
    print("| spinning requests | requests | p50 ms | p99 ms | p99 ÷ p99 beside one |");
    print("|---|---|---|---|---|");
    let mut beside_one = None;
    let mut met = true;
    for count in SPINNING {
        let stop = Arc::new(AtomicBool::new(false));
        let spinning: Vec<_> = (0..count)
            .map(|n| {
                let stop = stop.clone();
                let host = format!("spin{}.example", n % args.namespaces);
                thread::spawn(move || spin(address, &host, &stop))
            })
            .collect();
        let times = measure(address, Duration::from_secs(args.seconds));
        stop.store(true, Ordering::Relaxed);
        for thread in spinning {
            thread.join().ok().context("a load thread panicked")??;
        }
        let times = times?;
        let at = |quantile: f64| {
            let index = (times.len() as f64 * quantile) as usize;
            times
                .get(index)
                .map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        let p99 = at(0.99);
        let ratio = p99 / *beside_one.get_or_insert(p99);
        met &= ratio <= BOUND;
        print(&format!(
            "| {count} | {} | {:.2} | {p99:.2} | {ratio:.2} |",
            times.len(),
            at(0.5)
        ));
    }
    ensure!(
        met,
        "a 99th percentile is more than {BOUND} times that beside one"
    );
    Ok(())
}

fn start(args: &Args) -> Result<DataPlane> {
    let engine = Engine::new(&EngineOptions::default())?;
    let counters = CounterTable::new();
    let plane = DataPlane::start(
        TcpListener::bind("127.0.0.1:0")?,
        engine.clone(),
        DataPlaneOptions {
            max_per_peer: u32::MAX,
            ..DataPlaneOptions::default()
        },
        counters.clone(),
        Arc::new(NodeCounters::default()),
        GuestLog::start("bench", Box::new(std::io::sink()))?,
    )?;
    let mut functions = vec![function(&engine, &counters, "quiet", &args.guest)?];
    for n in 0..args.namespaces {
        functions.push(function(
            &engine,
            &counters,
            &format!("spin{n}"),
            &args.spinning,
        )?);
    }
    plane.publish(Arc::new(RoutingTable::new(1, functions)));
    Ok(plane)
}

/// Returns a function that serves the host `NAMESPACE.example`.
fn function(
    engine: &Engine,
    counters: &CounterTable,
    namespace: &str,
    guest: &Path,
) -> Result<ServedFunction> {
    let wasm = std::fs::read(guest).with_context(|| guest.display().to_string())?;
    let key = FunctionKey::new(namespace, "f");
    let name = RevisionName::new("only").context("the name of the revision is empty")?;
    let spec = RevisionSpec {
        function: key.clone(),
        name: name.clone(),
        limits: Limits {
            concurrency: 1_000,
            ..Limits::default()
        },
        env: Vec::new(),
        config: Vec::new(),
    };
    let revision = Revision::new(spec, engine.compile_in_process(&wasm)?, counters)?;
    let entry = FunctionEntry {
        key,
        created_ms: 0,
        routes: vec![Route {
            hosts: vec![format!("{namespace}.example")],
            ..Route::default()
        }],
        suspended: false,
        split: TrafficSplit {
            stable: Some(name),
            ..TrafficSplit::default()
        },
    };
    Ok(ServedFunction {
        entry: Arc::new(entry),
        stable: RevisionSlot::Ready(revision),
        candidate: RevisionSlot::Absent,
    })
}

/// Keeps one request to the spinning component busy. Each ends with 504 when its CPU time is used up.
fn spin(address: SocketAddr, host: &str, stop: &AtomicBool) -> Result<()> {
    let mut client = TcpStream::connect(address)?;
    while !stop.load(Ordering::Relaxed) {
        let status = ask(&mut client, host)?;
        ensure!(status == 504, "the spinning component: status {status}");
    }
    Ok(())
}

/// Sends one request after the other, and returns the sorted times until their responses.
fn measure(address: SocketAddr, duration: Duration) -> Result<Vec<Duration>> {
    let mut client = TcpStream::connect(address)?;
    client.set_nodelay(true)?;
    let started = Instant::now();
    let mut times = Vec::new();
    while started.elapsed() < duration {
        let sent = Instant::now();
        let status = ask(&mut client, "quiet.example")?;
        ensure!(status == 200, "the measured component: status {status}");
        times.push(sent.elapsed());
    }
    times.sort();
    Ok(times)
}

/// Sends one request and returns the status. Responses are short and arrive whole.
fn ask(client: &mut TcpStream, host: &str) -> Result<u16> {
    client.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())?;
    let mut chunk = [0; 4096];
    let read = client.read(&mut chunk)?;
    let head = String::from_utf8_lossy(chunk.get(..read).unwrap_or_default());
    ensure!(head.contains("\r\n\r\n"), "an incomplete response: {head}");
    let status = head.split(' ').nth(1).context("no status")?;
    Ok(status.parse()?)
}
