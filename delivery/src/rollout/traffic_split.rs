//! The traffic split that nodes receive. It depends on the persisted state alone.

use super::{FencingToken, RolloutState, Weight};

/// Revisions of a function and the weight of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficSplit {
    /// Fencing token of this split. No other split has it.
    pub token: FencingToken,
    /// Stable revision, which serves all requests that the candidate does not; `None` while the first revision loads.
    pub stable: Option<String>,
    /// Candidate revision. Nodes load it even at weight 0.
    pub candidate: Option<String>,
    /// Weight of the candidate. Without a stable revision it is [`Weight::FULL`] (nodes serve it as soon as they have loaded
    /// it), or zero before a Start gate.
    pub weight: Weight,
    /// Previous stable revision, which stays loaded without requests.
    pub previous: Option<String>,
    /// Whether a rollout runs, so that nodes report counters.
    pub in_rollout: bool,
}

impl TrafficSplit {
    /// Whether nodes behave the same as with `other`.
    #[must_use]
    pub fn same_effect(&self, other: &Self) -> bool {
        let without_token = |s: &Self| Self {
            token: FencingToken::default(),
            ..s.clone()
        };
        without_token(self) == without_token(other)
    }
}

/// Returns the token of a hint that lowers the weight of the split with this token. Serials rise by two, so no split has it.
#[must_use]
pub const fn hint_token(token: FencingToken) -> FencingToken {
    FencingToken {
        serial: token.serial + 1,
        ..token
    }
}

/// Returns the split that nodes receive in this state.
#[must_use]
pub fn traffic_split(state: &RolloutState) -> TrafficSplit {
    let rollout = state.rollout.as_ref();
    let stable = state.stable.as_ref().map(|s| s.revision.name.clone());
    let weight = match (rollout, &stable) {
        (None, _) => Weight::ZERO,
        (Some(r), None) => r.weight,
        (Some(r), Some(_)) if state.state.is_exposed() => r.weight,
        (Some(_), Some(_)) => Weight::ZERO,
    };
    TrafficSplit {
        token: state.token,
        candidate: rollout.map(|r| r.candidate.revision.name.clone()),
        weight,
        previous: state.previous.as_ref().map(|p| p.revision.name.clone()),
        in_rollout: rollout.is_some() && stable.is_some(),
        stable,
    }
}

/// Returns `status.traffic`: revisions with weights that add up to [`Weight::FULL`]; empty if nothing is served.
#[must_use]
pub fn traffic(state: &RolloutState) -> Vec<(String, Weight)> {
    let split = traffic_split(state);
    let stable = split.stable.map(|s| (s, split.weight.rest()));
    let candidate = split.candidate.map(|c| (c, split.weight));
    stable
        .into_iter()
        .chain(candidate)
        .filter(|(_, w)| *w > Weight::ZERO)
        .collect()
}

/// Whether the rollout occupies one of the slots for concurrent rollouts: its candidate gets requests, and it does not
/// wait for a person.
#[must_use]
pub fn holds_slot(state: &RolloutState) -> bool {
    let Some(rollout) = &state.rollout else {
        return false;
    };
    let waits = rollout.flags.paused.is_some()
        || rollout
            .flags
            .waiting_for
            .contains(&super::WaitingFor::Approval);
    state.state.is_exposed() && rollout.plan.kind == super::PlanKind::Rollout && !waits
}
