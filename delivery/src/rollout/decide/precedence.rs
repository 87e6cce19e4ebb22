//! Precedence of the rules.

use super::context::DecisionContext;
use super::{actions, backstop, baking, desired, facts, holds, loading, rollback, stepping};
use crate::function::Action;

/// Applies the first rule that matches. Returns `false` if none does.
///
/// The caller handles deletion before: there are no decisions on a deleted function.
pub(super) fn apply_first_rule(ctx: &mut DecisionContext<'_>) -> bool {
    facts::lost_state(ctx)
        || desired::changed(ctx)
        || actions::take(ctx, &[Action::Abort])
        || facts::evaluation(ctx)
        || rollback::bad(ctx)
        || facts::unrecorded(ctx)
        || actions::take(ctx, &[Action::Pause])
        || backstop::apply(ctx)
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
        || facts::contact(ctx)
        || loading::advance(ctx)
        || stepping::advance(ctx)
        || baking::advance(ctx)
        || desired::previous_expired(ctx)
}
