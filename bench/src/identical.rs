//! Latency of two revisions with the same code, of which one gets a small share of the requests: its code and data are
//! less often in the caches of the processor. The analysis compares shares of slow requests, so the difference must stay
//! within its tolerance.

use crate::data_plane::{LocalDataPlane, ask, function};
use anyhow::{Context, Result, ensure};
use node_api_types::LATENCY_BOUNDS;
use node_shim::counters::RevisionSnapshot;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Component to measure
    #[arg(long, default_value = "target/dist/examples/hello-bare.wasm")]
    guest: PathBuf,
    /// Requests per second, one table each
    #[arg(long, value_delimiter = ',', default_value = "50,300,1000")]
    rates: Vec<f64>,
    /// Weights of the candidate in percent
    #[arg(long, value_delimiter = ',', default_value = "1,5,25,50")]
    weights: Vec<u32>,
    /// Seconds for each rate and weight
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

const CONNECTIONS: u64 = 8;
/// Default tolerance of the analysis: candidate ≤ ratio × stable + increase.
const MAX_RATIO: f64 = 1.5;
const MAX_INCREASE: f64 = 0.002;
/// Bounds up to which the shares are printed, in seconds.
const LARGEST_BOUND: f64 = 0.02;

/// Measures each rate and weight, and prints the shares of requests above each bound of the histogram.
///
/// # Errors
/// Returns an error when a request fails.
pub(crate) fn run(args: &Args, print: &mut dyn FnMut(&str)) -> Result<()> {
    print(
        "| requests/s | weight % | bound ms | stable slower % | candidate slower % | limit % | |",
    );
    print("|---|---|---|---|---|---|---|");
    let plane = LocalDataPlane::start()?;
    let stable = plane.revision("identical", "stable", &args.guest)?;
    let candidate = plane.revision("identical", "candidate", &args.guest)?;
    for rate in &args.rates {
        for weight in &args.weights {
            plane.publish(vec![function(&stable, Some((&candidate, weight * 100)))]);
            let before = plane.counters.snapshot(|_| true);
            drive(plane.address(), *rate, Duration::from_secs(args.seconds))?;
            let after = plane.counters.snapshot(|_| true);
            for (at, bound) in LATENCY_BOUNDS.iter().enumerate() {
                let share = |name| slower(&after, &before, name, at);
                let (slow, candidate) = (share("stable")?, share("candidate")?);
                let limit = MAX_RATIO * slow + MAX_INCREASE;
                let over = if candidate > limit { "over" } else { "" };
                if *bound <= LARGEST_BOUND {
                    print(&format!(
                        "| {rate} | {weight} | {} | {:.2} | {:.2} | {:.2} | {over} |",
                        bound * 1e3,
                        slow * 1e2,
                        candidate * 1e2,
                        limit * 1e2
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Returns the share of a revision's requests between two snapshots that took longer than a bound.
fn slower(
    after: &[RevisionSnapshot],
    before: &[RevisionSnapshot],
    name: &str,
    bound: usize,
) -> Result<f64> {
    let counts = |all: &[RevisionSnapshot]| {
        let found = all.iter().find(|one| one.revision.as_str() == name);
        let populations = found
            .map(|one| one.populations.as_slice())
            .unwrap_or_default();
        let within = populations
            .iter()
            .flat_map(|one| one.head.counts.iter().take(bound + 1))
            .sum::<u64>();
        let all = populations
            .iter()
            .flat_map(|one| one.head.counts.iter())
            .sum::<u64>();
        (within, all)
    };
    let ((within, all), (within_before, all_before)) = (counts(after), counts(before));
    let requests = all - all_before;
    ensure!(requests > 0, "{name} got no requests");
    Ok(1.0 - (within - within_before) as f64 / requests as f64)
}

/// Sends requests at random times with a mean rate, over several connections.
fn drive(address: SocketAddr, rate: f64, duration: Duration) -> Result<()> {
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|seed| {
            thread::spawn(move || -> Result<()> {
                let mut random = StdRng::seed_from_u64(seed);
                let mut client = TcpStream::connect(address)?;
                client.set_nodelay(true)?;
                let (start, mut next) = (Instant::now(), Duration::ZERO);
                while next < duration {
                    thread::sleep(next.saturating_sub(start.elapsed()));
                    let status = ask(&mut client, "identical.example")?;
                    ensure!(status == 200, "status {status}");
                    let gap = -random.random::<f64>().max(1e-9).ln();
                    next += Duration::from_secs_f64(gap * CONNECTIONS as f64 / rate);
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().ok().context("a load thread panicked")??;
    }
    Ok(())
}
