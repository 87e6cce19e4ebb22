//! Latency of a function alone and beside others that compute without end: 1, 10, 64 and 400 of their requests at a time,
//! in one node. The node runs in this process, with one event loop.

use crate::data_plane::{LocalDataPlane, ask, function};
use anyhow::{Context, Result, ensure};
use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
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

const SPINNING: [usize; 5] = [0, 1, 10, 64, 400];
/// Maximum ratio of the 99th percentile beside [`BOUNDED`] spinning requests to that without any.
const BOUND: f64 = 2.0;
const BOUNDED: usize = 10;

/// Measures the latency beside each number of spinning requests and prints a table.
///
/// # Errors
/// Returns an error when a request fails or the bound on the ratio is missed.
pub(crate) fn run(args: &Args, print: &mut dyn FnMut(&str)) -> Result<()> {
    let plane = start(args)?;
    let address = plane.address();
    print("| spinning requests | requests | p50 ms | p99 ms | p99 ÷ p99 alone |");
    print("|---|---|---|---|---|");
    let mut alone = None;
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
        let slower = p99 / *alone.get_or_insert(p99);
        met &= count != BOUNDED || slower <= BOUND;
        print(&format!(
            "| {count} | {} | {:.2} | {p99:.2} | {slower:.1} |",
            times.len(),
            at(0.5),
        ));
    }
    ensure!(
        met,
        "the 99th percentile beside {BOUNDED} is more than {BOUND} times that alone"
    );
    Ok(())
}

fn start(args: &Args) -> Result<LocalDataPlane> {
    let plane = LocalDataPlane::start()?;
    let mut functions = vec![function(
        &plane.revision("quiet", "only", &args.guest)?,
        None,
    )];
    for n in 0..args.namespaces {
        let revision = plane.revision(&format!("spin{n}"), "only", &args.spinning)?;
        functions.push(function(&revision, None));
    }
    plane.publish(functions);
    Ok(plane)
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
