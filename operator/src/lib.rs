//! The operator: watch, resolve, measure, persist, apply, report; hold the lease; serve the node API.
//!
//! Decisions are made in `operator_core`; everything here is IO around them or a pure mapping between
//! what Kubernetes stores and what the core understands.
//!
//! The first step of a reconcile reads the spec of a function and names everything that is wrong with it:
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
pub mod blobs;
pub mod cli;
pub mod dispatch;
pub mod edge_nodes;
pub mod lease;
pub mod measure;
pub mod metrics;
pub mod node_api;
pub mod certificate_secret;
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
