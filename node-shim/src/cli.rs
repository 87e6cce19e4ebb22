//! The command line: one role per subcommand, every flag of `run` also an environment variable.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use node_shim_core::cidr::Cidr;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::data_plane::DataPlaneOptions;
use crate::disk::StateDir;
use crate::engine::EngineOptions;
use crate::node_api::{Settings, unix_ms};
use crate::serve::{self, ServeArgs};

use crate::supervisor::Options;

/// User and group that the shim runs as in its pod.
const NONROOT: u32 = 65_532;
const RUNTIME_THREADS: usize = 2;

/// `node-shim`
#[derive(Debug, Parser)]
#[command(version, about = "Serves WebAssembly components on one node")]
pub struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Serve what an operator assigns to this node
    Run(Box<RunArgs>),
    /// Serve one component without a cluster
    Serve(ServeArgs),

    /// Compile a component from stdin to native code on stdout; started by `run`
    #[command(hide = true)]
    Compile,
    /// Hand the state folder to the shim's user; for an init container that runs as root
    PrepareState(PrepareArgs),
}

#[derive(Args, Debug)]
struct RunArgs {
    /// Kubernetes name of this node
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// Operator, https://host:port; repeatable, tried in turn
    #[arg(long, env = "SELVAGE_NODE_API", value_delimiter = ',')]
    node_api: Vec<String>,
    /// Name in the operator's certificate
    #[arg(
        long,
        env = "SELVAGE_NODE_API_SERVER_NAME",
        default_value = "selvage-node-api"
    )]
    node_api_server_name: String,
    /// CA certificates (PEM) of the operator
    #[arg(
        long,
        env = "SELVAGE_NODE_API_CA",
        default_value = "/var/run/selvage/ca/ca.crt"
    )]
    node_api_ca: PathBuf,
    /// Service account token bound to the operator's audience
    #[arg(
        long,
        env = "SELVAGE_TOKEN_FILE",
        default_value = "/var/run/selvage/token/token"
    )]
    token_file: PathBuf,
    /// Folder that outlives the process: table, components, native code
    #[arg(long, env = "SELVAGE_STATE_DIR", default_value = "/var/lib/selvage")]
    state_dir: PathBuf,
    /// Where functions are served, HTTP/1.1 and h2c
    #[arg(long, env = "SELVAGE_DATA_ADDR", default_value = "[::]:8080")]
    data_addr: SocketAddr,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, env = "SELVAGE_ADMIN_ADDR", default_value = "[::]:9180")]
    admin_addr: SocketAddr,
    /// Unix socket of the debug pages; empty for none
    #[arg(
        long,
        env = "SELVAGE_DEBUG_SOCKET",
        default_value = "/tmp/selvage-debug.sock"
    )]
    debug_socket: String,
    /// Registry (host:port) spoken to in plain HTTP; repeatable
    #[arg(long, env = "SELVAGE_INSECURE_REGISTRY", value_delimiter = ',')]
    insecure_registry: Vec<String>,
    /// How long a node that ends goes on accepting
    #[arg(long, env = "SELVAGE_DRAIN_PROPAGATION", default_value = "15s", value_parser = duration)]
    drain_propagation: Duration,
    /// How long requests may then take to finish
    #[arg(long, env = "SELVAGE_DRAIN_TIMEOUT", default_value = "45s", value_parser = duration)]
    drain_timeout: Duration,
    /// Network (CIDR) of proxies whose forwarding headers are believed; repeatable
    #[arg(long, env = "SELVAGE_TRUSTED_PROXY", value_delimiter = ',')]
    trusted_proxy: Vec<Cidr>,
    /// Address of this node's data port to report; repeatable
    #[arg(long, env = "POD_IP", value_delimiter = ',')]
    address: Vec<String>,
    /// Instances at once, at most
    #[arg(long, env = "SELVAGE_MAX_INSTANCES", default_value_t = 1_000)]
    max_instances: u32,
    /// Components whose code is mapped at once; by the limits of process and kernel if not given
    #[arg(long, env = "SELVAGE_MAX_LOADED", hide = true)]
    max_loaded: Option<usize>,
    /// Form of the shim's own log on stderr
    #[arg(long, env = "SELVAGE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
}

#[derive(Args, Debug)]
struct PrepareArgs {
    /// Folder to hand over
    #[arg(long, env = "SELVAGE_STATE_DIR", default_value = "/var/lib/selvage")]
    state_dir: PathBuf,
    /// User and group id to hand it to
    #[arg(long, default_value_t = NONROOT)]
    owner: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

impl Cli {
    /// Runs the role to its end.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let outcome = match self.role {
            // the compiler's child bounds itself first and needs nothing else
            Role::Compile => return crate::compile::child::run(),
            Role::Run(args) => run(*args),
            Role::Serve(args) => serve::run(&args).map(|()| ExitCode::SUCCESS),

            Role::PrepareState(args) => {
                crate::disk::prepare(&StateDir::new(args.state_dir), args.owner)
                    .map(|()| ExitCode::SUCCESS)
                    .map_err(anyhow::Error::from)
            }
        };
        outcome.unwrap_or_else(|error| {
            let _ = writeln!(std::io::stderr(), "node-shim: {error:#}");
            ExitCode::FAILURE
        })
    }
}

fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    start_log(args.log_format);
    // a dump would hold the values of secrets
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_name("supervisor")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(crate::drain::run(options(args)));
    // whatever still hangs, on a disk or a registry, does not hold the end up
    runtime.shutdown_background();
    ended
}

fn options(args: RunArgs) -> Options {
    let RunArgs {
        node_name,
        node_api,
        node_api_server_name,
        node_api_ca,
        token_file,
        state_dir,
        data_addr,
        admin_addr,
        debug_socket,
        insecure_registry,
        drain_propagation,
        drain_timeout,
        trusted_proxy,
        address,
        max_instances,
        max_loaded,
        log_format: _,
    } = args;
    Options {
        api: Settings {
            node: node_name,
            endpoints: node_api,
            server_name: node_api_server_name,
            ca_file: node_api_ca,
            token_file,
            boot_id: unix_ms(),
            addresses: address,
        },
        state_dir,
        data_addr,
        admin_addr,
        debug_socket: (!debug_socket.is_empty()).then(|| PathBuf::from(debug_socket)),
        insecure_registries: insecure_registry,
        drain_propagation,
        drain_timeout,
        data: DataPlaneOptions {
            trusted_proxies: trusted_proxy,
            ..DataPlaneOptions::default()
        },
        engine: EngineOptions {
            max_slots: max_instances,
            ..EngineOptions::default()
        },
        max_loaded,
        program: PathBuf::from(crate::compile::THIS_PROGRAM),
    }
}

fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.with_ansi(false).init(),
    }
}

/// `500ms`, `15s`, `10m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{text:?} is no duration"))?;
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("{text:?}: the unit is one of ms, s, m, h")),
    };
    number
        .checked_mul(scale)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is too long"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        for wrong in [
            "",
            "15",
            "s",
            "-1s",
            "1d",
            "99999999999999999999s",
            "9999999999999999999h",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
