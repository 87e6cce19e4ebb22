//! What operator and node-shim agree on: the wire contract, generated from `proto/`, and what a node offers
//! to a component.

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

/// The newest protocol version this build speaks; sent in `Hello`.
pub const PROTOCOL_VERSION: u32 = 1;
