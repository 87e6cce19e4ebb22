//! The operator: watch, resolve, measure, persist, apply, report; hold the lease; serve the node API.
//!
//! Decisions are made in `operator_core`; everything here is IO around them or a pure mapping between
//! what Kubernetes stores and what the core understands.

pub mod cli;
pub mod lease;
pub mod measure;
pub mod node_api;
pub mod replay;
pub mod resolve;
pub mod run;
