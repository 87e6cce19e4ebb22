//! The operator's binary: install the one crypto provider, parse, run.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    // Fails only when a provider is installed already, which leaves the process with one either way.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match operator::cli::Args::parse().execute().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}
