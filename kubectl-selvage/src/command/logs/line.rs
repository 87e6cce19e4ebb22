//! Lines that node-shims write for functions. Pure.

use serde::Deserialize;

use crate::text::printable;

/// Lines to show.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) namespace: String,
    pub(crate) function: String,
    /// Name of the only revision to show, if one is wanted.
    pub(crate) revision: Option<String>,
}

/// A line of a function.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Line {
    /// Time at which it was written, in RFC 3339.
    pub(crate) ts: String,
    #[serde(default)]
    level: String,
    /// `stdout` or `stderr` of the function, `shim` for what the node reports about it, or `access` for a request.
    pub(crate) stream: String,
    pub(crate) function_namespace: String,
    pub(crate) function: String,
    #[serde(default)]
    revision: String,
    #[serde(default)]
    node: String,
    #[serde(default)]
    msg: String,
}

impl Line {
    /// Reads a line of a log. Returns `None` for a line that is not of a function, such as one about the node.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(crate) fn matches(&self, filter: &Filter) -> bool {
        self.function_namespace == filter.namespace
            && self.function == filter.function
            && filter
                .revision
                .as_ref()
                .is_none_or(|revision| *revision == self.revision)
    }

    /// Formats the line for people.
    pub(crate) fn shown(&self) -> String {
        printable(&format!(
            "{} {} {} {} {} {}",
            self.ts, self.node, self.revision, self.stream, self.level, self.msg
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"ts":"2026-11-21T13:40:20.123Z","level":"error","stream":"stderr","function_namespace":"shop","function":"checkout","revision":"checkout-1","request_id":"r","node":"node-17","cold":false,"msg":"no\u001b[2J"}"#;

    fn filter(revision: Option<&str>) -> Filter {
        Filter {
            namespace: "shop".to_owned(),
            function: "checkout".to_owned(),
            revision: revision.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn lines_of_the_function_are_shown_and_cannot_control_the_terminal() {
        let line = Line::parse(LINE).unwrap();
        assert!(line.matches(&filter(None)));
        assert!(line.matches(&filter(Some("checkout-1"))));
        assert_eq!(
            line.shown(),
            "2026-11-21T13:40:20.123Z node-17 checkout-1 stderr error no\u{fffd}[2J"
        );
    }

    #[test]
    fn other_lines_are_not() {
        let line = Line::parse(LINE).unwrap();
        assert!(!line.matches(&filter(Some("checkout-2"))));
        let other = Filter {
            namespace: "other".to_owned(),
            ..filter(None)
        };
        assert!(!line.matches(&other));
        assert_eq!(Line::parse("2026 INFO the node started"), None);
        assert_eq!(Line::parse(r#"{"level":"info","message":"started"}"#), None);
    }
}
