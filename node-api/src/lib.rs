//! The contract between operator and node-shim: the protocol, generated from `proto/`, and the interfaces that
//! nodes offer to components.

#![forbid(unsafe_code)]

pub mod world;

/// Messages and services of version 1 of the protocol.
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

/// Overwrites the value, so that no copy of a secret stays in memory after its message is dropped.
impl Drop for v1::SecretValue {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.value);
    }
}

/// Newest protocol version that this build supports; sent in `Hello`.
pub const PROTOCOL_VERSION: u32 = 1;

/// Upper bounds of the latency histograms in seconds, ascending. The bucket after the last one is +Inf.
/// Both sides index buckets by position in this list.
pub const LATENCY_BOUNDS: [f64; 32] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02,
    0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0,
    7.5, 10.0,
];
