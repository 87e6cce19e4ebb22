//! The decision: one call goes as far as the evidence reaches.
//!
//! A call takes the facts in once ([`intake`]), then lets the first rule that fires change the state, again and again
//! until none does ([`precedence`]), so that deciding twice at one instant changes nothing more. Every change of what nodes
//! are told gets a new pair; a raise needs an acknowledgement and looks after it, so at most one happens per call.

mod baking;
mod finish;
mod gates;
mod holds;
mod intake;
mod loading;
mod lowering;
mod precedence;
mod stepping;
mod context;
mod actions;
mod desired;

use jiff::Timestamp;

use self::context::DecisionContext;
use super::{Decision, Evidence, RolloutState};
use crate::function::Function;

/// More changes than any chain of rules makes in one call.
const MOST_CHANGES: usize = 16;

/// What comes next. Never fails: whatever the evidence lacks, holds.
#[must_use]
pub fn decide(
    now: Timestamp,
    function: &Function,
    state: &RolloutState,
    evidence: &Evidence,
) -> Decision {
    let mut turn = DecisionContext::new(now, function, state, evidence);
    intake::facts(&mut turn);
    for _ in 0..MOST_CHANGES {
        if !precedence::first_that_fires(&mut turn) {
            break;
        }
    }
    turn.finish()
}
