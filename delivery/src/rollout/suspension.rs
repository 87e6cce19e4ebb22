//! How far the nodes are with `spec.suspend`.
//!
//! Without a rollout, a change of it gets a fencing token of its own. Nodes acknowledge tokens only, so that is how the operator
//! learns which of them have the change.

use serde::{Deserialize, Serialize};

use super::{NodesCount, RolloutState, message};

/// Whether the function is suspended, and whether the nodes have the change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Suspension {
    /// The function is not suspended.
    #[default]
    Off,
    /// The function is suspended, and nodes may still serve it.
    Suspending,
    /// The function is suspended, and all nodes have acknowledged that.
    Suspended,
    /// The function is no longer suspended, and nodes may still answer 503.
    Resuming,
}

impl Suspension {
    /// Whether `spec.suspend` is set.
    #[must_use]
    pub const fn is_on(self) -> bool {
        matches!(self, Self::Suspending | Self::Suspended)
    }

    /// Whether nodes may not have the last change yet.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::Suspending | Self::Resuming)
    }

    /// The same suspension once all nodes have it.
    pub(super) const fn acknowledged(self) -> Self {
        if self.is_on() {
            Self::Suspended
        } else {
            Self::Off
        }
    }
}

/// Whether each node that can be reached has acknowledged the current fencing token, or has no code to serve.
pub(super) fn is_acknowledged(nodes: &NodesCount) -> bool {
    let is_reached = nodes.live > 0 || nodes.desired == 0;
    is_reached && nodes.applied + nodes.failed >= nodes.live
}

/// `1 of 3 nodes have not acknowledged the suspension.`; `None` once all nodes have the last change.
pub(super) fn pending(state: &RolloutState) -> Option<String> {
    if !state.suspension.is_pending() {
        return None;
    }
    let what = if state.suspension.is_on() {
        "the suspension"
    } else {
        "the end of the suspension"
    };
    let n = &state.nodes;
    if n.live == 0 {
        let desired = n.desired;
        return Some(format!(
            "{what} waits: none of {desired} nodes can be reached."
        ));
    }
    if n.applied == 0 && n.problem.is_none() {
        return Some(format!("{what} is on its way to {} nodes.", n.live));
    }
    let late = n.live.saturating_sub(n.applied + n.failed);
    let first = message::first_problem(n.problem.as_ref());
    Some(format!(
        "{late} of {} nodes have not acknowledged {what}{first}.",
        n.live
    ))
}
