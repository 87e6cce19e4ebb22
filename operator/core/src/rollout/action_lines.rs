//! Lines to copy that give a verb, and what to say of annotations that have had their effect.

use super::{RolloutState, State};
use crate::function::{Function, Action};

/// The sentence with which a person is asked.
pub(super) fn approval(function: &Function, state: &RolloutState, gates: &[String]) -> String {
    let line = verb_line(function, state, Action::Approve);
    format!("approval is needed ({}): {line}", gates.join(", "))
}

/// A line that gives a verb, with a value that has not been used yet. Nothing may follow it: people copy to the end.
pub(super) fn verb_line(function: &Function, state: &RolloutState, verb: Action) -> String {
    format!(
        "kubectl -n {} annotate ef {} selvage.dev/{}={} --overwrite",
        function.namespace,
        function.name,
        verb.as_str(),
        unused(state, verb)
    )
}

/// `Used up: abort=checkout-b; another value acts, such as abort=checkout-b/2.` Whoever writes an annotation with the
/// value that it has already changes nothing, so that nobody would be told; this tells them beforehand.
pub(super) fn used_up(function: &Function, state: &RolloutState) -> Option<String> {
    let r = state.rollout.as_ref()?;
    let candidate = &r.candidate.revision.name;
    let mut used = function.actions.iter().filter(|a| {
        let means_something = match a.action {
            Action::Abort | Action::Promote => true,
            Action::PromoteFull => state.state != State::Baking,
            Action::Pause => r.flags.paused.is_none(),
            Action::Approve | Action::Resume | Action::Retry => false,
        };
        let value = a.meant();
        means_something && value == *candidate && state.is_used(a.action, &value)
    });
    let first = used.next()?;
    let said = std::iter::once(first)
        .chain(used)
        .map(|a| format!("{}={candidate}", a.action.as_str()))
        .collect::<Vec<_>>();
    Some(format!(
        "Used up: {}; another value acts, such as {}={}.",
        said.join(", "),
        first.action.as_str(),
        unused(state, first.action)
    ))
}

/// A value for the running or rejected revision that has not been used yet.
fn unused(state: &RolloutState, verb: Action) -> String {
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
    let pinned = matches!(verb, Action::Approve | Action::Promote) && state.state == State::Stepping;
    let first = if pinned {
        format!("{revision}/step-{step}")
    } else {
        revision.to_owned()
    };
    let tokens = (attempt + 1..).map(|n| format!("{revision}/{n}"));
    std::iter::once(first.clone())
        .chain(tokens)
        .find(|value| !state.is_used(verb, value))
        .unwrap_or(first)
}
