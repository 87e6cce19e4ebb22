//! Command line: one role per subcommand. Every flag of `run` is also an environment variable.

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use jiff::SignedDuration;
use node_shim_core::egress::{AddressFloor, DeniedHost, DeniedHosts};
use node_shim_core::key_value::MemoryLimits;
use rustix::process::{Resource, Rlimit, setrlimit};

use node_shim_core::bounds_checks::BoundsChecks;

use crate::clock::unix_ms;
use crate::data_plane::{DataPlaneOptions, parse_network};
use crate::dev::{self, DevArgs};
use crate::disk::StateDir;
use crate::egress::EgressOptions;
use crate::engine::{BacktraceDetail, EngineOptions};
use crate::node_api::Settings;
use crate::report_args::ReportArgs;
use crate::serve::{self, ServeArgs};

use crate::supervisor::Options;

/// User and group id of the node-shim in its pod.
const NONROOT: u32 = 65_532;
const RUNTIME_THREADS: usize = 2;

/// Arguments of `node-shim`.
#[derive(Debug, Parser)]
#[command(version, about = "Serves WebAssembly components on one node")]
pub struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Serve the functions that the operator assigns to this node
    Run(Box<RunArgs>),
    /// Serve one component without a cluster
    Serve(Box<ServeArgs>),
    /// Serve the EdgeFunctions of a manifest without a cluster, and build and swap them whenever their files change
    Dev(Box<DevArgs>),

    /// Compile a component from stdin to native code on stdout; started by `run`, `serve` and `dev`
    #[command(hide = true)]
    Compile {
        /// Check the bounds of memory by comparisons instead of guard pages
        #[arg(long)]
        explicit_bounds_checks: bool,
        /// Keep the debug information of the component, from which backtraces get files and lines
        #[arg(long)]
        backtraces_with_lines: bool,
    },
    /// Create the state directory and change its owner; for an init container that runs as root
    PrepareState(PrepareArgs),
}

#[derive(Args, Debug)]
struct RunArgs {
    /// Name of the Kubernetes node
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// URL of an operator replica, https://host:port; repeatable, tried in turn
    #[arg(long, env = "SELVAGE_NODE_API", value_delimiter = ',')]
    node_api: Vec<String>,
    /// Server name in the operator's certificate
    #[arg(
        long,
        env = "SELVAGE_NODE_API_SERVER_NAME",
        default_value = "selvage-node-api"
    )]
    node_api_server_name: String,
    /// File with the CA certificates (PEM) that sign the operator's certificate
    #[arg(
        long,
        env = "SELVAGE_NODE_API_CA",
        default_value = "/var/run/selvage/ca/ca.crt"
    )]
    node_api_ca: PathBuf,
    /// File with the service account token for the operator's audience
    #[arg(
        long,
        env = "SELVAGE_TOKEN_FILE",
        default_value = "/var/run/selvage/token/token"
    )]
    token_file: PathBuf,
    /// Directory for the function table, components and native code; kept across restarts
    #[arg(long, env = "SELVAGE_STATE_DIR", default_value = "/var/lib/selvage")]
    state_dir: PathBuf,
    /// Address that serves functions over HTTP/1.1 and h2c
    #[arg(long, env = "SELVAGE_DATA_ADDR", default_value = "[::]:8080")]
    data_addr: SocketAddr,
    /// Address that serves functions over TLS (HTTP/1.1 and HTTP/2), with --tls or --tls-certificate
    #[arg(long, env = "SELVAGE_TLS_ADDR", default_value = "[::]:8443")]
    tls_addr: SocketAddr,
    /// Serve over TLS also without --tls-certificate, with the certificates that functions bring
    #[arg(long, env = "SELVAGE_TLS")]
    tls: bool,
    /// Directory with a certificate for the TLS port: tls.crt (chain) and tls.key, in PEM format; repeatable. The first is
    /// for clients that send no server name or one without a certificate
    #[arg(long, env = "SELVAGE_TLS_CERTIFICATE", value_delimiter = ',')]
    tls_certificate: Vec<PathBuf>,
    /// Address that serves /healthz, /readyz and /metrics
    #[arg(long, env = "SELVAGE_ADMIN_ADDR", default_value = "[::]:9180")]
    admin_addr: SocketAddr,
    /// Path of the Unix socket that serves the debug pages; empty to disable them
    #[arg(
        long,
        env = "SELVAGE_DEBUG_SOCKET",
        default_value = "/tmp/selvage-debug.sock"
    )]
    debug_socket: String,
    /// Registry (host:port) to access over plain HTTP; repeatable
    #[arg(long, env = "SELVAGE_INSECURE_REGISTRY", value_delimiter = ',')]
    insecure_registry: Vec<String>,
    /// Time that the node keeps accepting connections after SIGTERM, until load balancers have noticed
    #[arg(long, env = "SELVAGE_DRAIN_PROPAGATION", default_value = "15s", value_parser = duration)]
    drain_propagation: Duration,
    /// Time that requests then have to finish
    #[arg(long, env = "SELVAGE_DRAIN_TIMEOUT", default_value = "45s", value_parser = duration)]
    drain_timeout: Duration,
    /// Network (CIDR) of proxies whose forwarding headers are trusted; repeatable
    #[arg(long, env = "SELVAGE_TRUSTED_PROXY", value_delimiter = ',', value_parser = parse_network)]
    trusted_proxy: Vec<IpNet>,
    /// Domain of the cluster's Services; names below it may have private addresses
    #[arg(long, env = "SELVAGE_CLUSTER_DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Network (CIDR) that no function may send requests to, such as the range of the nodes; repeatable
    #[arg(long, env = "SELVAGE_EGRESS_DENY", value_delimiter = ',', value_parser = parse_network)]
    egress_deny: Vec<IpNet>,
    /// Host that no function may send requests to, db.corp.example or *.corp.example; repeatable
    #[arg(long, env = "SELVAGE_EGRESS_DENY_HOST", value_delimiter = ',')]
    egress_deny_host: Vec<DeniedHost>,
    /// Address of the API server, which no function may send requests to
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true)]
    api_server: Option<String>,
    /// IP address to report as the node's data address; repeatable
    #[arg(long, env = "POD_IP", value_delimiter = ',')]
    address: Vec<String>,
    /// Number of threads that serve requests. Default: the number of cores that affinity and CPU limit grant, at most 4
    #[arg(long, env = "SELVAGE_THREADS")]
    threads: Option<NonZeroUsize>,
    /// Maximum number of concurrent instances
    #[arg(long, env = "SELVAGE_MAX_INSTANCES", default_value_t = 1_000)]
    max_instances: u32,
    /// Memory of all key-value stores, like 64Mi
    #[arg(long, env = "SELVAGE_KEY_VALUE_MEMORY", default_value = "64Mi", value_parser = size)]
    key_value_memory: u64,
    /// Memory of the key-value stores of one namespace, like 16Mi
    #[arg(long, env = "SELVAGE_KEY_VALUE_NAMESPACE_MEMORY", default_value = "16Mi", value_parser = size)]
    key_value_namespace_memory: u64,
    /// Maximum number of components whose code is mapped; default: derived from the limits of process and kernel
    #[arg(long, env = "SELVAGE_MAX_LOADED", hide = true)]
    max_loaded: Option<usize>,
    /// Format of the node-shim's own log on stderr
    #[arg(long, env = "SELVAGE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
    #[command(flatten)]
    reports: ReportArgs,
}

#[derive(Args, Debug)]
struct PrepareArgs {
    /// State directory
    #[arg(long, env = "SELVAGE_STATE_DIR", default_value = "/var/lib/selvage")]
    state_dir: PathBuf,
    /// User and group id of the new owner
    #[arg(long, default_value_t = NONROOT)]
    owner: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

impl Cli {
    /// Runs the selected role until it ends and returns its exit code.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let outcome = match self.role {
            // the compiler process limits its resources before it does anything else
            Role::Compile {
                explicit_bounds_checks,
                backtraces_with_lines,
            } => {
                let checks = match explicit_bounds_checks {
                    true => BoundsChecks::Explicit,
                    false => BoundsChecks::GuardPages,
                };
                let backtraces = match backtraces_with_lines {
                    true => BacktraceDetail::Lines,
                    false => BacktraceDetail::Names,
                };
                return crate::compile::child::run(checks, backtraces);
            }
            Role::Run(args) => run(*args),
            Role::Serve(args) => serve::run(&args).map(|()| ExitCode::SUCCESS),
            Role::Dev(args) => dev::run(&args).map(|()| ExitCode::SUCCESS),

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
    // a core dump would contain the values of secrets
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    crate::descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_name("supervisor")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(crate::drain::run(options(args)));
    // blocking work on a disk or a registry must not delay the exit
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
        tls_addr,
        tls,
        tls_certificate,
        admin_addr,
        debug_socket,
        insecure_registry,
        drain_propagation,
        drain_timeout,
        trusted_proxy,
        cluster_domain,
        egress_deny,
        egress_deny_host,
        api_server,
        address,
        threads,
        max_instances,
        key_value_memory,
        key_value_namespace_memory,
        max_loaded,
        log_format: _,
        reports,
    } = args;
    let own = address.iter().chain(&api_server);
    let own = own.filter_map(|address| parse_network(address).ok());
    let floor = AddressFloor {
        cluster_domain: cluster_domain.trim_matches('.').to_ascii_lowercase(),
        denied: egress_deny.into_iter().chain(own).collect(),
    };
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
        tls_addr,
        tls,
        tls_certificates: tls_certificate,
        admin_addr,
        debug_socket: (!debug_socket.is_empty()).then(|| PathBuf::from(debug_socket)),
        insecure_registries: insecure_registry,
        drain_propagation,
        drain_timeout,
        data: DataPlaneOptions {
            trusted_proxies: trusted_proxy,
            key_value: MemoryLimits {
                total: key_value_memory,
                namespace: key_value_namespace_memory,
            },
            egress: EgressOptions {
                floor,
                denied_hosts: DeniedHosts::new(egress_deny_host),
                ..EgressOptions::default()
            },
            access_log: reports.access_log(),
            server_timing: reports.server_timing,
            ..DataPlaneOptions::with_threads(threads)
        },
        engine: EngineOptions {
            max_slots: max_instances,
            ..EngineOptions::default()
        },
        traces: reports.traces(),
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

/// Error returned when a string is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration with its unit, like 500ms, 15s, 10m or 1h")]
struct DurationError;

fn duration(text: &str) -> Result<Duration, DurationError> {
    let signed: SignedDuration = text.parse().map_err(|_| DurationError)?;
    signed.try_into().map_err(|_| DurationError)
}

/// Error returned when a string is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a size with its unit, like 512Ki, 64Mi or 1Gi")]
struct SizeError;

/// Parses a size in bytes with a binary unit.
fn size(text: &str) -> Result<u64, SizeError> {
    let units = [("Ki", 10), ("Mi", 20), ("Gi", 30)];
    let mut parts = units
        .iter()
        .filter_map(|(unit, bits)| Some((text.strip_suffix(unit)?, bits)));
    let (digits, bits) = parts.next().ok_or(SizeError)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SizeError);
    }
    let number: u64 = digits.parse().map_err(|_| SizeError)?;
    number.checked_mul(1 << bits).ok_or(SizeError)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_need_units() {
        assert_eq!(size("512Ki"), Ok(512 << 10));
        assert_eq!(size("64Mi"), Ok(64 << 20));
        assert_eq!(size("0Gi"), Ok(0));
        for wrong in [
            "",
            "64",
            "Mi",
            "-1Mi",
            "+1Mi",
            "64M",
            "1.5Gi",
            "99999999999999Gi",
        ] {
            assert_eq!(size(wrong), Err(SizeError), "{wrong}");
        }
    }

    #[test]
    fn entries_of_egress_are_read_as_in_the_cluster() {
        let serve = |entry: &str| {
            Cli::try_parse_from(["node-shim", "serve", "app.wasm", "--egress", entry])
        };
        assert!(serve("https://*.pay.example:8443").is_ok());
        let error = serve("http://prices").unwrap_err().to_string();
        assert!(
            error.contains("http://prices.shop.svc.cluster.local"),
            "{error}"
        );
    }

    #[test]
    fn the_node_and_the_api_server_are_denied_to_functions() {
        let arguments = [
            "node-shim",
            "run",
            "--node-name=n",
            "--address=10.1.0.7",
            "--api-server=10.96.0.1",
            "--egress-deny=10.2.0.0/16",
            "--egress-deny-host=*.corp.example",
            "--cluster-domain=Cluster.Example.",
        ];
        let Role::Run(args) = Cli::try_parse_from(arguments).unwrap().role else {
            panic!("another role")
        };
        let egress = options(*args).data.egress;
        let denied = egress.denied_hosts.find("db.corp.example");
        assert_eq!(denied.unwrap().to_string(), "*.corp.example");
        let floor = egress.floor;
        assert_eq!(floor.cluster_domain, "cluster.example");
        let denied: Vec<_> = floor.denied.iter().map(ToString::to_string).collect();
        assert_eq!(denied, ["10.2.0.0/16", "10.1.0.7/32", "10.96.0.1/32"]);
    }

    #[test]
    fn nodes_do_not_parse_the_debug_information_of_functions() {
        let arguments = ["node-shim", "run", "--node-name=n"];
        let Role::Run(args) = Cli::try_parse_from(arguments).unwrap().role else {
            panic!("another role")
        };
        assert_eq!(options(*args).engine.backtraces, BacktraceDetail::Names);
    }

    #[test]
    fn the_number_of_threads_is_that_of_the_cores_up_to_four_unless_it_is_set() {
        let threads = |arguments: &[&str]| {
            let first = ["node-shim", "run", "--node-name=n"];
            let arguments = first.iter().chain(arguments);
            let Role::Run(args) = Cli::try_parse_from(arguments)?.role else {
                panic!("another role")
            };
            Ok::<usize, clap::Error>(options(*args).data.threads.get())
        };
        let cores = std::thread::available_parallelism().unwrap().get();
        assert_eq!(threads(&[]).unwrap(), cores.min(4));
        assert_eq!(threads(&["--threads=5"]).unwrap(), 5);
        assert!(threads(&["--threads=0"]).is_err());
    }

    #[test]
    fn durations_need_units() {
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
