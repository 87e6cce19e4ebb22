//! Sentences for people, made from the persisted state alone.

use jiff::Timestamp;

use super::RolloutState;
use crate::function::Function;

/// `status.message`: where the rollout stands and why, in one or two sentences.
#[must_use]
pub fn message(now: Timestamp, function: &Function, state: &RolloutState) -> String {
    let _ = (now, function);
    state.state.as_str().to_owned()
}
