//! What nodes are told: a function of the persisted state and of nothing else.

use super::{FencingToken, RolloutState, Weight};

/// Who gets which part of a function's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Stands on this share alone.
    pub pair: FencingToken,
    /// Revision that owns what nobody else owns; `None` while the very first one loads.
    pub stable: Option<String>,
    /// Revision on trial; to be loaded even at weight 0.
    pub candidate: Option<String>,
    /// The candidate's part. Without a stable it is everything (nodes serve it as soon as they have it), or nothing before a Start gate.
    pub weight: Weight,
    /// Kept loaded, gets nothing.
    pub previous: Option<String>,
    /// Nodes report counters.
    pub in_rollout: bool,
}

impl Share {
    /// Whether nodes would do anything else than for `other`.
    #[must_use]
    pub fn same_effect(&self, other: &Self) -> bool {
        let unpaired = |s: &Self| Self {
            pair: FencingToken::default(),
            ..s.clone()
        };
        unpaired(self) == unpaired(other)
    }
}

/// What nodes are told.
#[must_use]
pub fn shares(state: &RolloutState) -> Share {
    let rollout = state.rollout.as_ref();
    let stable = state.stable.as_ref().map(|s| s.revision.name.clone());
    let weight = match (rollout, &stable) {
        (None, _) => Weight::ZERO,
        (Some(r), None) => r.weight,
        (Some(r), Some(_)) if state.state.is_exposed() => r.weight,
        (Some(_), Some(_)) => Weight::ZERO,
    };
    Share {
        pair: state.pair,
        candidate: rollout.map(|r| r.candidate.revision.name.clone()),
        weight,
        previous: state.previous.as_ref().map(|p| p.revision.name.clone()),
        in_rollout: rollout.is_some() && stable.is_some(),
        stable,
    }
}

/// `status.traffic`: revisions with the part that each gets; sums to the whole, or is empty when nothing is served.
#[must_use]
pub fn traffic(state: &RolloutState) -> Vec<(String, Weight)> {
    let share = shares(state);
    let stable = share.stable.map(|s| (s, share.weight.rest()));
    let candidate = share.candidate.map(|c| (c, share.weight));
    stable
        .into_iter()
        .chain(candidate)
        .filter(|(_, w)| *w > Weight::ZERO)
        .collect()
}

/// Whether the rollout occupies one of the places for concurrent rollouts: it gives requests to a candidate
/// and waits for nobody.
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
    state.state.is_exposed() && rollout.plan.kind == super::PlanKind::Full && !waits
}
