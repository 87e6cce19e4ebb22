//! Placement: the nodes on which a function runs.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Nodes on which a function is placed. Functions with equal selectors should share one set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Every node, including those that join later.
    All,
    /// Exactly these nodes, by name.
    Nodes(Arc<BTreeSet<String>>),
}

impl Placement {
    /// Returns the placement on no node.
    pub fn nowhere() -> Self {
        Self::Nodes(Arc::default())
    }

    /// Returns the placement on exactly the named nodes.
    pub fn nodes<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self::Nodes(Arc::new(names.into_iter().map(Into::into).collect()))
    }

    /// Whether the function is placed on `node`.
    pub fn includes(&self, node: &str) -> bool {
        match self {
            Self::All => true,
            Self::Nodes(names) => names.contains(node),
        }
    }

    /// Returns the nodes of either placement.
    pub(super) fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Nodes(left), Self::Nodes(right)) if right.is_subset(left) => {
                Self::Nodes(Arc::clone(left))
            }
            (Self::Nodes(left), Self::Nodes(right)) => {
                Self::Nodes(Arc::new(left.union(right).cloned().collect()))
            }
        }
    }
}
