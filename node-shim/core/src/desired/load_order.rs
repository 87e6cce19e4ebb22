//! Order in which components are loaded: those with traffic first, and fair between namespaces.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::table::{RevisionName, TrafficSplit};

/// Role of a revision within its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RevisionRole {
    /// Receives all traffic that the candidate does not.
    Stable,
    /// Under evaluation in a rollout.
    Candidate,
    /// Kept loaded so that a revert takes effect at once.
    Previous,
}

impl RevisionRole {
    /// Returns the role of a revision that the split names.
    #[must_use]
    pub fn of(split: &TrafficSplit, name: &RevisionName) -> Self {
        if split.stable.as_ref() == Some(name) {
            Self::Stable
        } else if split.candidate.as_ref() == Some(name) {
            Self::Candidate
        } else {
            Self::Previous
        }
    }
}

/// A revision of the node's table whose component has to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionToLoad {
    /// Namespace of the function.
    pub namespace: String,
    /// Digest of the component.
    pub digest: String,
    /// Role of the revision within its function.
    pub role: RevisionRole,
    /// Whether the function had traffic on this node recently.
    pub recent_traffic: bool,
}

/// A component in the order of loading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedLoad {
    /// Namespace in whose turn the component is loaded.
    pub namespace: String,
    /// Digest of the component.
    pub digest: String,
}

impl RevisionToLoad {
    fn priority(&self) -> u8 {
        match (self.role, self.recent_traffic) {
            (RevisionRole::Stable | RevisionRole::Candidate, true) => 0,
            (RevisionRole::Stable | RevisionRole::Candidate, false) => 1,
            (RevisionRole::Previous, _) => 2,
        }
    }
}

/// Returns the components in the order in which they should be loaded, each once. They are sorted by
/// priority; within a priority the namespaces take turns, so that a namespace with a thousand
/// functions delays another one by a single component.
#[must_use]
pub fn load_order(wants: impl IntoIterator<Item = RevisionToLoad>) -> Vec<QueuedLoad> {
    let mut ranks: BTreeMap<u8, BTreeMap<String, VecDeque<String>>> = BTreeMap::new();
    for want in wants {
        ranks
            .entry(want.priority())
            .or_default()
            .entry(want.namespace)
            .or_default()
            .push_back(want.digest);
    }
    let mut seen = BTreeSet::new();
    let mut ordered = Vec::new();
    for mut namespaces in ranks.into_values() {
        while !namespaces.is_empty() {
            namespaces.retain(|namespace, queue| {
                while let Some(digest) = queue.pop_front() {
                    if seen.insert(digest.clone()) {
                        ordered.push(QueuedLoad {
                            namespace: namespace.clone(),
                            digest,
                        });
                        break;
                    }
                }
                !queue.is_empty()
            });
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(namespace: &str, digest: &str, role: RevisionRole, hot: bool) -> RevisionToLoad {
        RevisionToLoad {
            namespace: namespace.into(),
            digest: digest.into(),
            role,
            recent_traffic: hot,
        }
    }

    #[test]
    fn components_with_traffic_come_first_and_namespaces_take_turns() {
        let ordered = load_order([
            want("a", "a-old", RevisionRole::Previous, true),
            want("a", "a1", RevisionRole::Stable, false),
            want("a", "a2", RevisionRole::Stable, false),
            want("a", "a3", RevisionRole::Candidate, false),
            want("b", "b1", RevisionRole::Stable, false),
            want("b", "b-hot", RevisionRole::Candidate, true),
            want("c", "a1", RevisionRole::Stable, false),
            want("c", "c1", RevisionRole::Stable, false),
        ]);
        let digests: Vec<_> = ordered.iter().map(|load| load.digest.as_str()).collect();
        assert_eq!(digests, ["b-hot", "a1", "b1", "c1", "a2", "a3", "a-old"]);
    }

    #[test]
    fn the_order_of_no_revisions_is_empty() {
        assert_eq!(load_order([]), []);
    }
}
