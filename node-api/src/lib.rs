//! The contract between operator and node-shim: the protocol, generated from `proto/`, and the interfaces that
//! nodes offer to components.
//!
//! ```
//! use node_api::LATENCY_BOUNDS;
//! use node_api::world::World;
//!
//! // a request of 12 ms is counted in the bucket up to 15 ms, on both sides
//! let bucket = LATENCY_BOUNDS.partition_point(|bound| *bound < 0.012);
//! assert_eq!(LATENCY_BOUNDS[bucket], 0.015);
//!
//! // the operator rejects a component with an import that no node offers
//! assert!(World::Proxy.offers("wasi:http/types@0.2.6"));
//! assert!(!World::Proxy.offers("wasi:blobstore/blobstore@0.2.0-draft"));
//! ```

#![forbid(unsafe_code)]

pub mod ca_certificates;
pub mod certificate;
pub mod component;
mod convert;
pub mod world;

pub use node_api_types::{
    ExceptionReason, FencingToken, FunctionKey, HeaderPatternError, LATENCY_BOUNDS,
    LATENCY_BUCKETS, Outcome, egress, header_pattern, latency_bucket, redis_url, store_label, text,
};

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

impl std::fmt::Debug for v1::CertificatePair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificatePair").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for v1::HopKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HopKey").finish_non_exhaustive()
    }
}

/// Overwrites the value, so that no copy of a secret stays in memory after its message is dropped.
impl Drop for v1::SecretValue {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.value);
    }
}

/// Overwrites the private key.
impl Drop for v1::CertificatePair {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

impl v1::Definition {
    /// Returns all values of Secrets in the definition.
    pub fn secrets(&self) -> impl Iterator<Item = &v1::SecretValue> {
        let variables = self.env.iter().chain(&self.config);
        let variables = variables.filter_map(v1::EnvVar::secret);
        let stores = self.key_value.iter();
        variables.chain(stores.filter_map(v1::KeyValueStore::secret))
    }

    /// Returns all values of Secrets in the definition, to change them.
    pub fn secrets_mut(&mut self) -> impl Iterator<Item = &mut v1::SecretValue> {
        let variables = self.env.iter_mut().chain(&mut self.config);
        let variables = variables.filter_map(|variable| match &mut variable.kind {
            Some(v1::env_var::Kind::Secret(secret)) => Some(secret),
            Some(v1::env_var::Kind::Value(_)) | None => None,
        });
        let stores = self.key_value.iter_mut();
        variables.chain(stores.filter_map(v1::KeyValueStore::secret_mut))
    }
}

impl v1::EnvVar {
    /// Returns the value if it comes from a Secret.
    #[must_use]
    pub fn secret(&self) -> Option<&v1::SecretValue> {
        match &self.kind {
            Some(v1::env_var::Kind::Secret(secret)) => Some(secret),
            Some(v1::env_var::Kind::Value(_)) | None => None,
        }
    }
}

impl v1::KeyValueStore {
    /// Returns the value from a Secret that the store needs.
    #[must_use]
    pub fn secret(&self) -> Option<&v1::SecretValue> {
        match &self.kind {
            Some(v1::key_value_store::Kind::Redis(redis)) => redis.url.as_ref(),
            Some(v1::key_value_store::Kind::Memory(_)) | None => None,
        }
    }

    /// Returns the value from a Secret that the store needs, to change it.
    pub fn secret_mut(&mut self) -> Option<&mut v1::SecretValue> {
        match &mut self.kind {
            Some(v1::key_value_store::Kind::Redis(redis)) => redis.url.as_mut(),
            Some(v1::key_value_store::Kind::Memory(_)) | None => None,
        }
    }
}

/// Newest protocol version that this build supports; sent in `Hello`.
pub const PROTOCOL_VERSION: u32 = 1;

/// Capability of a node that forwards requests for functions that are placed on other nodes; sent in `Hello`.
pub const FORWARD: &str = "selvage:forward";
