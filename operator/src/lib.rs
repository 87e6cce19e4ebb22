//! The operator of Selvage: watches and resolves functions, samples their requests, persists and applies decisions,
//! reports status, takes part in the leader election and serves the node API.
//!
//! `operator_core` makes the decisions. This crate contains the IO around them, and pure conversions between Kubernetes
//! objects and the types of the core.
//!
//! The first step of a reconcile validates the spec of a function and reports all violations:
//!
//! ```
//! use operator::validate::{summary, validate};
//!
//! let function = |timeout: &str| {
//!     serde_json::from_value::<crds::EdgeFunction>(serde_json::json!({
//!         "apiVersion": "selvage.dev/v1alpha1",
//!         "kind": "EdgeFunction",
//!         "metadata": { "name": "checkout", "namespace": "shop" },
//!         "spec": {
//!             "source": { "image": "registry.example/shop/checkout:1.4.0" },
//!             "routes": [{ "hosts": ["shop.example"] }],
//!             "limits": { "timeout": timeout },
//!         },
//!     }))
//! };
//! assert!(validate(&function("30s")?, None).is_ok());
//! let violations = validate(&function("soon")?, None).unwrap_err();
//! assert_eq!(summary(&violations).0, "InvalidSpec");
//! # Ok::<(), serde_json::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod admin;
mod backoff;
pub mod blobs;
pub mod certificate_secret;
pub mod cli;
pub mod dispatch;
pub mod edge_nodes;
mod failure_log;
pub mod function_certificates;
mod index_terms;
pub mod lease;
pub mod measure;
pub mod metrics;
pub mod node_api;
mod node_liveness;
pub mod page;
pub mod persist;
mod probe;
pub mod queue;
pub mod reconcile;
pub mod replay;
pub mod resolve;
pub mod revision;
pub mod run;
pub mod validate;
pub mod watch;
