//! How a request ended.

/// How a request of a function ended. The node classifies, the operator judges revisions by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The guest's response ended as promised, whatever its status.
    Ok,
    /// The guest broke the contract: no response, an error code, a bad head, a wrong length.
    GuestError,
    /// The guest trapped, or its output exceeded a limit of the host.
    Trap,
    /// A time limit passed: CPU, whole request, response head, or the pause between two chunks.
    Deadline,
    /// The guest needed more memory than `limits.memory`.
    OutOfMemory,
    /// The request was refused before the guest ran: no permit, no place in a queue, no instance slot, no memory on the node.
    Overloaded,
    /// The node was at fault: a panic, missing code or secrets.
    HostError,
    /// The client was at fault: it left, or its body broke or was too large or too slow.
    ClientFault,
}

impl Outcome {
    /// All outcomes, in the order of [`Self::index`].
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::GuestError,
        Self::Trap,
        Self::Deadline,
        Self::OutOfMemory,
        Self::Overloaded,
        Self::HostError,
        Self::ClientFault,
    ];

    /// Value of the label `outcome` in metrics and on the wire.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::GuestError => "guest_error",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::OutOfMemory => "oom",
            Self::Overloaded => "overloaded",
            Self::HostError => "host_error",
            Self::ClientFault => "client",
        }
    }

    /// The outcome of a label; `None` for a label that no revision is judged by.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.label() == label)
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_labels_come_back() {
        for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), at);
            assert_eq!(Outcome::from_label(outcome.label()), Some(outcome));
        }
        assert_eq!(Outcome::from_label("no_route"), None);
    }
}
