//! Gates: approvals that are required before the weight rises.

use super::context::DecisionContext;
use crate::rollout::pending_gates::unapproved;
use crate::rollout::{TransitionKind, WaitingFor};

/// Returns [`WaitingFor::Approval`] if an approval is missing and requested. It is requested once, when `reached` is true,
/// and stays requested until a person gives it.
pub(super) fn open(ctx: &mut DecisionContext<'_>, reached: bool) -> Option<WaitingFor> {
    let missing = unapproved(&ctx.state);
    let r = ctx.state.rollout.as_mut()?;
    let asked = r.flags.waiting_for.contains(&WaitingFor::Approval);
    if missing.is_empty() || !(asked || reached) {
        return None;
    }
    if !asked {
        r.flags.waiting_for.push(WaitingFor::Approval);
        r.flags.approval_requested_at = Some(ctx.now);
        let text = crate::rollout::action_lines::approval(ctx.function, &ctx.state, &missing);
        ctx.record_event(TransitionKind::ApprovalNeeded, text);
    }
    Some(WaitingFor::Approval)
}

/// Approves every gate ahead, because a person requested the next step.
pub(super) fn skip(ctx: &mut DecisionContext<'_>) {
    let keys = unapproved(&ctx.state);
    if let Some(r) = &mut ctx.state.rollout {
        r.approved.extend(keys);
    }
}
