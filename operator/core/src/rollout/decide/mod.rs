//! The decision. Transitions land one by one; so far a state stays as it is.

use jiff::Timestamp;

use super::{Decision, Evidence, RolloutState};
use crate::function::Function;

/// What comes next.
#[must_use]
pub fn decide(
    now: Timestamp,
    function: &Function,
    state: &RolloutState,
    evidence: &Evidence,
) -> Decision {
    let _ = (now, function, evidence);
    Decision {
        state: state.clone(),
        wake_at: None,
        transitions: Vec::new(),
        persist: false,
        hint: None,
    }
}
