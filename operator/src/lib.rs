//! The operator: watch, resolve, measure, persist, apply, report; hold the lease; serve the node API.
//!
//! Decisions are made in `operator_core`; everything here is IO around them or a pure mapping between
//! what Kubernetes stores and what the core understands.

pub mod admin;
pub mod blobs;
pub mod cli;
pub mod dispatch;
pub mod edge_nodes;
pub mod lease;
pub mod measure;
pub mod metrics;
pub mod node_api;
pub mod own_secret;
pub mod persist;
pub mod queue;
pub mod reconcile;
pub mod replay;
pub mod resolve;
pub mod revision;
pub mod run;
mod terms;
pub mod validate;
pub mod watch;
