//! Errors in a spec, and the sentence that names them.

use std::time::Duration;

use crds::conditions::reasons;

/// One error in a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Reason of the `Accepted` condition.
    pub reason: &'static str,
    /// Path of the field.
    pub field: String,
    /// Explanation, as a clause: the value and why it is invalid.
    pub message: String,
}

impl Violation {
    /// Creates a violation. `message` is a clause: the value and why it is invalid.
    pub fn new(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: field.into(),
            message: message.into(),
        }
    }

    /// Creates a violation of a value that is not valid.
    pub fn invalid(field: impl Into<String>, value: &str, why: impl std::fmt::Display) -> Self {
        Self::new(reasons::INVALID_SPEC, field, format!("{value:?}: {why}"))
    }

    /// Creates a violation of a field or value of a later version.
    pub fn later(field: impl Into<String>, value: impl std::fmt::Display) -> Self {
        let field = field.into();
        Self::new(
            reasons::NOT_YET_SUPPORTED,
            field,
            format!("{value} is not yet supported by this version"),
        )
    }
}

/// Summarises all violations in one sentence, with the reason of the first; at most eight are named.
#[must_use]
pub fn summary(violations: &[Violation]) -> (&'static str, String) {
    // a reference may appear by itself, so the other reasons come first
    let lasting = violations
        .iter()
        .find(|violation| violation.reason != reasons::MISSING_REFERENCE);
    let reason = lasting
        .or(violations.first())
        .map_or(reasons::INVALID_SPEC, |first| first.reason);
    let mut sentence = violations
        .iter()
        .take(8)
        .map(|violation| format!("{}: {}", violation.field, violation.message))
        .collect::<Vec<_>>()
        .join("; ");
    if violations.len() > 8 {
        sentence.push_str(&format!("; and {} more", violations.len() - 8));
    }
    (reason, sentence)
}

/// Parses an optional duration; without one, or if it is not valid, the result is `default`.
pub fn duration(
    value: Option<&String>,
    field: &str,
    default: Duration,
    violations: &mut Vec<Violation>,
) -> Duration {
    let Some(text) = value else { return default };
    match text.parse::<crds::Duration>() {
        Ok(duration) => duration.to_std(),
        Err(error) => {
            violations.push(Violation::invalid(field, text, error));
            default
        }
    }
}
