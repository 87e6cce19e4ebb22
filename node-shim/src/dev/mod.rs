//! `node-shim dev FILE`: serves the EdgeFunctions of a manifest without a cluster, with the code of a node, and builds and
//! replaces them whenever their files change.
//!
//! `manifest` turns the manifest into the record that the operator would send, so everything after it is the code of a node.
//! `plan` finds components and builds, `session` compiles, `served` publishes and plays rollouts, and `render` shows requests.

mod build;
mod component;
mod console;
mod files;
mod manifest;
mod plan;
mod port;
mod render;
mod rollout;
mod served;
mod session;
mod watch;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use crate::descriptors;
use crate::drain::Signals;
use crate::egress::ResolvedHost;
use session::Session;

/// Options of `dev`.
#[derive(Args, Clone, Debug)]
pub struct DevArgs {
    /// Manifest with the EdgeFunctions to serve; may also have their ConfigMaps and Secrets. Files in its folder are watched
    pub manifest: PathBuf,
    /// Further manifest, such as one with ConfigMaps and Secrets; repeatable
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Address to listen on; port 0 selects a free port
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub addr: String,
    /// Component to serve, in binary form; default: the file of the annotation selvage.dev/component, else
    /// spec.source.inline
    #[arg(long, value_name = "FILE")]
    pub component: Option<PathBuf>,
    /// Command that builds the component, run by sh in the folder of the manifest; default: the annotation
    /// selvage.dev/build
    #[arg(long, value_name = "COMMAND")]
    pub build: Option<String>,
    /// Number of threads that serve requests. Default: the number of cores that affinity and CPU limit grant, at most 4
    #[arg(long)]
    pub threads: Option<NonZeroUsize>,
    /// Host that outbound requests reach at another address, such as a server of this machine: `api.example=127.0.0.1:3000`.
    /// The address is exempt from the checks of addresses, and the request still needs an entry of spec.egress.allow; repeatable
    #[arg(long, value_name = "HOST=IP:PORT")]
    pub resolve: Vec<ResolvedHost>,
    /// Let a new version prove itself on a growing share of the requests, by the evidence that the operator uses, instead of
    /// replacing the running one at once; steps: spec.rollout, else 10 % and 50 %
    #[arg(long)]
    pub rollout: bool,
}

impl DevArgs {
    fn manifests(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.manifest).chain(&self.files)
    }
}

/// Serves until SIGINT or SIGTERM, then lets requests finish.
///
/// # Errors
/// Returns a sentence when a manifest, a build or a component is wrong at the start, or the address cannot be bound. Later
/// errors are only shown, and what was served before is still served.
pub fn run(args: &DevArgs) -> anyhow::Result<()> {
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let mut session = tokio::select! {
            started = Session::start(args) => started?,
            // ends the build and the compiler process too
            () = signals.next() => return Ok(()),
        };
        let followed = tokio::select! {
            followed = session.follow() => followed,
            () = signals.next() => Ok(()),
        };
        tokio::select! {
            () = session.drain() => {}
            () = signals.next() => {}
        }
        followed
    })
}
