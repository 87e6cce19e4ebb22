//! Measurements that take too long for the tests. Performance is measured as the ratio of two programs in one run.

mod compile;
mod cpu_time;
mod data_plane;
mod first;
mod host;
mod identical;
mod idle;
mod neighbours;
mod serve;

use anyhow::{Context as _, Result};
use bench::monte_carlo::{self, Effort, Property};
use clap::{Parser, Subcommand};
use std::io::Write;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulate rollouts with the production code and compare error rates with the required bounds
    MonteCarlo {
        /// Properties to measure, of M1, M2, M3, M8, M12, M13, M17; default: all
        #[arg(long, value_delimiter = ',')]
        cells: Vec<String>,
        /// Divisor of the number of runs
        #[arg(long, default_value_t = 1)]
        divisor: u32,
        /// Seed of the random numbers
        #[arg(long, default_value_t = 20_261_121)]
        seed: u64,
    },
    /// Compare `node-shim serve` with a bare hyper server that sends the same response
    Serve(serve::Args),
    /// Compare `node-shim serve` with `wasmtime serve`, and write the table and the picture of docs/performance.md
    Hosts(serve::hosts::Args),
    /// Compare `node-shim serve` with one thread and with several
    Threads(serve::threads::Args),
    /// Compare the first response from the native cache with loading, instantiating and calling in bare wasmtime
    First(first::Args),
    /// Measure how long a node compiles a first, a second and a changed component, with and without functions compiled before
    Compile(compile::Args),
    /// Compare the latencies of two revisions with the same code at small weights
    Identical(identical::Args),
    /// Measure the memory of functions without requests, and what they cost a request to another one
    Idle(idle::Args),
    /// Measure the latency of a function beside others that compute without end
    Neighbours(neighbours::Args),
    /// Run the bare hyper server (started by `serve`)
    #[command(hide = true)]
    Bare,
    /// Run the minimal host of a component (started by `serve`)
    #[command(hide = true)]
    Reference { file: std::path::PathBuf },
}

fn simulate(cells: &[String], divisor: u32, seed: u64) -> Result<()> {
    let chosen = if cells.is_empty() {
        Property::ALL.to_vec()
    } else {
        cells
            .iter()
            .map(|name| Property::parse(name).with_context(|| format!("unknown property {name}")))
            .collect::<Result<_>>()?
    };
    let effort = Effort {
        divisor,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        seed,
    };
    let mut out = std::io::stdout().lock();
    write!(out, "{}", monte_carlo::HEAD)?;
    let mut met = true;
    for property in chosen {
        let started = std::time::Instant::now();
        let rows = monte_carlo::measure(property, effort);
        met &= rows.iter().all(|row| row.ok);
        // printed row by row, because the whole table takes minutes
        write!(out, "{}", monte_carlo::lines(&rows))?;
        out.flush()?;
        writeln!(std::io::stderr(), "{property:?}: {:.0?}", started.elapsed())?;
    }
    anyhow::ensure!(met, "at least one property misses its bound");
    Ok(())
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::MonteCarlo {
            cells,
            divisor,
            seed,
        } => simulate(&cells, divisor, seed),
        Command::Serve(args) => serve::run(&args, &mut |line| {
            let _ = writeln!(std::io::stdout(), "{line}");
        }),
        Command::Hosts(args) => serve::hosts::run(&args, &mut |line| {
            let _ = writeln!(std::io::stdout(), "{line}");
        }),
        Command::Threads(args) => serve::threads::run(&args, &mut |line| {
            let _ = writeln!(std::io::stdout(), "{line}");
        }),
        Command::First(args) => first::run(&args, &mut |line| {
            let _ = writeln!(std::io::stdout(), "{line}");
        }),
        Command::Compile(args) => compile::run(&args, &mut |line| {
            let _ = writeln!(std::io::stdout(), "{line}");
        }),
        Command::Identical(args) => identical::run(&args, &mut |line| {
            let _ = writeln!(std::io::stdout(), "{line}");
        }),
        Command::Idle(args) => idle::run(&args, &mut |line| {
            let _ = writeln!(std::io::stdout(), "{line}");
        }),
        Command::Neighbours(args) => neighbours::run(&args, &mut |line| {
            let _ = writeln!(std::io::stdout(), "{line}");
        }),
        Command::Bare => single_threaded()?.block_on(serve::run_bare(announce)),
        Command::Reference { file } => {
            single_threaded()?.block_on(serve::run_reference(&file, announce))
        }
    }
}

fn single_threaded() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Prints the address of a server; the starting process waits for this line.
fn announce(address: std::net::SocketAddr) {
    let _ = writeln!(std::io::stderr(), "Serving on http://{address}");
}
