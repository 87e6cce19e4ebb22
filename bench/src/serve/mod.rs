//! Compares `node-shim serve` with a bare hyper server that sends the same response and with a minimal host of the same
//! component, on the same core and in one run. The minimal host shows the cost of hyper, wasmtime and the kernel on this
//! machine; the difference to it is the cost of the node-shim.
//!
//! The servers take turns (A B A B …), so that changes of the machine's speed affect all of them. The load generator
//! runs on another core and keeps a fixed number of connections busy. The relevant results are the ratio of requests/s
//! and the CPU time per request of the server; absolute values mean little on shared machines.

mod chart;
pub(crate) mod hosts;
mod load;
mod paced;
mod reference;
mod server;
pub(crate) mod threads;

pub(crate) use load::complete;
pub(crate) use reference::run_reference;
pub(crate) use server::run_bare;

use anyhow::{Context, Result, bail};
use load::LOAD_CORE;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Program to measure
    #[arg(long, default_value = "target/dist/node-shim")]
    node_shim: PathBuf,
    /// Component to serve, one row each; repeatable
    #[arg(long = "guest", default_value = "target/dist/examples/hello-bare.wasm")]
    guests: Vec<PathBuf>,
    /// Number of rounds per server
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds per round, after one second of warm-up
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Number of busy connections
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// How the load generator waits for responses
    #[arg(long, value_enum, default_value = "spinning")]
    waiting: load::Waiting,
}

/// Result of one round of one server.
#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    cpu_micros: f64,
    p50: Duration,
    p99: Duration,
}

/// Measures every guest against the bare server and prints a table.
///
/// # Errors
/// Returns an error when a server does not start or sends a response other than 200.
pub(crate) fn run(args: &Args, print: &mut dyn FnMut(&str)) -> Result<()> {
    let load = Load {
        seconds: args.seconds,
        connections: args.connections,
        waiting: args.waiting,
        core: Some(LOAD_CORE),
    };
    print("| server | req/s | ÷ bare | CPU µs/request | p50 µs | p99 µs |");
    print("|---|---|---|---|---|---|");
    for guest in &args.guests {
        let bare = server::Server::bare()?;
        let least = server::Server::reference(guest)?;
        let shim = server::Server::shim(&args.node_shim, &[], guest, server::Place::OneCore)?;
        let (mut base, mut host, mut shim_rounds) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            base.push(load.round(&bare)?);
            host.push(load.round(&least)?);
            shim_rounds.push(load.round(&shim)?);
        }
        let name = name_of(guest);
        let (base, host, shim_rounds) = (median(&base)?, median(&host)?, median(&shim_rounds)?);
        print(&row("bare hyper", base, base));
        print(&row(&format!("minimal host of {name}"), host, base));
        print(&row(&format!("node-shim serve {name}"), shim_rounds, base));
    }
    Ok(())
}

/// Load of one round.
#[derive(Clone, Copy)]
struct Load {
    seconds: u64,
    connections: usize,
    waiting: load::Waiting,
    /// The only core of the load generator.
    core: Option<usize>,
}

impl Load {
    fn round(&self, server: &server::Server) -> Result<Round> {
        let drive = |seconds| {
            let duration = Duration::from_secs(seconds);
            load::drive(
                server.address,
                self.connections,
                duration,
                self.waiting,
                self.core,
            )
        };
        drive(1)?;
        let before = server.cpu()?;
        let done = drive(self.seconds)?;
        let cpu = server.cpu()?.saturating_sub(before);
        if done.requests == 0 || done.failed > 0 {
            bail!(
                "{}: {} of {} responses were not 200",
                server.address,
                done.failed,
                done.requests
            );
        }
        let requests = done.requests as f64;
        Ok(Round {
            per_second: requests / done.took.as_secs_f64(),
            cpu_micros: cpu.as_secs_f64() * 1e6 / requests,
            p50: done.p50,
            p99: done.p99,
        })
    }
}

fn name_of(guest: &Path) -> String {
    let stem = guest.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

fn median(rounds: &[Round]) -> Result<Round> {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    sorted
        .get(sorted.len() / 2)
        .copied()
        .context("--rounds must be at least 1")
}

fn row(name: &str, round: Round, base: Round) -> String {
    format!(
        "| {name} | {:.0} | {:.3} | {:.1} | {} | {} |",
        round.per_second,
        round.per_second / base.per_second,
        round.cpu_micros,
        round.p50.as_micros(),
        round.p99.as_micros(),
    )
}
