//! Gates: who is asked before a raise, and what they said.

use super::turn::Turn;
use crate::rollout::gates_ahead::{ahead, unapproved};
use crate::rollout::{Gate, GateKind, GateVerdict, TransitionKind, WaitingFor};

fn verdict(turn: &Turn<'_>, gate: &Gate) -> GateVerdict {
    let answer = turn.evidence.gates.iter().find(|a| a.gate == gate.name);
    answer.map_or(GateVerdict::Wait, |a| a.verdict.clone())
}

/// A program that was asked here said no.
pub(super) fn bad(turn: &Turn<'_>) -> Option<(String, String)> {
    ahead(&turn.state)
        .filter(|(g, _)| g.kind == GateKind::External)
        .find_map(|(g, _)| match verdict(turn, g) {
            GateVerdict::Bad(message) => Some((g.name.clone(), message)),
            GateVerdict::Good | GateVerdict::Wait => None,
        })
}

/// What of the gates ahead is still open. A person is asked when `reached`, once, and stays asked until they answer.
pub(super) fn open(turn: &mut Turn<'_>, reached: bool) -> Vec<WaitingFor> {
    let approved = |turn: &Turn<'_>| {
        turn.state
            .rollout
            .as_ref()
            .map(|r| r.approved.clone())
            .unwrap_or_default()
    };
    let done = approved(turn);
    let program = ahead(&turn.state).any(|(g, key)| {
        g.kind == GateKind::External
            && verdict(turn, g) != GateVerdict::Good
            && !done.contains(&key)
    });
    let people = unapproved(&turn.state);
    let asked = turn
        .state
        .rollout
        .as_ref()
        .is_some_and(|r| r.flags.waiting_for.contains(&WaitingFor::Approval));
    let mut open = Vec::new();
    if program {
        open.push(WaitingFor::Gate);
    }
    if !people.is_empty() && (asked || reached) {
        open.push(WaitingFor::Approval);
        if !asked {
            if let Some(r) = &mut turn.state.rollout {
                r.flags.waiting_for.push(WaitingFor::Approval);
                r.flags.asked_since = Some(turn.now);
            }
            let text = crate::rollout::verb_lines::approval(turn.function, &turn.state, &people);
            turn.tell(TransitionKind::ApprovalNeeded, text);
        }
    }
    open
}

/// Opens everything that stands ahead, programs included: a person said so.
pub(super) fn skip(turn: &mut Turn<'_>) {
    let keys: Vec<String> = ahead(&turn.state).map(|(_, key)| key).collect();
    if let Some(r) = &mut turn.state.rollout {
        for key in keys {
            if !r.approved.contains(&key) {
                r.approved.push(key);
            }
        }
    }
}
