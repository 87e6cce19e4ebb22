//! Which rule wins when several apply: written once, here.

use super::context::DecisionContext;
use super::{baking, holds, intake, loading, lowering, stepping, actions, desired};
use crate::function::Action;

/// Applies the first rule that fires; false when none does.
///
/// Deletion comes before all of this: a deleted function is not decided on.
pub(super) fn first_that_fires(turn: &mut DecisionContext<'_>) -> bool {
    intake::lost_state(turn)
        || desired::changed(turn)
        || actions::take(turn, &[Action::Abort])
        || intake::look(turn)
        || lowering::bad(turn)
        || actions::take(turn, &[Action::Pause])
        || lowering::brake(turn)
        || holds::refresh(turn)
        || actions::take(
            turn,
            &[
                Action::Resume,
                Action::Retry,
                Action::Approve,
                Action::PromoteFull,
                Action::Promote,
            ],
        )
        || intake::contact(turn)
        || loading::advance(turn)
        || stepping::advance(turn)
        || baking::advance(turn)
        || desired::previous_expired(turn)
}
