//! Every bound of the node API in one place.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How a replica serves nodes. [`Settings::new`] gives the documented bounds; tests narrow some.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Audience that every token must be bound to.
    pub audience: String,
    /// `system:serviceaccount:<namespace>:<name>` of the node shims.
    pub shim_user: String,
    /// The same for the operator's replicas.
    pub operator_user: String,
    /// This replica's own token, shown to the leader; re-read for each dial. None: nothing is relayed.
    pub operator_token: Option<PathBuf>,
    /// Server name in the serving certificate.
    pub server_name: String,
    /// Told to the nodes: a candidate's share ends after this long without contact.
    pub unsupervised_ttl: Duration,
    /// Told to the nodes: counters of functions in rollout come at least this often.
    pub report_interval: Duration,
    /// Without a message for this long a node is absent.
    pub silence: Duration,
    /// A stream or a cached review lives no longer than this after its TokenReview.
    pub reauthenticate: Duration,
    /// Changes of one stream are collected for this long, or until `batch_bytes`.
    pub batch_delay: Duration,
    /// A batch is closed at about this size, bytes.
    pub batch_bytes: usize,
    /// A part of a snapshot is closed at about this size, bytes.
    pub part_bytes: usize,
    /// Largest message in either direction, bytes.
    pub frame_bytes: usize,
    /// A stream that took nothing for this long, with something waiting, is cut.
    pub drain: Duration,
    /// Keepalive pings are sent this often and must be answered as fast.
    pub keepalive: Duration,
    /// Streams of one identity at a time.
    pub streams_per_identity: usize,
    /// New streams per second and replica.
    pub new_streams_per_second: u32,
    /// Streams at a time, all nodes together.
    pub max_streams: usize,
    /// TLS handshakes at a time.
    pub handshakes: usize,
    /// Reports of one identity, bytes per second; ten seconds' worth may come at once.
    pub report_bytes_per_second: u32,
    /// Exceptions kept per report.
    pub exceptions: usize,
    /// Blob answers at a time and replica, and at most two per identity.
    pub blobs: usize,
}

impl Settings {
    /// The documented bounds, for a release in `namespace`.
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
