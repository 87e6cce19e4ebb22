//! Status of a function whose served revisions need values of Secrets that the operator does not have.
//!
//! A revision holds a keyed hash of each value, never the value. An operator that starts after a Secret was changed
//! cannot send the former value to a node. Nodes that have it in memory continue to serve; the others answer 503.

use super::action_lines::command;
use super::{Condition, ConditionStatus, ConditionType, RolloutState};
use crate::function::{Action, Function};

/// Reason of `Distributed=False`: nodes answer 503 because they lack a value that the operator does not have either.
pub const SECRETS_UNAVAILABLE: &str = "SecretsUnavailable";
/// Reason of `Distributed=True`: all nodes serve, with values that the operator could not send again.
pub const SECRETS_IN_MEMORY_ONLY: &str = "SecretsInMemoryOnly";

/// Values of Secrets that a served revision needs and that the operator does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownValues {
    /// Sentence with the value, the revision, and why the operator does not have the value.
    pub what: String,
    /// Clause that ends with the command that restores the former value.
    pub restore: String,
    /// Names of live nodes that lack a value too.
    pub lacking: Vec<String>,
}

/// Builds the message: the missing value, the effect on the nodes, and how to end the situation.
#[must_use]
pub fn unknown_values(
    function: &Function,
    state: &RolloutState,
    unknown: &UnknownValues,
) -> String {
    let (lacking, live) = (unknown.lacking.len(), state.nodes.live);
    let effect = match unknown.lacking.first() {
        None => "Nodes keep the value in memory; a node that starts again answers 503 (secrets_unavailable) for this revision.".to_owned(),
        Some(first) => format!(
            "{lacking} of {live} nodes lack the value and answer 503 (secrets_unavailable), first {first}."
        ),
    };
    let restore = &unknown.restore;
    let next = match (&state.rejected, &state.rollout) {
        (Some(_), _) => format!(
            "{restore} or try the revision with the current value again: {}",
            command(function, state, Action::Retry)
        ),
        (None, Some(rollout)) => format!(
            "It ends when {} becomes stable. {restore}",
            rollout.candidate.revision.name
        ),
        (None, None) => restore.clone(),
    };
    format!("{} {effect} {next}", unknown.what)
}

/// Changes `Distributed` of a function whose revisions need values that the operator does not have. `Ready` is already
/// `False`: the spec refers to other content, so a rollout runs, was rejected, or the spec is not accepted.
pub fn report_unknown_values(
    conditions: &mut [Condition],
    function: &Function,
    state: &RolloutState,
    unknown: &UnknownValues,
) {
    let mut all = conditions.iter_mut();
    let Some(distributed) = all.find(|one| one.kind == ConditionType::Distributed) else {
        return;
    };
    let text = unknown_values(function, state, unknown);
    distributed.message = format!("{}. {text}", distributed.message);
    if !unknown.lacking.is_empty() {
        distributed.status = ConditionStatus::False;
        distributed.reason = SECRETS_UNAVAILABLE.into();
    } else if distributed.status == ConditionStatus::True {
        distributed.reason = SECRETS_IN_MEMORY_ONLY.into();
    }
}
