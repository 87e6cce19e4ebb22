//! Clusters that all tests of one process share. The watchdog removes them when the process ends, also when it is
//! killed.

use super::{Cluster, Options};
use anyhow::{Context, Result, anyhow};
use std::sync::OnceLock;
use tokio::runtime::Runtime;

/// Returns a cluster without nodes. Every test uses its own namespace, see [`Cluster::namespace`].
///
/// # Errors
/// Returns an error when the cluster could not be started, now or at the first call.
pub fn control_plane() -> Result<&'static Cluster> {
    static SHARED: OnceLock<Result<Cluster>> = OnceLock::new();
    let options = Options {
        registry: false,
        prometheus: None,
        ..Options::default()
    };
    get(&SHARED, options)
}

/// Returns a cluster with three nodes, a registry and Prometheus, for tests that need pods.
///
/// # Errors
/// Returns an error when the cluster could not be started, now or at the first call.
pub fn with_nodes() -> Result<&'static Cluster> {
    static SHARED: OnceLock<Result<Cluster>> = OnceLock::new();
    get(
        &SHARED,
        Options {
            nodes: 3,
            ..Options::default()
        },
    )
}

fn get(shared: &'static OnceLock<Result<Cluster>>, options: Options) -> Result<&'static Cluster> {
    shared
        .get_or_init(|| {
            // the runtime of a test ends with the test, so the cluster needs its own, created on a thread without a
            // runtime
            std::thread::spawn(move || {
                static RUNTIME: OnceLock<Runtime> = OnceLock::new();
                let made = Runtime::new().context("make a runtime")?;
                RUNTIME
                    .get_or_init(|| made)
                    .block_on(Cluster::start(&options, &|_, _| {}))
            })
            .join()
            .map_err(|_| anyhow!("starting the cluster panicked"))?
        })
        .as_ref()
        .map_err(|error| anyhow!("{error:#}"))
}
