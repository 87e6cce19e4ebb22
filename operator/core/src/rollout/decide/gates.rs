//! Gates: approvals that are asked for before a raise.

use super::turn::Turn;
use crate::rollout::gates_ahead::unapproved;
use crate::rollout::{TransitionKind, WaitingFor};

/// Whether an approval is still missing ahead. It is asked for when `reached`, once, and stays asked for until a person
/// gives it.
pub(super) fn open(turn: &mut Turn<'_>, reached: bool) -> Option<WaitingFor> {
    let missing = unapproved(&turn.state);
    let r = turn.state.rollout.as_mut()?;
    let asked = r.flags.waiting_for.contains(&WaitingFor::Approval);
    if missing.is_empty() || !(asked || reached) {
        return None;
    }
    if !asked {
        r.flags.waiting_for.push(WaitingFor::Approval);
        r.flags.asked_since = Some(turn.now);
        let text = crate::rollout::verb_lines::approval(turn.function, &turn.state, &missing);
        turn.tell(TransitionKind::ApprovalNeeded, text);
    }
    Some(WaitingFor::Approval)
}

/// Opens every gate that stands ahead, because a person said so.
pub(super) fn skip(turn: &mut Turn<'_>) {
    let keys = unapproved(&turn.state);
    if let Some(r) = &mut turn.state.rollout {
        r.approved.extend(keys);
    }
}
