//! The `node-shim` program. `node-shim --help` lists its roles.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    node_shim::cli::Cli::parse().run()
}
