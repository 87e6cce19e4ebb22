//! Node side of the node API: one stream to an operator replica, with reconnection to the next replica.
//!
//! `client` maintains the stream and converts its messages to [`Event`]s; `report` decides what to report; `blobs`
//! fetches components over the same connection. The supervisor interprets the events.

mod bearer;
mod blobs;
mod client;
mod counters;
mod report;

use std::collections::BTreeSet;
use std::path::PathBuf;

use node_api::v1::{Batch, NodeException, RevisionCounters, RevisionState, SplitUpdate, Welcome};
use node_shim_core::table::FunctionKey;

pub use blobs::BlobClient;
pub use client::Client;
pub use counters::frame_of;
pub(crate) use report::limit_exceptions;

/// Addresses and credentials for the operators, and the identity of this node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the Kubernetes node.
    pub node: String,
    /// URLs of the operators (`https://host:port`), tried in turn. Empty: the node serves the table from disk.
    pub endpoints: Vec<String>,
    /// Name that the server's certificate must contain.
    pub server_name: String,
    /// File with CA certificates (PEM), read for every connection.
    pub ca_file: PathBuf,
    /// File with the bearer token, read for every connection.
    pub token_file: PathBuf,
    /// Start time of this process, in ms since the Unix epoch.
    pub boot_id: u64,
    /// Addresses of this node's data port, for display only.
    pub addresses: Vec<String>,
}

/// Message of an operator, or a change of the connection.
#[derive(Debug)]
pub enum Event {
    /// A stream was opened.
    Connected(Welcome),
    /// Changes to the table, or a part of a snapshot.
    Batch(Batch),
    /// Weight of a candidate to lower at once.
    Hint(SplitUpdate),
    /// The stream ended.
    Disconnected,
}

/// Status that this node reports to an operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeStatus {
    /// Version of the table in effect.
    pub applied: u64,
    /// Table version to resume from; 0 requests a snapshot.
    pub have: u64,
    /// Whether the table has the functions of other nodes.
    pub have_remote: bool,
    /// Functions of other nodes in the table.
    pub remote: BTreeSet<FunctionKey>,
    /// States of all revisions that the table names.
    pub revisions: Vec<RevisionState>,
    /// Oldest current problems, at most 64.
    pub exceptions: Vec<NodeException>,
    /// Number of further problems.
    pub exceptions_dropped: u32,
    /// Number of functions in the table.
    pub functions_desired: u32,
    /// Number of functions whose stable revision (or candidate, if there is no stable one) is loaded.
    pub functions_loaded: u32,
    /// Number of functions with a failed revision.
    pub functions_failed: u32,
    /// Result of `/readyz`.
    pub ready: bool,
    /// Functions whose counters are reported. Deleted functions stay until their counters are dropped.
    pub in_rollout: BTreeSet<FunctionKey>,
    /// Increases whenever reported counters were dropped. If such counters appear again, they start at 0.
    pub counter_generation: u64,
}

/// Source of request counters.
pub trait CounterSource: Send + Sync {
    /// Returns absolute counters of the given functions since the start of the process.
    fn read(&self, functions: &BTreeSet<FunctionKey>) -> Vec<RevisionCounters>;
}
