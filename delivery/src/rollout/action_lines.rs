//! Commands in messages that request an action, and the hint about annotations that were already handled.

use super::{RolloutState, State};
use crate::function::{Action, Function};

/// Message of the Event `ApprovalNeeded`: the gates and the commands that approve them.
pub(super) fn approval(function: &Function, state: &RolloutState, gates: &[String]) -> String {
    let line = command(function, state, Action::Approve);
    format!("approval is needed ({}): {line}", gates.join(", "))
}

/// Commands that request an action, by the plugin or with a value that was not used yet. They must stand at the end of a
/// message, so that the last one can be copied to the end of the line, and programs that read the end of it find that one.
pub(super) fn command(function: &Function, state: &RolloutState, action: Action) -> String {
    let Function {
        namespace, name, ..
    } = function;
    let (action, value) = (action.as_str(), unused_value(state, action));
    format!(
        "kubectl selvage {action} {name} -n {namespace}, \
         or: kubectl -n {namespace} annotate ef {name} selvage.dev/{action}={value} --overwrite"
    )
}

/// Hint about annotations that do not act again: `Already handled: abort=checkout-b; another value acts, such as
/// abort=checkout-b/2.` Writing the value that an annotation already has changes nothing on the object, so the operator
/// could not report it afterwards.
pub(super) fn already_handled(function: &Function, state: &RolloutState) -> Option<String> {
    let r = state.rollout.as_ref()?;
    let candidate = &r.candidate.revision.name;
    let mut used = function.actions.iter().filter(|a| {
        let means_something = match a.action {
            Action::Abort | Action::Promote => true,
            Action::PromoteFull => state.state != State::Baking,
            Action::Pause => r.flags.paused.is_none(),
            Action::Approve | Action::Resume | Action::Retry => false,
        };
        let value = a.normalized_value();
        means_something && value == *candidate && state.is_used(a.action, &value)
    });
    let first = used.next()?;
    let pairs = std::iter::once(first)
        .chain(used)
        .map(|a| format!("{}={candidate}", a.action.as_str()))
        .collect::<Vec<_>>();
    Some(format!(
        "Already handled: {}; another value acts, such as {}={}.",
        pairs.join(", "),
        first.action.as_str(),
        unused_value(state, first.action)
    ))
}

/// Annotation value for the running or rejected revision that was not used yet.
fn unused_value(state: &RolloutState, action: Action) -> String {
    let rejected = state
        .rejected
        .as_ref()
        .map(|r| (r.revision.name.as_str(), r.attempt));
    let running = state
        .rollout
        .as_ref()
        .map(|r| (r.candidate.revision.name.as_str(), r.attempt));
    let (revision, attempt) = running.or(rejected).unwrap_or_default();
    let step = state.rollout.as_ref().map_or(0, |r| r.step);
    let pinned =
        matches!(action, Action::Approve | Action::Promote) && state.state == State::Stepping;
    let first = if pinned {
        format!("{revision}/step-{step}")
    } else {
        revision.to_owned()
    };
    let tokens = (attempt + 1..).map(|n| format!("{revision}/{n}"));
    std::iter::once(first.clone())
        .chain(tokens)
        .find(|value| !state.is_used(action, value))
        .unwrap_or(first)
}
