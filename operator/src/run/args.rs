//! Settings of `operator run`. Every flag has an environment variable, so that a chart can set either.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::prometheus_args::PrometheusArgs;

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people to read.
    Text,
}

/// Settings of `operator run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Namespace of this release, which holds the Lease and the operator's Secret.
    #[arg(long, env = "POD_NAMESPACE", default_value = "selvage-system")]
    pub namespace: String,
    /// Name of this pod, which identifies the lease holder.
    #[arg(long, env = "POD_NAME", default_value = "operator")]
    pub pod_name: String,
    /// Address at which other replicas reach this one.
    #[arg(long, env = "POD_IP", default_value = "127.0.0.1")]
    pub pod_ip: String,
    /// Listen address of the node API.
    #[arg(long, env = "SELVAGE_NODE_API_ADDR", default_value = "[::]:9443")]
    pub node_api_addr: SocketAddr,
    /// Listen address of /healthz, /readyz and /metrics.
    #[arg(long, env = "SELVAGE_ADMIN_ADDR", default_value = "[::]:9180")]
    pub admin_addr: SocketAddr,
    /// Name of the Lease that elects the leader.
    #[arg(long, env = "SELVAGE_LEASE_NAME", default_value = "selvage-operator")]
    pub lease_name: String,
    /// Time after which an unchanged Lease may be taken over by another replica.
    #[arg(long, env = "SELVAGE_LEASE_DURATION", default_value = "15s", value_parser = duration)]
    pub lease_duration: Duration,
    /// Time after which a leader that could not renew its Lease stops deciding: at most one retry period
    /// earlier, at most a quarter of a retry period later. The process then exits.
    #[arg(long, env = "SELVAGE_RENEW_DEADLINE", default_value = "10s", value_parser = duration)]
    pub renew_deadline: Duration,
    /// Interval between two reads of the Lease.
    #[arg(long, env = "SELVAGE_RETRY_PERIOD", default_value = "2s", value_parser = duration)]
    pub retry_period: Duration,
    /// Base URL of Prometheus, which may have a path. Empty means that only in-band counters are used.
    #[arg(long, env = "SELVAGE_PROMETHEUS_URL", default_value = "")]
    pub prometheus_url: String,
    /// Label matchers of the series that Prometheus scrapes from the node-shims, such as `namespace="edge",pod=~"node-.+"`. Empty
    /// means the pods of the DaemonSet in the namespace of this release.
    #[arg(long, env = "SELVAGE_PROMETHEUS_SELECTOR", default_value = "")]
    pub prometheus_selector: String,
    /// Access to Prometheus.
    #[command(flatten)]
    pub prometheus: PrometheusArgs,
    /// Registry that is accessed over plain HTTP, as host:port. Repeatable.
    #[arg(
        long = "insecure-registry",
        env = "SELVAGE_INSECURE_REGISTRIES",
        value_delimiter = ','
    )]
    pub insecure_registries: Vec<String>,
    /// Audience that the nodes' tokens must be bound to.
    #[arg(
        long,
        env = "SELVAGE_TOKEN_AUDIENCE",
        default_value = "selvage-node-api"
    )]
    pub token_audience: String,
    /// Service account of the node shims.
    #[arg(
        long,
        env = "SELVAGE_SHIM_SERVICE_ACCOUNT",
        default_value = "selvage-node-shim"
    )]
    pub shim_service_account: String,
    /// Service account of the operator's replicas, for the relay between them.
    #[arg(
        long,
        env = "SELVAGE_OPERATOR_SERVICE_ACCOUNT",
        default_value = "selvage-operator"
    )]
    pub operator_service_account: String,
    /// File with the token that this replica presents to the leader; without it, nothing is relayed.
    #[arg(long, env = "SELVAGE_OPERATOR_TOKEN_FILE")]
    pub operator_token_file: Option<PathBuf>,
    /// Time without contact after which a node returns a function to its stable revision.
    #[arg(long, env = "SELVAGE_UNSUPERVISED_TTL", default_value = "10m", value_parser = duration)]
    pub unsupervised_ttl: Duration,
    /// Maximum number of rollouts whose candidate receives requests at the same time, without those that are paused or wait
    /// for an approval.
    #[arg(long, env = "SELVAGE_MAX_ROLLOUTS", default_value_t = 500)]
    pub max_rollouts: usize,
    /// Interval at which Prometheus scrapes the nodes.
    #[arg(long, env = "SELVAGE_SCRAPE_INTERVAL", default_value = "15s", value_parser = duration)]
    pub scrape_interval: Duration,
    /// Page about functions and rollouts.
    #[command(flatten)]
    pub page: PageArgs,
    /// Format of log lines.
    #[arg(long, env = "SELVAGE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Settings of the page.
#[derive(Debug, Clone, Default, Args)]
pub struct PageArgs {
    /// Listen address of a read-only page about functions and rollouts. Without it, no page is served.
    #[arg(id = "page_address", long = "page-addr", env = "SELVAGE_PAGE_ADDR")]
    pub address: Option<SocketAddr>,
    /// Host name under which browsers may open the page, beside localhost and addresses. Repeatable.
    #[arg(
        id = "page_hosts",
        long = "page-host",
        env = "SELVAGE_PAGE_HOSTS",
        value_delimiter = ',',
        requires = "page_address"
    )]
    pub hosts: Vec<String>,
    /// File with the bearer token that the page needs to show data, read again for each request. Without it, the page is open to
    /// everyone who can reach its address.
    #[arg(
        id = "page_token_file",
        long = "page-token-file",
        env = "SELVAGE_PAGE_TOKEN_FILE",
        requires = "page_address"
    )]
    pub token_file: Option<PathBuf>,
}

/// Parses durations such as `1h30m`, `15s` and `250ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from(span).map_err(|_| "must not be negative".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_page_need_its_address() {
        #[derive(Debug, clap::Parser)]
        struct Program {
            #[command(flatten)]
            run: RunArgs,
        }
        let parse = |arguments: &[&str]| {
            let arguments = ["run"].iter().chain(arguments);
            <Program as clap::Parser>::try_parse_from(arguments)
        };
        assert_eq!(parse(&[]).unwrap().run.page.address, None);
        let page = parse(&["--page-addr=[::]:9181", "--page-host=a", "--page-host=b"]);
        let page = page.unwrap().run.page;
        assert_eq!((page.hosts.len(), page.token_file), (2, None));
        assert!(parse(&["--page-token-file=token"]).is_err());
    }

    #[test]
    fn durations_with_several_units_are_read_and_negative_ones_refused() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("-1s").is_err());
        assert!(duration("fast").is_err());
    }
}
