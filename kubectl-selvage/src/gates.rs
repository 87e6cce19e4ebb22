//! Gates that a rollout waits for, and commands in messages of the operator.

use crds::EdgeFunction;
use crds::rollout::RolloutStatus;

use crate::action::Action;

/// Label before the gates in a message of the operator. The word before it begins with a capital letter only where a sentence does.
const LABEL: &str = "aiting for approval (";

/// Returns the gates whose approval the rollout waits for, such as `manager/step-0`. The status has them in its message
/// only. Empty if no approval is awaited, or if the message does not name them.
pub(crate) fn awaited(function: &EdgeFunction) -> Vec<String> {
    let Some(status) = &function.status else {
        return Vec::new();
    };
    if !is_awaited(function) {
        return Vec::new();
    }
    let message = status.message.as_deref().unwrap_or_default();
    let list = message
        .split_once(LABEL)
        .and_then(|(_, rest)| rest.split_once(')'))
        .map_or("", |(list, _)| list);
    list.split(", ")
        .filter(|gate| !gate.is_empty())
        .map(ToOwned::to_owned)
        .collect()
}

/// Whether the rollout waits for the approval of a person.
pub(crate) fn is_awaited(function: &EdgeFunction) -> bool {
    let status = function.status.as_ref();
    let rollout = status.and_then(|status| status.rollout.as_ref());
    rollout.is_some_and(RolloutStatus::awaits_approval)
}

/// Splits a message into its sentences and the action whose command stands at its end.
pub(crate) fn split_command(message: &str) -> (&str, Option<Action>) {
    let Some((before, command)) = message.rsplit_once(": kubectl -n ") else {
        return (message, None);
    };
    let action = Action::ALL
        .into_iter()
        .find(|action| command.contains(&format!(" selvage.dev/{}=", action.as_str())));
    if action.is_none() {
        return (message, None);
    }
    let end = before.rfind(". ").map_or(0, |at| at + 1);
    (before.get(..end).unwrap_or(before).trim(), action)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::function;

    #[test]
    fn gates_are_those_of_the_message_while_an_approval_is_awaited() {
        assert_eq!(awaited(&function("approval")), ["manager/step-0"]);
        assert!(awaited(&function("stepping")).is_empty());
        let mut first = function("approval");
        if let Some(status) = &mut first.status {
            status.message = Some("at 1 %: waiting for approval (a/step-0, b).".to_owned());
        }
        assert_eq!(awaited(&first), ["a/step-0", "b"]);
        let mut other = function("approval");
        if let Some(status) = &mut other.status {
            status.message = Some("another sentence".to_owned());
        }
        assert!(awaited(&other).is_empty());
        assert!(is_awaited(&other));
    }

    #[test]
    fn the_command_of_a_message_is_its_action() {
        for (message, sentences, action) in [
            (
                "rolled back from 10 %. Evidence 236 to 1. To retry: kubectl -n shop annotate ef checkout selvage.dev/retry=c-1 --overwrite",
                "rolled back from 10 %. Evidence 236 to 1.",
                Some(Action::Retry),
            ),
            (
                "not tried again: c-1 was aborted 3 h ago. Change the spec, or run: kubectl -n shop annotate ef checkout selvage.dev/retry=c-1 --overwrite",
                "not tried again: c-1 was aborted 3 h ago.",
                Some(Action::Retry),
            ),
            (
                "Waiting for approval (a/step-0). To approve: kubectl -n shop annotate ef checkout selvage.dev/approve=c-1/step-0 --overwrite",
                "Waiting for approval (a/step-0).",
                Some(Action::Approve),
            ),
            (
                "rolled back from 10 %. Evidence 236 to 1. To retry: kubectl selvage retry checkout -n shop, or: kubectl -n shop annotate ef checkout selvage.dev/retry=c-1 --overwrite",
                "rolled back from 10 %. Evidence 236 to 1.",
                Some(Action::Retry),
            ),
            (
                "not tried again: c-1 was aborted 3 h ago. Change the spec, or run: kubectl selvage retry checkout -n shop, or: kubectl -n shop annotate ef checkout selvage.dev/retry=c-1 --overwrite",
                "not tried again: c-1 was aborted 3 h ago.",
                Some(Action::Retry),
            ),
            ("c-1 is stable.", "c-1 is stable.", None),
            (
                "The value is unknown. Put it back: kubectl -n shop edit secret db",
                "The value is unknown. Put it back: kubectl -n shop edit secret db",
                None,
            ),
        ] {
            assert_eq!(split_command(message), (sentences, action));
        }
    }
}
