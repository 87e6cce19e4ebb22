//! API types of `selvage.dev/v1alpha1`, their CustomResourceDefinitions, and parsers for the text formats in them.
//!
//! Deserialization is tolerant, so that an object written for a newer version can still be read: unknown fields are
//! ignored, and unknown enumeration values are read as `Unknown`.
//!
//! ```
//! use crds::EdgeFunction;
//!
//! let function: EdgeFunction = serde_yaml::from_str(
//!     "
//!     apiVersion: selvage.dev/v1alpha1
//!     kind: EdgeFunction
//!     metadata: { name: checkout, namespace: shop }
//!     spec:
//!       source: { image: registry.example/shop/checkout:1.4.0 }
//!       routes: [{ hosts: [shop.example], paths: [{ value: /checkout }] }]
//!       fieldOfANewerVersion: ignored
//!     ",
//! )?;
//! assert_eq!(function.spec.routes.len(), 1);
//! assert!(function.status.is_none());
//! # Ok::<(), serde_yaml::Error>(())
//! ```
//!
//! # Fields of later versions
//! The schema already contains fields of later versions, so that their form will not change. The operator refuses an
//! object that uses one (`Accepted=False`, reason `NotYetSupported`) instead of ignoring the field. The description of
//! each starts with "Not supported yet", and the generator repeats that at every field below it. Paths below
//! `spec.rollout` apply to `spec` of a RolloutPolicy as well.
//!
//! | Field | In use when | Missing feature |
//! |---|---|---|
//! | `spec.egress.allow` | `function://…` in another namespace | grants between namespaces |
//! | `spec.rollout.strategy` | `BlueGreen`, `ABTest`, `Shadow` | these strategies |
//! | `spec.rollout.{blueGreen,abTest,shadow}` | there | the same |
//! | `spec.rollout.canary.steps[].shadow` | there | shadow steps |
//! | `spec.rollout.affinity` | there | sticky clients |
//! | `spec.rollout.waves` | not empty | waves |
//! | `spec.rollout.freeze` | not empty | freeze windows |
//! | `spec.rollout.priority` | other than 0 | priority in the queue |
//! | `spec.rollout.loadTest` | there | synthetic requests |
//! | `spec.rollout.notify` | not empty | notifications |
//! | `spec.rollout.analysis.checks` | not empty | own queries |
//! | `spec.rollout.revert.revisions` | above 1 | reverts by more than one revision |

#![forbid(unsafe_code)]
#![allow(
    unreachable_pub,
    reason = "the schema derive repeats each struct inside a function, where nothing public can be reached"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "two columns of a kind may well have the same type"
)]

pub mod conditions;
mod definitions;
mod edge_node;
mod enumeration;
mod field_reference;
pub mod function;
mod host_claim;
mod local_reference;
mod names;
mod revision;
pub mod rollout;
mod schema;
mod values_reference;

pub use definitions::{all, files, to_yaml};
pub use edge_node::{EdgeNode, EdgeNodeSpec, EdgeNodeStatus, NodeException, NodeFunctions};
pub use field_reference::field_reference;
pub use function::{EdgeFunction, EdgeFunctionSpec, EdgeFunctionStatus};
pub use host_claim::{HostClaim, HostClaimSpec};
pub use local_reference::LocalReference;
pub use names::{
    ACTION_PREFIX, ANNOTATION_HASH_KEY_SINCE, API_VERSION, EVENT_CONTROLLER, FIELD_MANAGER,
    LABEL_FUNCTION, LABEL_MANAGED_BY, LABEL_REVISION, MANAGED_BY_VALUE, VERSION, claimed_host,
    host_claim_name,
};
pub use node_api_types::text::{
    Duration, DurationError, Number, NumberError, Percentage, PercentageError, Quantity,
    QuantityError,
};
pub use revision::{
    EdgeRevision, EdgeRevisionSpec, EdgeRevisionStatus, ReferenceHash, ReferenceKind, RevisionNodes,
};
pub use rollout::{RolloutPolicy, RolloutPolicySpec};
pub use values_reference::values_reference;
