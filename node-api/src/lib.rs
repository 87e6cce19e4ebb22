//! What operator and node-shim agree on: the wire contract, generated from `proto/`, and what a node offers
//! to a component.

#![forbid(unsafe_code)]

pub mod world;

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

/// Bounds of the latency histograms, seconds, ascending; the bucket after the last is +Inf.
/// Both sides index buckets by position in this list.
pub const LATENCY_BOUNDS: [f64; 32] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02,
    0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0,
    7.5, 10.0,
];
