//! The decision: one call makes all transitions that the evidence allows.
//!
//! A call takes in the facts once ([`facts`]) and then applies the first rule that matches, until none does
//! ([`precedence`]). A second decision at the same time therefore changes nothing. Every change of the traffic split gets a
//! new fencing token. A rise of the weight needs an acknowledgement and evaluations after it, so a call makes at most one.

mod actions;
mod backstop;
mod baking;
mod context;
mod desired;
mod facts;
mod finish;
mod gates;
mod holds;
mod loading;
mod precedence;
mod refusal;
mod rollback;
mod stepping;

use jiff::Timestamp;

use self::context::DecisionContext;
use super::{Decision, DecisionInput, RolloutState};
use crate::function::Function;

/// Maximum number of rules applied in one call; above the length of any chain of rules.
const MAX_CHANGES: usize = 16;

/// Computes the next state, its transitions and the time of the next decision. Never fails: missing evidence holds the rollout.
#[must_use]
pub fn decide(
    now: Timestamp,
    function: &Function,
    state: &RolloutState,
    input: &DecisionInput,
) -> Decision {
    let mut ctx = DecisionContext::new(now, function, state, input);
    facts::update(&mut ctx);
    ctx.follow_suspension();
    for _ in 0..MAX_CHANGES {
        if !precedence::apply_first_rule(&mut ctx) {
            break;
        }
    }
    ctx.finish()
}
