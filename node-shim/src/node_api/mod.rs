//! This node's side of the node API: one stream to whichever operator replica answers, forever.
//!
//! `client` keeps the stream up and turns it into [`Event`]s; `report` decides what goes back
//! up; `blobs` fetches components on the same connection. What an event means is not decided here.

mod bearer;
mod blobs;
mod client;
mod counters;
mod report;

use std::collections::BTreeSet;
use std::path::PathBuf;

use node_api::v1::{Batch, NodeException, RevisionCounters, RevisionState, ShareUpdate, Welcome};
use node_shim_core::table::FunctionKey;

pub use blobs::BlobClient;
pub use client::Client;
pub(crate) use client::unix_ms;
pub use counters::frame_of;
pub(crate) use report::limit_exceptions;

/// How to reach an operator and who we are.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Kubernetes node name.
    pub node: String,
    /// `https://host:port`, tried in turn.
    pub endpoints: Vec<String>,
    /// Name the server's certificate must have.
    pub server_name: String,
    /// CA certificates (PEM), read again for every connection.
    pub ca_file: PathBuf,
    /// Bearer token, read again for every connection.
    pub token_file: PathBuf,
    /// Start of this process, ms since the Unix epoch.
    pub boot_id: u64,
    /// Addresses of this node's data port, for people.
    pub addresses: Vec<String>,
}

/// What an operator said, or that none is there.
#[derive(Debug)]
pub enum Event {
    /// A stream is up.
    Connected(Welcome),
    /// A part of the table.
    Batch(Batch),
    /// A share to lower at once.
    Hint(ShareUpdate),
    /// The stream ended.
    Disconnected,
}

/// What this node tells an operator about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeStatus {
    /// Version of the table in force.
    pub applied: u64,
    /// Version to resume from; 0 asks for a snapshot.
    pub have: u64,
    /// Every revision the table names.
    pub revisions: Vec<RevisionState>,
    /// At most 64.
    pub exceptions: Vec<NodeException>,
    /// How many more there are.
    pub exceptions_dropped: u32,
    /// Functions in the table.
    pub functions_desired: u32,
    /// Those whose stable (or, before there is one, candidate) is loaded.
    pub functions_loaded: u32,
    /// Those with a revision that failed.
    pub functions_failed: u32,
    /// What `/readyz` says.
    pub ready: bool,
    /// Functions whose counters are reported; deleted ones until their counters are dropped.
    pub in_rollout: BTreeSet<FunctionKey>,
    /// Changes whenever counters that were reported have been dropped: should they come again, they
    /// begin at 0.
    pub counter_generation: u64,
}

/// Where the counters of requests are read.
pub trait CounterSource: Send + Sync {
    /// Absolute counters of the named functions since the start of the process.
    fn read(&self, functions: &BTreeSet<FunctionKey>) -> Vec<RevisionCounters>;
}
