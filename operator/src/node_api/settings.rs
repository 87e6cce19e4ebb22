//! All limits and settings of the node API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Settings with which a replica serves nodes. [`Settings::new`] returns the documented values; tests narrow some.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Listen address.
    pub listen: SocketAddr,
    /// Audience that every token must be bound to.
    pub audience: String,
    /// Service account of the node shims, `system:serviceaccount:<namespace>:<name>`.
    pub shim_user: String,
    /// Service account of the operator's replicas, in the same form.
    pub operator_user: String,
    /// File with this replica's own token for the leader, read again for each connection. `None` disables the relay.
    pub operator_token: Option<PathBuf>,
    /// Server name in the serving certificate.
    pub server_name: String,
    /// Sent to the nodes: time without contact after which a node ends a candidate's traffic.
    pub unsupervised_ttl: Duration,
    /// Sent to the nodes: maximum interval between counter frames of functions in a rollout.
    pub report_interval: Duration,
    /// Time without a message after which a node is absent.
    pub silence: Duration,
    /// Maximum lifetime of a stream or a cached review after its TokenReview.
    pub reauthenticate: Duration,
    /// Changes of one stream are collected for this long, or until `batch_bytes`.
    pub batch_delay: Duration,
    /// Approximate size at which a batch is closed, in bytes.
    pub batch_bytes: usize,
    /// Approximate size at which a part of a snapshot is closed, in bytes.
    pub part_bytes: usize,
    /// Maximum size of a message in either direction, in bytes.
    pub frame_bytes: usize,
    /// A stream with pending messages that accepts none for this long is closed.
    pub drain: Duration,
    /// Interval of keepalive pings, and the deadline of their answers.
    pub keepalive: Duration,
    /// Maximum number of streams of one identity.
    pub streams_per_identity: usize,
    /// Maximum number of new streams per second and replica.
    pub new_streams_per_second: u32,
    /// Maximum number of streams of all nodes together.
    pub max_streams: usize,
    /// Maximum number of concurrent TLS handshakes.
    pub handshakes: usize,
    /// Rate limit of the reports of one identity, in bytes per second; the burst is ten seconds of it.
    pub report_bytes_per_second: u32,
    /// Maximum number of exceptions kept per report.
    pub exceptions: usize,
    /// Maximum number of concurrent blob answers per replica; at most two per identity.
    pub blobs: usize,
}

impl Settings {
    /// Returns the documented values for a release in `namespace`.
    pub fn new(listen: SocketAddr, namespace: &str) -> Self {
        Self {
            listen,
            audience: "selvage-node-api".to_owned(),
            shim_user: format!("system:serviceaccount:{namespace}:selvage-node-shim"),
            operator_user: format!("system:serviceaccount:{namespace}:selvage-operator"),
            operator_token: None,
            server_name: super::tls::SERVER_NAME.to_owned(),
            unsupervised_ttl: Duration::from_secs(600),
            report_interval: Duration::from_secs(5),
            silence: Duration::from_secs(10),
            reauthenticate: Duration::from_secs(600),
            batch_delay: Duration::from_millis(50),
            batch_bytes: 64 * 1024,
            part_bytes: 1024 * 1024,
            frame_bytes: 4 * 1024 * 1024,
            drain: Duration::from_secs(5),
            keepalive: Duration::from_secs(10),
            streams_per_identity: 2,
            new_streams_per_second: 200,
            max_streams: 6_000,
            handshakes: 64,
            report_bytes_per_second: 128 * 1024,
            exceptions: 64,
            blobs: 16,
        }
    }
}
