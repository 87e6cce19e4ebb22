//! The slots: a rollout needs one of these places to raise the weight of its candidate and to end its bake, and has it while
//! the candidate receives requests. One that is paused or waits for an approval has none.

use std::sync::Arc;

use operator_core::function::Function;
use operator_core::rollout::{RolloutState, holds_slot};

use super::{Context, slots};
use crate::watch::ObjectKey;

/// The place of one function during one pass. A place that was taken in this pass is free again when the pass ends without
/// a persisted state that needs it, however it ends.
pub(super) struct RolloutSlot {
    ctx: Arc<Context>,
    key: ObjectKey,
    has_place: bool,
    is_new: bool,
}

impl RolloutSlot {
    /// Takes a place if the decision may need one and there is one. It is taken before the decision, so that two decisions at
    /// a time cannot take the last one twice.
    pub(super) fn take(
        ctx: &Arc<Context>,
        key: &ObjectKey,
        function: &Function,
        state: &RolloutState,
    ) -> Self {
        let mut slots = slots(ctx);
        let had_place = slots.contains(key);
        let is_free = slots.len() < ctx.settings.max_rollouts;
        let is_new = !had_place && is_free && may_need(function, state);
        if is_new {
            slots.insert(key.clone());
        }
        drop(slots);
        Self {
            ctx: Arc::clone(ctx),
            key: key.clone(),
            has_place: had_place || is_new,
            is_new,
        }
    }

    /// Whether the function has a place.
    pub(super) fn has_place(&self) -> bool {
        self.has_place
    }

    /// Keeps the place exactly if the persisted state needs it.
    pub(super) fn settle(&mut self, persisted: &RolloutState) {
        self.is_new = false;
        if !holds_slot(persisted) {
            slots(&self.ctx).remove(&self.key);
        }
    }
}

impl Drop for RolloutSlot {
    fn drop(&mut self) {
        if self.is_new {
            slots(&self.ctx).remove(&self.key);
        }
    }
}

/// Whether a decision from this state may give a candidate traffic. A function at rest must not take the last place, not even
/// for a moment.
fn may_need(function: &Function, state: &RolloutState) -> bool {
    let stable = state.stable.as_ref().map(|stable| &stable.revision);
    state.rollout.is_some() || (function.desired.is_some() && function.desired.as_ref() != stable)
}
