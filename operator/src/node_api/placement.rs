//! Placement: the nodes on which a function runs.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Nodes on which a function is placed. Functions with equal placements share one set; see [`PlacementPool`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Every node, including those that join later.
    All,
    /// Exactly these nodes, by name.
    Nodes(Arc<BTreeSet<String>>),
}

/// The sets of nodes in use. Without it, each function would hold the names of all of its nodes.
#[derive(Debug, Default)]
pub struct PlacementPool(Mutex<HashMap<u64, Weak<BTreeSet<String>>>>);

impl PlacementPool {
    /// Returns the placement on exactly the named nodes.
    pub fn share(&self, names: BTreeSet<String>) -> Placement {
        let mut hasher = DefaultHasher::new();
        names.hash(&mut hasher);
        let hash = hasher.finish();
        let mut pool = self.0.lock();
        if let Some(known) = pool.get(&hash).and_then(Weak::upgrade)
            && *known == names
        {
            return Placement::Nodes(known);
        }
        // dead entries are removed before the map grows, at amortised constant cost
        if pool.len() == pool.capacity() {
            pool.retain(|_, set| set.strong_count() > 0);
            let living = pool.len();
            pool.reserve(living.max(1));
        }
        let names = Arc::new(names);
        pool.insert(hash, Arc::downgrade(&names));
        Placement::Nodes(names)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_placements_share_one_set_for_as_long_as_one_is_used() {
        let pool = PlacementPool::default();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let shared = |left: &Placement, right: &Placement| match (left, right) {
            (Placement::Nodes(left), Placement::Nodes(right)) => Arc::ptr_eq(left, right),
            _ => false,
        };
        let first = pool.share(names(&["a", "b"]));
        assert!(shared(&first, &pool.share(names(&["a", "b"]))));
        assert!(!shared(&first, &pool.share(names(&["a"]))));
        assert_eq!(first, Placement::nodes(["a", "b"]));
        for n in 0..1_000 {
            pool.share(names(&[&n.to_string()]));
        }
        let held = pool.0.lock().len();
        assert!(held < 100, "{held} sets that nothing uses");
        assert!(shared(&first, &pool.share(names(&["a", "b"]))));
    }
}
