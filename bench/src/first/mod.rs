//! The first response of a component whose native code is in the node's cache, against loading, instantiating and
//! calling the same component with nothing around it.
//!
//! Ours is what a node does: find and authenticate the code, map and link it, publish the function, answer the first
//! request on a connection that is open already. Both take turns in one process, so files and code are equally warm.

mod bare;
mod node;

use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// What to measure, how often.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Components, one row each
    #[arg(long = "guest", default_value = "target/dist/examples/hello-bare.wasm")]
    guests: Vec<PathBuf>,
    /// First responses of each
    #[arg(long, default_value_t = 200)]
    rounds: usize,
}

/// Measures every guest and prints a table of medians.
///
/// # Errors
/// A component does not compile, or does not answer 200.
pub(crate) fn run(args: &Args, print: &mut dyn FnMut(&str)) -> Result<()> {
    print("| guest | bare load, instantiate, call µs | first response of the node µs | ÷ |");
    print("|---|---|---|---|");
    for guest in &args.guests {
        let wasm = std::fs::read(guest).with_context(|| guest.display().to_string())?;
        let folder = tempfile::tempdir()?;
        let bare = bare::Bare::new(&wasm, folder.path())?;
        let mut node = node::Node::new(&wasm, folder.path())?;
        let (mut base, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            base.push(bare.first()?);
            ours.push(node.first()?);
        }
        let (base, ours) = (median(base)?, median(ours)?);
        print(&row(guest, base, ours));
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Result<Duration> {
    times.sort();
    times.get(times.len() / 2).copied().context("no round")
}

fn row(guest: &Path, base: Duration, ours: Duration) -> String {
    let name = guest.file_stem().unwrap_or_default().to_string_lossy();
    format!(
        "| {name} | {} | {} | {:.2} |",
        base.as_micros(),
        ours.as_micros(),
        ours.as_secs_f64() / base.as_secs_f64(),
    )
}
