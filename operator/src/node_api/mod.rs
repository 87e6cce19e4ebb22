//! The operator's side of the node API. Every replica serves it, and any replica can serve any node.
//!
//! ```text
//! caches ─► Tables ─► queue per stream (keyed by function) ─► batches ─► nodes
//! leader ─► Fleet::hint ─► Tables ─► the same streams, ahead of the batches; other replicas by Relay
//! nodes  ─► reports ─► Fleet ◄─ Relay ─◄ other replicas
//! ```
//!
//! * [`Tables`] is the desired state of the nodes. It is a function of the replica's caches and records which node may
//!   see which function; a node never receives a function that is not placed on it.
//! * [`Fleet`] is the state that the nodes report. On the leader it merges direct and relayed nodes.
//! * [`Server`] connects the two over TLS. It never waits for a slow peer: a stream that does not drain is closed, a
//!   report above its budget is dropped and counted, and a hint is sent ahead of every queue.

mod authenticate;
mod blob_transfer;
mod blobs;
mod calls;
mod change_log;
mod codec;
mod fleet;
mod identity;
mod leader;
mod listen;
mod metrics;
mod placement;
mod rate_limit;
mod relay_client;
mod relay_server;
mod server;
mod service;
mod settings;
#[cfg(test)]
mod simulated_node;
mod sync;
mod tables;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
pub mod tls;

pub use blobs::{BlobError, BlobWanted, Blobs};
pub use fleet::{
    CounterSelector, Fleet, FleetChanges, FleetSubscription, FunctionOnNode, Latency, NodeView,
    Processes, RevisionOnNode,
};
pub use identity::{KubeReviewer, Review, ReviewError, Reviewer};
pub use leader::Leader;
pub use metrics::Meter;
pub use node_api::FunctionKey;
pub use placement::{Placement, PlacementPool};
pub use server::{Bound, Server, ServerError};
pub use settings::Settings;
#[cfg(test)]
pub(crate) use simulated_node::SimulatedNode;
pub use tables::{HintRefused, RecordRefused, Tables};
