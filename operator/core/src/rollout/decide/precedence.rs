//! Precedence of the rules.

use super::context::DecisionContext;
use super::{actions, baking, desired, holds, intake, loading, lowering, stepping};
use crate::function::Action;

/// Applies the first rule that matches. Returns `false` if none does.
///
/// The caller handles deletion before: there are no decisions on a deleted function.
pub(super) fn apply_first_rule(ctx: &mut DecisionContext<'_>) -> bool {
    intake::lost_state(ctx)
        || desired::changed(ctx)
        || actions::take(ctx, &[Action::Abort])
        || intake::evaluation(ctx)
        || lowering::bad(ctx)
        || intake::unrecorded(ctx)
        || actions::take(ctx, &[Action::Pause])
        || lowering::backstop(ctx)
        || holds::refresh(ctx)
        || actions::take(
            ctx,
            &[
                Action::Resume,
                Action::Retry,
                Action::Approve,
                Action::PromoteFull,
                Action::Promote,
            ],
        )
        || intake::contact(ctx)
        || loading::advance(ctx)
        || stepping::advance(ctx)
        || baking::advance(ctx)
        || desired::previous_expired(ctx)
}
