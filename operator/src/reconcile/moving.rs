//! A function that moves to entirely other nodes. Its former nodes keep it until one of the new ones has loaded it, so that some node
//! serves it all the time. Pure.
//!
//! The status remembers which nodes serve the function, so every replica of the operator derives the same nodes from it, also after a
//! restart in the middle of a move, and whatever moves the function: its placement, labels of nodes, or the nodes that exist.

use std::collections::BTreeSet;

use crds::function::Placement as Spec;
use node_api::v1::LoadState;

use crate::node_api::FunctionOnNode;

/// Maximum number of nodes that a status remembers.
const REMEMBERED: usize = 8;

/// Reason of the condition `Distributed` of a function that moves.
pub(super) const MOVING: &str = "Moving";

/// Returns the nodes that keep the function although `spec` does not pick them: those that serve it, if `picked` has none of them.
/// `can_run` tells whether a node exists and has a node-shim.
#[must_use]
pub(super) fn retained(
    spec: &Spec,
    picked: &BTreeSet<String>,
    serving: &[String],
    can_run: impl Fn(&str) -> bool,
) -> BTreeSet<String> {
    let wanted_nowhere = spec.replicas == Some(0);
    if wanted_nowhere || serving.iter().any(|node| picked.contains(node)) {
        return BTreeSet::new();
    }
    let able = serving.iter().filter(|node| can_run(node));
    able.cloned().collect()
}

/// What the nodes that `spec` picks report about the stable revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Arrival {
    /// Live nodes that have loaded it.
    loaded: BTreeSet<String>,
    /// Whether a live node has neither loaded it nor failed to.
    pending: bool,
}

impl Arrival {
    pub(super) fn of(reports: &[FunctionOnNode], picked: &BTreeSet<String>, stable: &str) -> Self {
        let mut arrival = Self::default();
        let live = reports.iter().filter(|node| node.live);
        for node in live.filter(|node| picked.contains(&node.node)) {
            let mut revisions = node.revisions.iter();
            let state = revisions.find(|revision| revision.revision == stable);
            match state.map(|revision| revision.state) {
                Some(LoadState::Loaded) => {
                    arrival.loaded.insert(node.node.clone());
                }
                Some(LoadState::Failed) => {}
                _ => arrival.pending = true,
            }
        }
        arrival
    }

    /// Whether the former nodes are no longer needed: every node that can load the function has done so, and at least one has.
    fn is_complete(&self) -> bool {
        !self.pending && !self.loaded.is_empty()
    }
}

/// Returns the nodes that the status remembers from now on, after `former`. Functions that every node may run remember none.
#[must_use]
pub(super) fn serving(
    spec: &Spec,
    picked: &BTreeSet<String>,
    former: &[String],
    arrival: &Arrival,
) -> Vec<String> {
    if *spec == Spec::default() || spec.replicas == Some(0) {
        return Vec::new();
    }
    let stays: Vec<&String> = former
        .iter()
        .filter(|node| picked.contains(*node))
        .collect();
    if stays.is_empty() && !former.is_empty() && !arrival.is_complete() {
        return former.to_vec();
    }
    let added = arrival.loaded.iter().filter(|node| !stays.contains(node));
    let mut all: Vec<String> = stays.iter().copied().chain(added).cloned().collect();
    all.truncate(REMEMBERED);
    all.sort();
    all
}

/// Returns the sentence about a function that moves; `None` while it does not.
#[must_use]
pub(super) fn sentence(picked: usize, retained: usize) -> Option<String> {
    let nodes = |count: usize| match count {
        1 => "1 node".to_owned(),
        count => format!("{count} nodes"),
    };
    let (verb, keeps) = match retained {
        0 => return None,
        1 => ("keeps", nodes(1)),
        more => ("keep", nodes(more)),
    };
    Some(if picked == 0 {
        format!(
            "No node matches spec.placement; {keeps} of the former placement {verb} serving the function until one does and has loaded it"
        )
    } else {
        format!(
            "The function moves to {}; {keeps} of the former placement {verb} serving it until they have loaded it",
            nodes(picked)
        )
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::node_api::RevisionOnNode;

    fn set(names: &str) -> BTreeSet<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    fn list(names: &str) -> Vec<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    fn replicas(replicas: u32) -> Spec {
        Spec {
            replicas: Some(replicas),
            ..Spec::default()
        }
    }

    /// Nodes with a state each: `+` loaded, `-` failed, `~` loading, `?` no report about the revision, `!` loaded but silent.
    fn reports(nodes: &str) -> Vec<FunctionOnNode> {
        let node = |text: &str| {
            let (state, name) = text.split_at(1);
            let state = match state {
                "+" | "!" => Some(LoadState::Loaded),
                "-" => Some(LoadState::Failed),
                "~" => Some(LoadState::Loading),
                _ => None,
            };
            let revision = state.map(|state| RevisionOnNode {
                revision: "r1".into(),
                state,
                permanent: false,
                applied: None,
            });
            FunctionOnNode {
                node: name.to_owned(),
                live: !text.starts_with('!'),
                last_contact: Timestamp::UNIX_EPOCH,
                revisions: revision.into_iter().collect(),
                exceptions: Vec::new(),
                returned: None,
            }
        };
        nodes.split_whitespace().map(node).collect()
    }

    #[test]
    fn former_nodes_stay_only_if_no_node_that_serves_is_picked() {
        let exists = |node: &str| node != "gone";
        for (spec, picked, serving, expected) in [
            // nothing moves
            (replicas(2), "a b", "a b", ""),
            // one that serves is still picked
            (replicas(2), "b c", "a b", ""),
            // entirely other nodes
            (replicas(2), "c d", "a b", "a b"),
            // one of the former nodes does not exist any longer
            (replicas(1), "c", "a gone", "a"),
            // no node matches
            (replicas(1), "", "a", "a"),
            // the function is wanted nowhere
            (replicas(0), "", "a b", ""),
            // nothing is known yet
            (replicas(1), "a", "", ""),
        ] {
            let found = retained(&spec, &set(picked), &list(serving), exists);
            assert_eq!(found, set(expected), "{picked:?} {serving:?}");
        }
    }

    #[test]
    fn the_status_remembers_former_nodes_until_new_ones_have_loaded_the_function() {
        for (picked, former, nodes, expected) in [
            // the first nodes
            ("a b", "", "~a ~b", ""),
            ("a b", "", "+a ~b", "a"),
            ("a b", "a", "+a +b", "a b"),
            // a node that is silent stays, and one that is no longer picked does not
            ("a b", "a b", "+a !b", "a b"),
            ("a b", "b c", "+a +b +c", "a b"),
            // entirely other nodes: all that can have to load it, and at least one
            ("c d", "a b", "+a +b", "a b"),
            ("c d", "a b", "+a +b ?c ?d", "a b"),
            ("c d", "a b", "+a +b ~c ~d", "a b"),
            ("c d", "a b", "+a +b +c ~d", "a b"),
            ("c d", "a b", "+a +b +c +d", "c d"),
            ("c d", "a b", "+a +b +c -d", "c"),
            ("c d", "a b", "+a +b +c !d", "c"),
            // none of them can
            ("c d", "a b", "+a +b -c -d", "a b"),
            ("c d", "a b", "+a +b !c !d", "a b"),
            // back to the former nodes
            ("a b", "a b", "+a +b ~c", "a b"),
            // no node matches
            ("", "a b", "+a +b", "a b"),
            // a bounded number
            (
                "a b c d e f g h i",
                "i",
                "+a +b +c +d +e +f +g +h +i",
                "a b c d e f g i",
            ),
        ] {
            let picked = set(picked);
            let arrival = Arrival::of(&reports(nodes), &picked, "r1");
            let found = serving(&replicas(9), &picked, &list(former), &arrival);
            assert_eq!(found, list(expected), "{picked:?} {former:?} {nodes:?}");
        }
        let arrival = Arrival::of(&reports("+a"), &set("a"), "r1");
        for spec in [Spec::default(), replicas(0)] {
            let none = serving(&spec, &set("a"), &list("a"), &arrival);
            assert_eq!(none, Vec::<String>::new(), "{spec:?}");
        }
        let other = Arrival::of(&reports("+c"), &set("c"), "r2");
        assert_eq!(
            serving(&replicas(1), &set("c"), &list("a"), &other),
            ["a"],
            "another revision"
        );
    }

    #[test]
    fn the_sentence_counts_the_nodes() {
        assert_eq!(sentence(2, 0), None);
        assert_eq!(
            sentence(2, 1).unwrap(),
            "The function moves to 2 nodes; 1 node of the former placement keeps serving it until they have loaded it"
        );
        assert_eq!(
            sentence(0, 2).unwrap(),
            "No node matches spec.placement; 2 nodes of the former placement keep serving the function until one does and has loaded it"
        );
    }
}
