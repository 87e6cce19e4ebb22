//! From a wish to a proven revision: the state machine of a rollout, pure.
//!
//! [`decide`] takes the time, the validated function, the persisted state and the evidence, and says which state
//! comes next, which transitions that were, and when to look again. Whatever serves ([`shares`]) or tells
//! ([`message`], [`conditions`], [`phase`]) is a function of the persisted state.
//!
//! How it is to be driven: measure what [`due`] asks for, decide, write the state if [`Decision::persist`]
//! says so, and only then act on it. A state that need not be written is kept in memory as the present one; after a
//! failed write it is dropped and the persisted one read again. The share of a candidate never rises by anything
//! that was not written.

mod conditions;
mod decide;
mod decision;
mod evidence;
mod figures;
mod flags;
mod gates_ahead;
mod history;
mod message;
mod plan;
mod policy;
mod records;
mod secret_values;
mod shares;
mod state;
mod transition;
mod action_lines;
mod weight;
mod words;

pub use conditions::{Blocked, Condition, ConditionType, Phase, conditions, phase};
pub use decide::decide;
pub use decision::{Decision, Due, Transition, due};
pub use evidence::*;
pub use figures::*;
pub use flags::*;
pub use history::{HISTORY_LIMIT, HistoryEntry, Outcome};
pub use message::message;
pub use plan::{Plan, PlanKind, Traffic};
pub use policy::*;
pub use records::*;
pub use secret_values::{
    SECRETS_IN_MEMORY_ONLY, SECRETS_UNAVAILABLE, UnknownValues, report_unknown_values,
    unknown_values,
};
pub use shares::{TrafficSplit, holds_slot, shares, traffic};
pub use state::*;
pub use transition::{EventType, Telling, TransitionKind};
pub use weight::Weight;
