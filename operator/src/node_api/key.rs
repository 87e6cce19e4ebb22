//! The name of a function, cheap to clone.

use std::fmt;
use std::sync::Arc;

use node_api::v1;

/// Namespace and name of an `EdgeFunction`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionKey {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl FunctionKey {
    /// The key of `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// As it travels to the nodes.
    pub fn to_wire(&self) -> v1::FunctionKey {
        v1::FunctionKey {
            namespace: self.namespace.to_string(),
            name: self.name.to_string(),
        }
    }
}

impl From<&v1::FunctionKey> for FunctionKey {
    fn from(wire: &v1::FunctionKey) -> Self {
        Self::new(&wire.namespace, &wire.name)
    }
}

impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
