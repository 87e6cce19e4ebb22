//! Compares the first response of a component whose native code is in the node's cache with loading, instantiating and
//! calling the same component in bare wasmtime.
//!
//! The node finds and authenticates the code, maps and links it, publishes the function and serves the first request on
//! an open connection. Both sides take turns in one process, so files and code are equally warm.

mod bare;
mod node;

use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Component to measure, one row each; repeatable
    #[arg(long = "guest", default_value = "target/dist/examples/hello-bare.wasm")]
    guests: Vec<PathBuf>,
    /// Number of first responses per component
    #[arg(long, default_value_t = 200)]
    rounds: usize,
}

/// Measures every guest and prints a table of medians.
///
/// # Errors
/// Returns an error when a component does not compile or does not respond with 200.
pub(crate) fn run(args: &Args, print: &mut dyn FnMut(&str)) -> Result<()> {
    print("| guest | bare load, instantiate, call µs | first response of the node µs | ÷ |");
    print("|---|---|---|---|");
    for guest in &args.guests {
        let wasm = std::fs::read(guest).with_context(|| guest.display().to_string())?;
        let folder = tempfile::tempdir()?;
        let bare = bare::Bare::new(&wasm, folder.path())?;
        let mut node = node::Node::new(&wasm, folder.path())?;
        let (mut base, mut node_times) = (Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            base.push(bare.first()?);
            node_times.push(node.first()?);
        }
        let (base, node_time) = (median(base)?, median(node_times)?);
        print(&row(guest, base, node_time));
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Result<Duration> {
    times.sort();
    times
        .get(times.len() / 2)
        .copied()
        .context("--rounds must be at least 1")
}

fn row(guest: &Path, base: Duration, node_time: Duration) -> String {
    let name = guest.file_stem().unwrap_or_default().to_string_lossy();
    format!(
        "| {name} | {} | {} | {:.2} |",
        base.as_micros(),
        node_time.as_micros(),
        node_time.as_secs_f64() / base.as_secs_f64(),
    )
}
