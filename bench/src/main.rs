//! Measurements that are too long for the tests: ratios of two programs in one run.

mod serve;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::io::Write;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// `node-shim serve` against a bare hyper server with the same response
    Serve(serve::Args),
    /// The bare hyper server (started by `serve`)
    #[command(hide = true)]
    Bare,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(&args, &mut |line| {
            let _ = writeln!(std::io::stdout(), "{line}");
        }),
        Command::Bare => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(serve::run_bare(|address| {
                let _ = writeln!(std::io::stderr(), "Serving on http://{address}");
            })),
    }
}
