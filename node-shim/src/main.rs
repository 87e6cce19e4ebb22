//! One program, several roles; `node-shim --help` lists them.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    node_shim::cli::Cli::parse().run()
}
