//! `node-shim`: see `node-shim --help`.

use clap::{Parser, Subcommand};
use node_shim::serve::{self, ServeArgs};

#[derive(Parser)]
#[command(version, about = "Serves WebAssembly components on one node")]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Serve one component without a cluster
    Serve(ServeArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().role {
        Role::Serve(args) => serve::run(&args),
    }
}
