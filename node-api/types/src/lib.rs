//! Types that operator and node-shim must agree on, without the wire: both cores use them and stay free of IO.
//!
//! The messages themselves are in `node-api`, which also converts between the two.

#![forbid(unsafe_code)]

pub mod address;
pub mod egress;
mod exception;
mod header_pattern;
mod latency;
mod outcome;
pub mod redis_url;
pub mod store_label;
pub mod text;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use exception::ExceptionReason;
pub use header_pattern::{HeaderPatternError, header_pattern};
pub use latency::{LATENCY_BOUNDS, LATENCY_BUCKETS, latency_bucket};
pub use outcome::Outcome;

/// Namespace and name of an `EdgeFunction`. Clones are cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionKey {
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
}

impl FunctionKey {
    /// The key of the function `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: impl AsRef<str>, name: impl AsRef<str>) -> Self {
        Self {
            namespace: namespace.as_ref().into(),
            name: name.as_ref().into(),
        }
    }
}

/// Writes `namespace/name`.
impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Orders the instructions to nodes about one function: a node ignores every instruction with a smaller token than it has.
/// A token is never used for two different instructions.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct FencingToken {
    /// Number of the leader's term; rises with every leader.
    pub epoch: u64,
    /// Number of the instruction within the term.
    pub serial: u64,
}

impl FencingToken {
    /// The token of instruction `serial` in the term `epoch`.
    #[must_use]
    pub const fn new(epoch: u64, serial: u64) -> Self {
        Self { epoch, serial }
    }
}
