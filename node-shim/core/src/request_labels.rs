//! Labels of the metrics about requests: outcome, class of the status code, start and population.

pub use node_api_types::Outcome;

/// Class of the status code that was sent to the client; the `code` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StatusClass {
    /// 200 to 299.
    C2xx,
    /// 300 to 399.
    C3xx,
    /// 400 to 499.
    C4xx,
    /// 500 to 599.
    C5xx,
    /// No response head was sent.
    None,
}

/// Whether the revision's code was loaded when the request arrived; the `start` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StartKind {
    /// The code was loaded and mapped.
    Warm,
    /// The request had to wait for its code.
    Cold,
}

/// Kind of traffic that a request belongs to; the `population` label. The analysis compares only requests
/// of the same population.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Population {
    /// Ordinary requests, divided by weight.
    Live,
    /// Requests that a match rule of the rollout routes to the candidate.
    Matched,
    /// Copies of requests whose responses are discarded.
    Shadow,
    /// Requests that the platform generates.
    Synthetic,
    /// Requests to a preview of a revision.
    Preview,
}

// === impl StatusClass, StartKind, Population ===

impl StatusClass {
    /// All classes in the order of their indices.
    pub const ALL: [Self; 5] = [Self::C2xx, Self::C3xx, Self::C4xx, Self::C5xx, Self::None];

    /// Returns the status classes that can occur with an outcome. An aborted response keeps the class of the
    /// head that was sent.
    pub fn possible(outcome: Outcome) -> &'static [Self] {
        match outcome {
            Outcome::Overloaded => &[Self::C5xx],
            Outcome::Ok
            | Outcome::GuestError
            | Outcome::Trap
            | Outcome::Deadline
            | Outcome::OutOfMemory
            | Outcome::HostError => &[Self::C2xx, Self::C3xx, Self::C4xx, Self::C5xx],
            Outcome::ClientFault => &Self::ALL,
        }
    }

    /// Returns the class of a status code. Codes outside of 200–499 count as 5xx.
    pub fn of(status: u16) -> Self {
        match status / 100 {
            2 => Self::C2xx,
            3 => Self::C3xx,
            4 => Self::C4xx,
            _ => Self::C5xx,
        }
    }

    /// Returns the value of the metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::C2xx => "2xx",
            Self::C3xx => "3xx",
            Self::C4xx => "4xx",
            Self::C5xx => "5xx",
            Self::None => "none",
        }
    }

    /// Returns the position in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }
}

impl StartKind {
    /// Both kinds in the order of their indices.
    pub const ALL: [Self; 2] = [Self::Warm, Self::Cold];

    /// Returns the value of the metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }

    /// Returns the position in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }
}

impl Population {
    /// All populations in the order of their indices.
    pub const ALL: [Self; 5] = [
        Self::Live,
        Self::Matched,
        Self::Shadow,
        Self::Synthetic,
        Self::Preview,
    ];

    /// Returns the value of the metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Matched => "matched",
            Self::Shadow => "shadow",
            Self::Synthetic => "synthetic",
            Self::Preview => "preview",
        }
    }

    /// Returns the position in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_match_the_lists() {
        for (at, class) in StatusClass::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), at);
        }
        for (at, start) in StartKind::ALL.into_iter().enumerate() {
            assert_eq!(start.index(), at);
        }
        for (at, population) in Population::ALL.into_iter().enumerate() {
            assert_eq!(population.index(), at);
        }
    }
}
