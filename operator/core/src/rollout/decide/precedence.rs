//! Which rule wins when several apply: written once, here.

use super::turn::Turn;
use super::{baking, holds, intake, loading, lowering, stepping, verbs, wish};
use crate::function::Verb;

/// Applies the first rule that fires; false when none does.
///
/// Deletion comes before all of this: a deleted function is not decided on.
pub(super) fn first_that_fires(turn: &mut Turn<'_>) -> bool {
    intake::lost_state(turn)
        || wish::changed(turn)
        || verbs::take(turn, &[Verb::Abort])
        || intake::look(turn)
        || lowering::bad(turn)
        || verbs::take(turn, &[Verb::Pause])
        || lowering::brake(turn)
        || holds::refresh(turn)
        || verbs::take(
            turn,
            &[
                Verb::Resume,
                Verb::Retry,
                Verb::Approve,
                Verb::PromoteFull,
                Verb::Promote,
            ],
        )
        || intake::contact(turn)
        || loading::advance(turn)
        || stepping::advance(turn)
        || baking::advance(turn)
        || wish::previous_expired(turn)
}
