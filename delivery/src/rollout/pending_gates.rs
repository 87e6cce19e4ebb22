//! Gates before the next rise of the weight, and those of them that still need an approval.

use super::{GateAt, RolloutState, State};

/// Keys of the gates before the next rise of the weight: `<gate>` or `<gate>/step-<n>`.
fn ahead(before: &RolloutState) -> impl Iterator<Item = String> {
    let state = before.state;
    before.rollout.iter().flat_map(move |r| {
        let named = r
            .plan
            .steps
            .get(r.step)
            .map(|s| s.gates.as_slice())
            .unwrap_or_default();
        let last = r.plan.is_last(r.step);
        r.plan.gates.iter().filter_map(move |g| {
            let applies = match (state, g.at) {
                (State::Loading | State::Queued, GateAt::Start) => true,
                (State::Queued, GateAt::Promotion) => r.plan.steps.is_empty(),
                (State::Stepping, GateAt::Step) => named.contains(&g.name),
                (State::Stepping, GateAt::Promotion) => last,
                (State::Baking, GateAt::Bake) => true,
                _ => false,
            };
            let key = if g.at == GateAt::Step {
                format!("{}/step-{}", g.name, r.step)
            } else {
                g.name.clone()
            };
            applies.then_some(key)
        })
    })
}

/// Keys of the gates ahead that are not approved.
pub(super) fn unapproved(state: &RolloutState) -> Vec<String> {
    let approved = state
        .rollout
        .as_ref()
        .map(|r| r.approved.as_slice())
        .unwrap_or_default();
    ahead(state).filter(|key| !approved.contains(key)).collect()
}
