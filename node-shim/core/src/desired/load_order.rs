//! In which order code is fetched and compiled: what carries traffic first, fair by namespace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a revision is to its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RevisionRole {
    /// Answers whatever no candidate takes.
    Stable,
    /// Under trial.
    Candidate,
    /// Kept for a revert.
    Previous,
}

/// One revision that the table refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionToLoad {
    /// Namespace of the function.
    pub namespace: String,
    /// Digest of the component.
    pub digest: String,
    /// What it is to its function.
    pub role: RevisionRole,
    /// The function had traffic on this node lately.
    pub recent_traffic: bool,
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

/// Digests in the order in which they should become loaded, each once: by rank, and within a rank
/// one of each namespace in turn, so that a namespace with a thousand functions delays the others
/// by one component and not by a thousand.
#[must_use]
pub fn load_order(wants: impl IntoIterator<Item = RevisionToLoad>) -> Vec<String> {
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
            namespaces.retain(|_, queue| {
                while let Some(digest) = queue.pop_front() {
                    if seen.insert(digest.clone()) {
                        ordered.push(digest);
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
    fn traffic_first_then_assigned_then_previous_and_namespaces_take_turns() {
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
        assert_eq!(ordered, ["b-hot", "a1", "b1", "c1", "a2", "a3", "a-old"]);
    }

    #[test]
    fn nothing_wanted_is_nothing_to_do() {
        assert_eq!(load_order([]), Vec::<String>::new());
    }
}
