//! The reports of the nodes of one function, in the form that the core needs. Pure.

use std::collections::BTreeSet;

use crds::function::FunctionException;
use node_api::ExceptionReason;
use node_api::v1::LoadState;
use operator_core::rollout::{
    FencingToken, NodeProblem, NodesView, RevisionOnNodes, RolloutState, hint_token,
};

use crate::node_api::{FunctionOnNode, RevisionOnNode};

/// Reason of the exception of a node that reports a version which no operator has issued.
const FUTURE_VERSION: &str = "FutureVersion";

/// Reports of the nodes of one function. They count only if the function is placed on the node.
pub(super) struct NodeReports<'a> {
    /// Nodes that placement picks.
    nodes: Vec<&'a FunctionOnNode>,
    /// Epoch of the leader. No operator has issued a version with a greater one.
    epoch: u64,
}

/// All reports about one function, and the nodes that run it.
pub(super) struct FunctionNodes {
    pub(super) reports: Vec<FunctionOnNode>,
    pub(super) placed: BTreeSet<String>,
    /// Those of them that keep the function while it moves to the others.
    pub(super) retained: BTreeSet<String>,
    /// Epoch of the leader.
    pub(super) epoch: u64,
}

impl FunctionNodes {
    pub(super) fn reports(&self) -> NodeReports<'_> {
        NodeReports::new(&self.reports, &self.placed, self.epoch)
    }
}

impl<'a> NodeReports<'a> {
    /// Selects the nodes that placement picks from all reports.
    pub(super) fn new(all: &'a [FunctionOnNode], placed: &BTreeSet<String>, epoch: u64) -> Self {
        Self {
            nodes: all
                .iter()
                .filter(|node| placed.contains(&node.node))
                .collect(),
            epoch,
        }
    }

    /// The greatest version that a node acts on, unless it reports one from the future.
    fn acted_on(&self, node: &FunctionOnNode) -> Option<FencingToken> {
        let applied = node.revisions.iter().filter_map(|it| it.applied).max();
        applied.filter(|token| token.epoch <= self.epoch)
    }

    fn is_from_the_future(&self, node: &FunctionOnNode) -> bool {
        let mut applied = node.revisions.iter().filter_map(|it| it.applied);
        applied.any(|token| token.epoch > self.epoch)
    }

    /// Summarizes the nodes for the core.
    pub(super) fn view(&self, state: &RolloutState, revisions: &BTreeSet<String>) -> NodesView {
        let live: Vec<_> = self
            .nodes
            .iter()
            .filter(|node| node.live)
            .copied()
            .collect();
        let ahead = |node: &&&FunctionOnNode| self.acted_on(node) > Some(hint_token(state.token));
        NodesView {
            desired: count(self.nodes.len()),
            live: count(live.len()),
            revisions: revisions
                .iter()
                .map(|revision| self.on_nodes(&live, revision))
                .collect(),
            token: state.token,
            applied: count(self.following(state).len()),
            highest_token: self
                .nodes
                .iter()
                .filter_map(|node| self.acted_on(node))
                .max(),
            ahead: count(live.iter().filter(ahead).count()),
            returned: count(
                live.iter()
                    .filter(|node| returned(node, state.token))
                    .count(),
            ),
        }
    }

    /// Live nodes that have loaded the candidate (at rest: stable) and act on the present traffic split.
    pub(super) fn following(&self, state: &RolloutState) -> BTreeSet<String> {
        let candidate = state
            .rollout
            .as_ref()
            .map(|rollout| &rollout.candidate.revision.name);
        let Some(wanted) =
            candidate.or_else(|| state.stable.as_ref().map(|stable| &stable.revision.name))
        else {
            return BTreeSet::new();
        };
        let present = state.token..=hint_token(state.token);
        let follows = |node: &&&FunctionOnNode| {
            node.live
                && self
                    .acted_on(node)
                    .is_some_and(|token| present.contains(&token))
                && node.revisions.iter().any(|revision| {
                    revision.revision == *wanted
                        && revision.state == LoadState::Loaded
                        && revision.applied.is_some_and(|token| token >= state.token)
                })
        };
        self.nodes
            .iter()
            .filter(follows)
            .map(|node| node.node.clone())
            .collect()
    }

    /// Live nodes that act on `pair` or something newer, and all live nodes.
    pub(super) fn at(&self, token: FencingToken) -> (usize, usize) {
        let live = self.nodes.iter().filter(|node| node.live);
        let reached = live.clone().filter(|node| {
            node.revisions
                .iter()
                .filter_map(|revision| revision.applied)
                .any(|acted_on| acted_on >= token)
        });
        (reached.count(), live.count())
    }

    /// The first failures that live nodes report.
    pub(super) fn exceptions(&self) -> Vec<FunctionException> {
        let impossible = self
            .nodes
            .iter()
            .filter(|node| self.is_from_the_future(node));
        let impossible = impossible.map(|node| self.future_version(node));
        let complaints = self.nodes.iter().filter(|node| node.live).flat_map(|node| {
            node.exceptions.iter().map(|exception| FunctionException {
                node: node.node.clone(),
                revision: exception.revision.clone(),
                reason: exception.reason.clone(),
                message: Some(exception.message.chars().take(256).collect::<String>())
                    .filter(|message| !message.is_empty()),
                since: i64::try_from(exception.since)
                    .ok()
                    .and_then(|since| jiff::Timestamp::from_millisecond(since).ok())
                    .map(crate::persist::time),
            })
        });
        impossible.chain(complaints).take(8).collect()
    }
}

impl NodeReports<'_> {
    /// Exception of a node that reports a version from the future.
    fn future_version(&self, node: &FunctionOnNode) -> FunctionException {
        let of = |it: &&RevisionOnNode| it.applied.is_some_and(|token| token.epoch > self.epoch);
        let revision = node.revisions.iter().find(of);
        let epoch = revision
            .and_then(|it| it.applied)
            .map_or(0, |token| token.epoch);
        FunctionException {
            node: node.node.clone(),
            revision: revision.map(|it| it.revision.clone()).unwrap_or_default(),
            reason: FUTURE_VERSION.to_owned(),
            message: Some(format!(
                "it reports a version of epoch {epoch}, above the operator's epoch {}; restart the operator if the cluster was restored from a backup, otherwise replace the node",
                self.epoch
            )),
            since: None,
        }
    }

    /// Live nodes that lack values of Secrets of one of these revisions, by name.
    pub(super) fn lacking_values(&self, revisions: &BTreeSet<&str>) -> Vec<String> {
        let lacks = |node: &FunctionOnNode| {
            node.exceptions.iter().any(|exception| {
                exception.reason == ExceptionReason::SecretsUnavailable.name()
                    && revisions.contains(exception.revision.as_str())
            })
        };
        let nodes = self.nodes.iter().filter(|node| node.live && lacks(node));
        nodes.map(|node| node.node.clone()).collect()
    }
}

/// Whether a node had the present traffic split before it lost contact, and has had nothing newer since.
fn returned(node: &FunctionOnNode, token: FencingToken) -> bool {
    node.returned.is_some_and(|acted_on| acted_on >= token)
}

impl NodeReports<'_> {
    fn on_nodes(&self, live: &[&FunctionOnNode], name: &str) -> RevisionOnNodes {
        let mut found = RevisionOnNodes {
            revision: name.to_owned(),
            ..RevisionOnNodes::default()
        };
        for node in live {
            if found.problem.is_none() && self.is_from_the_future(node) {
                let exception = self.future_version(node);
                found.problem = Some(NodeProblem {
                    node: exception.node,
                    reason: exception.reason,
                    message: exception.message.unwrap_or_default(),
                });
            }
            let revision = node
                .revisions
                .iter()
                .find(|revision| revision.revision == name);
            match revision.map(|revision| revision.state) {
                Some(LoadState::Loaded) => found.loaded += 1,
                Some(LoadState::Failed) if revision.is_some_and(|revision| revision.permanent) => {
                    found.failed += 1
                }
                _ => {}
            }
            if found.problem.is_none()
                && let Some(exception) = node
                    .exceptions
                    .iter()
                    .find(|exception| exception.revision == name)
            {
                found.problem = Some(NodeProblem {
                    node: node.node.clone(),
                    reason: exception.reason.clone(),
                    message: exception.message.chars().take(256).collect(),
                });
            }
        }
        found
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use operator_core::function::Revision;
    use operator_core::rollout::RevisionRef;

    use super::*;

    fn node(
        name: &str,
        live: bool,
        state: LoadState,
        applied: Option<(u64, u64)>,
    ) -> FunctionOnNode {
        let revision = RevisionOnNode {
            revision: "r".into(),
            state,
            permanent: true,
            applied: applied.map(|(epoch, serial)| FencingToken::new(epoch, serial)),
        };
        FunctionOnNode {
            node: name.into(),
            live,
            last_contact: Timestamp::UNIX_EPOCH,
            revisions: vec![revision],
            exceptions: Vec::new(),
            returned: None,
        }
    }

    fn state_at((epoch, serial): (u64, u64)) -> RolloutState {
        let revision = Revision {
            name: "r".into(),
            digest: String::new(),
        };
        RolloutState {
            stable: Some(RevisionRef {
                revision,
                since: Timestamp::UNIX_EPOCH,
            }),
            token: FencingToken::new(epoch, serial),
            ..RolloutState::default()
        }
    }

    #[test]
    fn only_live_placed_nodes_that_acknowledged_follow() {
        let mut all = [
            node("a", true, LoadState::Loaded, Some((1, 5))),
            node("b", true, LoadState::Loaded, Some((1, 4))),
            node("c", false, LoadState::Loaded, Some((1, 5))),
            node("d", true, LoadState::Failed, Some((1, 5))),
            node("elsewhere", true, LoadState::Loaded, Some((2, 1))),
        ];
        let placed = ["a", "b", "c", "d"].map(String::from).into();
        let state = state_at((1, 5));
        let view = NodeReports::new(&all, &placed, 2).view(&state, &["r".to_owned()].into());
        assert_eq!((view.desired, view.live, view.applied), (4, 3, 1));
        assert_eq!(view.returned, 0);
        all[0].returned = Some(FencingToken::new(1, 5));
        all[1].returned = Some(FencingToken::new(1, 4));
        all[2].returned = Some(FencingToken::new(1, 5));
        let view = NodeReports::new(&all, &placed, 2).view(&state, &["r".to_owned()].into());
        assert_eq!(
            view.returned, 1,
            "live, and with the present share before it left"
        );
        assert_eq!((view.revisions[0].loaded, view.revisions[0].failed), (2, 1));
        assert_eq!(
            view.highest_token,
            Some(FencingToken::new(1, 5)),
            "a node does not speak about what is not placed on it"
        );
    }

    #[test]
    fn a_version_from_the_future_is_the_fault_of_its_node() {
        let all = [
            node("a", true, LoadState::Loaded, Some((1, 5))),
            node("b", true, LoadState::Loaded, Some((3, 1))),
            node("c", true, LoadState::Loaded, Some((1, 90))),
        ];
        let placed = ["a", "b", "c"].map(String::from).into();
        let state = state_at((1, 5));
        let reports = NodeReports::new(&all, &placed, 2);
        let view = reports.view(&state, &["r".to_owned()].into());
        assert_eq!((view.live, view.applied, view.ahead), (3, 1, 1));
        assert_eq!(view.highest_token, Some(FencingToken::new(1, 90)));
        let exceptions = reports.exceptions();
        assert_eq!(
            (exceptions[0].node.as_str(), exceptions[0].reason.as_str()),
            ("b", FUTURE_VERSION)
        );
        let problem = view.revisions[0].problem.as_ref().unwrap();
        assert_eq!(problem.reason, FUTURE_VERSION);
    }
}
