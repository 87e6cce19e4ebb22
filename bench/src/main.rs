//! Measurements that are too long for the tests: ratios of two programs in one run.

mod first;
mod host;
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
    /// Simulated rollouts on the shipping code against the bars of the sequential test
    MonteCarlo {
        /// Only these: M1, M2, M3, M8, M12, M13, M17
        #[arg(long, value_delimiter = ',')]
        cells: Vec<String>,
        /// Divide the number of runs by this
        #[arg(long, default_value_t = 1)]
        divisor: u32,
        /// Seed of all dice
        #[arg(long, default_value_t = 20_261_121)]
        seed: u64,
    },
    /// `node-shim serve` against a bare hyper server with the same response
    Serve(serve::Args),
    /// The first response from the cache of native code against bare load, instantiate and call
    First(first::Args),
    /// The bare hyper server (started by `serve`)
    #[command(hide = true)]
    Bare,
    /// The smallest host of a component (started by `serve`)
    #[command(hide = true)]
    Reference { file: std::path::PathBuf },
}

fn simulate(cells: &[String], divisor: u32, seed: u64) -> Result<()> {
    let chosen = if cells.is_empty() {
        Property::ALL.to_vec()
    } else {
        cells
            .iter()
            .map(|name| {
                Property::parse(name).with_context(|| format!("no property is called {name}"))
            })
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
        // row by row, because the whole takes minutes
        write!(out, "{}", monte_carlo::lines(&rows))?;
        out.flush()?;
        writeln!(std::io::stderr(), "{property:?}: {:.0?}", started.elapsed())?;
    }
    anyhow::ensure!(met, "a bar is missed");
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
        Command::First(args) => first::run(&args, &mut |line| {
            let _ = writeln!(std::io::stdout(), "{line}");
        }),
        Command::Bare => alone()?.block_on(serve::run_bare(say)),
        Command::Reference { file } => alone()?.block_on(serve::run_reference(&file, say)),
    }
}

fn alone() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// What whoever started a server waits for.
fn say(address: std::net::SocketAddr) {
    let _ = writeln!(std::io::stderr(), "Serving on http://{address}");
}
