//! Entry point of the operator: installs the crypto provider, parses the arguments and runs the command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    // This fails only when a provider is already installed, so the process has one in either case.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match operator::cli::Args::parse().execute().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}
