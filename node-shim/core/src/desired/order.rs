//! In which order code is fetched and compiled: what carries traffic first, fair by namespace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a revision is to its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Answers whatever no candidate takes.
    Stable,
    /// Under trial.
    Candidate,
    /// Kept for a revert.
    Previous,
}

/// One revision that the table refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Namespace of the function.
    pub namespace: String,
    /// Digest of the component.
    pub digest: String,
    /// What it is to its function.
    pub role: Role,
    /// The function had traffic on this node lately.
    pub hot: bool,
}

impl Want {
    fn rank(&self) -> u8 {
        match (self.role, self.hot) {
            (Role::Stable | Role::Candidate, true) => 0,
            (Role::Stable | Role::Candidate, false) => 1,
            (Role::Previous, _) => 2,
        }
    }
}

/// Digests in the order in which they should become loaded, each once: by rank, and within a rank
/// one of each namespace in turn, so that a namespace with a thousand functions delays the others
/// by one component and not by a thousand.
#[must_use]
pub fn order(wants: impl IntoIterator<Item = Want>) -> Vec<String> {
    let mut ranks: BTreeMap<u8, BTreeMap<String, VecDeque<String>>> = BTreeMap::new();
    for want in wants {
        ranks
            .entry(want.rank())
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

    fn want(namespace: &str, digest: &str, role: Role, hot: bool) -> Want {
        Want {
            namespace: namespace.into(),
            digest: digest.into(),
            role,
            hot,
        }
    }

    #[test]
    fn traffic_first_then_assigned_then_previous_and_namespaces_take_turns() {
        let ordered = order([
            want("a", "a-old", Role::Previous, true),
            want("a", "a1", Role::Stable, false),
            want("a", "a2", Role::Stable, false),
            want("a", "a3", Role::Candidate, false),
            want("b", "b1", Role::Stable, false),
            want("b", "b-hot", Role::Candidate, true),
            want("c", "a1", Role::Stable, false),
            want("c", "c1", Role::Stable, false),
        ]);
        assert_eq!(ordered, ["b-hot", "a1", "b1", "c1", "a2", "a3", "a-old"]);
    }

    #[test]
    fn nothing_wanted_is_nothing_to_do() {
        assert_eq!(order([]), Vec::<String>::new());
    }
}
