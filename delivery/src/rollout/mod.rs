//! The state machine of a rollout, which makes the desired revision stable step by step. It is pure.
//!
//! [`decide`] takes the time, the validated function, the persisted state and the evidence. It returns the next state,
//! the transitions to it, and the time of the next decision. What the nodes serve ([`traffic_split()`]) and what the status shows
//! ([`message`], [`conditions`], [`phase`]) are functions of the persisted state.
//!
//! The caller measures what [`required_measurements`] returns, decides, writes the state if [`Decision::persist`] is set, and only then acts
//! on it. A state that need not be written is kept in memory as the current one. After a failed write the caller continues
//! from the persisted state with the evidence since then ([`RolloutState::with_evidence_of`]), or from the new state if it
//! already lowered the weight on the nodes. The weight of a candidate never rises by a state that was not written.

mod action_lines;
mod certificates;
mod conditions;
mod decide;
mod decision;
mod decision_input;
mod evidence_summary;
mod failed_write;
mod flags;
mod format;
mod history;
mod message;
mod pending_gates;
mod plan;
mod policy;
mod policy_bounds;
mod records;
mod stable_health;
mod state;
mod suspension;
mod traffic_split;
mod transition;
mod unknown_secrets;
mod weight;

pub use certificates::{CERTIFICATE_UNUSABLE, report_unusable_certificate};
pub use conditions::{
    Blocked, Condition, ConditionStatus, ConditionType, Phase, conditions, phase,
};
pub use decide::decide;
pub use decision::{Decision, RequiredMeasurements, Transition, required_measurements};
pub use decision_input::*;
pub use evidence_summary::*;
pub use flags::*;
pub use history::{HISTORY_LIMIT, HistoryEntry, Outcome};
pub use message::{evidence_against, message};
pub use plan::{Plan, PlanKind, Traffic};
pub use policy::*;
pub use policy_bounds::{PolicyViolation, policy_violations};
pub use records::*;
pub use stable_health::StableHealth;
pub use state::*;
pub use suspension::Suspension;
pub use traffic_split::{TrafficSplit, hint_token, holds_slot, traffic, traffic_split};
pub use transition::{EventType, TransitionEffects, TransitionKind};
pub use unknown_secrets::{
    SECRETS_IN_MEMORY_ONLY, SECRETS_UNAVAILABLE, UnknownValues, report_unknown_values,
    unknown_values,
};
pub use weight::Weight;
