//! States of the revisions of one function on one node.

use node_api::v1::RevisionState;

/// States of the revisions of one function, in the order of their names. A function has one to three revisions, and a
/// replica holds them for every function on every node, so the list takes no more memory than its elements.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RevisionStates(Vec<RevisionState>);

impl RevisionStates {
    /// Returns the state of `revision`.
    pub(super) fn get(&self, revision: &str) -> Option<&RevisionState> {
        self.0.get(self.position(revision).ok()?)
    }

    /// Adds a state or replaces the one of the same revision.
    pub(super) fn set(&mut self, state: RevisionState) {
        match self.position(&state.revision) {
            Ok(at) => {
                if let Some(held) = self.0.get_mut(at) {
                    *held = state;
                }
            }
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, state);
            }
        }
    }

    /// Removes the state of `revision`. Returns whether there was one.
    pub(super) fn remove(&mut self, revision: &str) -> bool {
        let found = self.position(revision);
        if let Ok(at) = found {
            self.0.remove(at);
            self.0.shrink_to_fit();
        }
        found.is_ok()
    }

    /// Returns the states in the order of the revisions' names.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, RevisionState> {
        self.0.iter()
    }

    fn position(&self, revision: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|state| state.revision.as_str().cmp(revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(revision: &str, permanent: bool) -> RevisionState {
        RevisionState {
            revision: revision.to_owned(),
            permanent,
            ..RevisionState::default()
        }
    }

    #[test]
    fn there_is_one_state_of_each_revision_and_no_spare_memory() {
        let mut states = RevisionStates::default();
        for (revision, permanent) in [("b", false), ("a", true), ("c", true), ("b", true)] {
            states.set(state(revision, permanent));
            assert_eq!(states.0.capacity(), states.0.len());
        }
        let all: Vec<_> = states.iter().map(|one| one.revision.as_str()).collect();
        assert_eq!(all, ["a", "b", "c"]);
        assert_eq!(states.get("b").map(|one| one.permanent), Some(true));
        assert!(states.remove("a"));
        assert!(!states.remove("a"));
        assert_eq!(states.get("a"), None);
        assert_eq!(states.0.capacity(), 2);
    }
}
