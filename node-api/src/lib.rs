//! What operator and node-shim agree on: the wire contract, generated from `proto/`, and what a node offers
//! to a component.
//!
//! ```
//! use node_api::{LATENCY_BOUNDS, world};
//!
//! // a request of 12 ms is counted in the bucket up to 15 ms, on both sides
//! let bucket = LATENCY_BOUNDS.partition_point(|bound| *bound < 0.012);
//! assert_eq!(LATENCY_BOUNDS[bucket], 0.015);
//!
//! // the operator refuses a component that imports what no node offers
//! assert!(world::is_offered("wasi:http/types@0.2.6"));
//! assert!(!world::is_offered("wasi:sockets/tcp@0.2.6"));
//! ```

#![forbid(unsafe_code)]

mod convert;
pub mod world;

pub use node_api_types::{
    FencingToken, FunctionKey, LATENCY_BOUNDS, LATENCY_BUCKETS, Outcome, latency_bucket,
};

/// Version 1 of the contract.
pub mod v1 {
    #![allow(
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        clippy::unwrap_used,
        clippy::use_self,
        missing_docs,
        unreachable_pub,
        reason = "generated code"
    )]
    tonic::include_proto!("selvage.node.v1");
}

impl std::fmt::Debug for v1::SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretValue")
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

/// Every copy of a secret is overwritten at its end, wherever a message went.
impl Drop for v1::SecretValue {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.value);
    }
}

/// Reason of a node's exception about a revision whose values of Secrets it lacks.
pub const SECRETS_UNAVAILABLE: &str = "SecretsUnavailable";

/// The newest protocol version this build speaks; sent in `Hello`.
pub const PROTOCOL_VERSION: u32 = 1;
