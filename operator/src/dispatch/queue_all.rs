//! Why all functions are reconciled. It is the most expensive thing that the operator does without a change of a
//! function, so the log and a metric show each time.

use std::collections::BTreeSet;
use std::fmt;

/// Number of names in a message.
const NAMES: usize = 5;

/// Why all functions are queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueAllReason {
    /// This replica starts to decide.
    Leading,
    /// The operator's own Secret was read, which has the key that names revisions.
    CertificateSecret,
    /// These nodes joined, left or changed their labels, or their node-shims were seen first.
    Nodes(BTreeSet<String>),
    /// Nodes connected or fell silent.
    LiveNodes {
        /// Nodes that are live and were not.
        joined: BTreeSet<String>,
        /// Nodes that were live.
        left: BTreeSet<String>,
    },
}

impl QueueAllReason {
    /// Label of the metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Leading => "leading",
            Self::CertificateSecret => "certificate_secret",
            Self::Nodes(_) => "nodes",
            Self::LiveNodes { .. } => "live_nodes",
        }
    }
}

impl fmt::Display for QueueAllReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leading => f.write_str("this replica starts to decide"),
            Self::CertificateSecret => f.write_str("the operator's own Secret was read"),
            Self::Nodes(names) => write!(f, "nodes or their labels changed ({})", list(names)),
            Self::LiveNodes { joined, left } => {
                f.write_str("the set of live nodes changed (")?;
                if !joined.is_empty() {
                    write!(f, "joined: {}", list(joined))?;
                }
                if !joined.is_empty() && !left.is_empty() {
                    f.write_str("; ")?;
                }
                if !left.is_empty() {
                    write!(f, "left: {}", list(left))?;
                }
                f.write_str(")")
            }
        }
    }
}

/// The first names, and how many there are besides.
fn list(names: &BTreeSet<String>) -> String {
    let first: Vec<&str> = names.iter().take(NAMES).map(String::as_str).collect();
    let shown = first.join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(range: std::ops::Range<u32>) -> BTreeSet<String> {
        range.map(|n| format!("n-{n}")).collect()
    }

    #[test]
    fn a_reason_names_a_few_nodes_and_the_number_of_the_others() {
        let reason = QueueAllReason::LiveNodes {
            joined: names(1..2),
            left: names(2..9),
        };
        assert_eq!(
            reason.to_string(),
            "the set of live nodes changed (joined: n-1; left: n-2, n-3, n-4, n-5, n-6 and 2 more)"
        );
        let reason = QueueAllReason::LiveNodes {
            joined: names(0..0),
            left: names(1..2),
        };
        assert_eq!(
            reason.to_string(),
            "the set of live nodes changed (left: n-1)"
        );
    }
}
