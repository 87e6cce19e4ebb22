//! `operator run`: wires caches, lease, node API and reconcile together and waits for the end of one.

use crate::cli::{LogFormat, RunArgs};

/// Runs until a signal or until a part that everything depends on has ended.
///
/// # Errors
/// The API server cannot be configured, a port is taken, or the lease was lost.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    start_logging(args.log_format)?;
    anyhow::bail!("run is not built yet")
}

fn start_logging(format: LogFormat) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new("info,kube=warn,tower=warn,hyper=warn")
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.try_init(),
    }
    .map_err(|error| anyhow::anyhow!("logging: {error}"))
}
