//! The one place that builds the conditions of every object whose status the operator writes.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Longest message that the CRD schemas accept, in characters.
const MESSAGE: usize = 4000;

/// What a condition reports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report<'a> {
    /// `True`, `False` or `Unknown`.
    pub(crate) status: &'static str,
    /// Reason in `CamelCase`.
    pub(crate) reason: &'a str,
    /// Message for users. Text after the first 4000 characters is cut off.
    pub(crate) message: &'a str,
    /// Generation of the object that the report is about.
    pub(crate) generation: Option<i64>,
}

/// Builds the condition `kind` of an object that has the conditions `old`. The transition time is `now` if the status
/// changes, and stays as it is otherwise.
pub(crate) fn condition(
    old: &[Condition],
    kind: &str,
    report: Report<'_>,
    now: Timestamp,
) -> Condition {
    let unchanged = find(old, kind).filter(|before| before.status == report.status);
    Condition {
        type_: kind.to_owned(),
        status: report.status.to_owned(),
        reason: report.reason.to_owned(),
        message: report.message.chars().take(MESSAGE).collect(),
        observed_generation: report.generation,
        last_transition_time: unchanged.map_or_else(
            || crate::persist::time(now),
            |before| before.last_transition_time.clone(),
        ),
    }
}

/// `True` or `False`.
pub(crate) fn status(good: bool) -> &'static str {
    if good { "True" } else { "False" }
}

/// The condition `kind` among `conditions`.
pub(crate) fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_changes_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let report = |status, reason| Report {
            status,
            reason,
            message: "",
            generation: Some(1),
        };
        let first = condition(&[], "Ready", report("True", "Serving"), at(10));
        assert_eq!(first.last_transition_time.0, at(10));
        let old = [first];
        let same = condition(&old, "Ready", report("True", "Other"), at(20));
        assert_eq!(
            (same.last_transition_time.0, same.reason.as_str()),
            (at(10), "Other")
        );
        let changed = condition(&old, "Ready", report("False", "Other"), at(20));
        assert_eq!(changed.last_transition_time.0, at(20));
        let other = condition(&old, "Stalled", report("True", "Other"), at(20));
        assert_eq!(other.last_transition_time.0, at(20));
    }
}
