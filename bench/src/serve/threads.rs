//! Compares `node-shim serve` with one thread and with several. Server and load generator share all cores.
//!
//! Requests/s depend on how much of the cores the load generator and other programs use. The CPU time per request does not:
//! when it grows with the number of threads, they hinder each other, for example in the kernel, where each change of a guest's
//! memory mappings waits for those of the others.

use super::{
    Load, Round,
    load::Waiting,
    median, name_of,
    server::{Place, Server},
};
use anyhow::Result;
use std::path::PathBuf;

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Program to measure
    #[arg(long, default_value = "target/dist/node-shim")]
    node_shim: PathBuf,
    /// Component to serve; repeatable
    #[arg(long = "guest", default_value = "target/dist/examples/hello-bare.wasm")]
    guests: Vec<PathBuf>,
    /// Numbers of threads
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Number of rounds for each number of threads
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds per round, after one second of warm-up
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Number of busy connections
    #[arg(long, default_value_t = 16)]
    connections: usize,
}

/// Measures every guest with each number of threads and prints a table. The ratios are to the first number.
///
/// # Errors
/// Returns an error when a server does not start or sends a response other than 200.
pub(crate) fn run(args: &Args, print: &mut dyn FnMut(&str)) -> Result<()> {
    let load = Load {
        seconds: args.seconds,
        connections: args.connections,
        waiting: Waiting::Sleeping,
        core: None,
    };
    print("| guest | threads | req/s | ratio | CPU µs/request | ratio | p50 µs | p99 µs |");
    print("|---|---|---|---|---|---|---|---|");
    for guest in &args.guests {
        let mut servers = Vec::new();
        for threads in &args.threads {
            let server = Server::shim(
                &args.node_shim,
                &["--threads", &threads.to_string()],
                guest,
                Place::AllCores,
            )?;
            servers.push((*threads, server, Vec::new()));
        }
        for _ in 0..args.rounds {
            for (_, server, rounds) in &mut servers {
                rounds.push(load.round(server)?);
            }
        }
        let mut base = None;
        for (threads, _, rounds) in &servers {
            let round = median(rounds)?;
            let Round {
                per_second,
                cpu_micros,
                p50,
                p99,
            } = round;
            let first = *base.get_or_insert(round);
            print(&format!(
                "| {} | {threads} | {per_second:.0} | {:.2} | {cpu_micros:.1} | {:.2} | {} | {} |",
                name_of(guest),
                per_second / first.per_second,
                cpu_micros / first.cpu_micros,
                p50.as_micros(),
                p99.as_micros(),
            ));
        }
    }
    Ok(())
}
