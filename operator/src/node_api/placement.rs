//! Which nodes may see a function.

use std::collections::BTreeSet;
use std::sync::Arc;

/// The nodes a function is placed on. Functions with equal selectors should share one set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Every node, also those that join later.
    All,
    /// Exactly these nodes, by name.
    Nodes(Arc<BTreeSet<String>>),
}

impl Placement {
    /// No node at all.
    pub fn nowhere() -> Self {
        Self::Nodes(Arc::default())
    }

    /// Exactly the nodes named.
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

    /// The nodes of either.
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
