//! Requests that this node passes on to a node on which their function is placed. `handler/forward.rs` decides what is sent
//! and what the client receives; this module has the connections to other nodes (`pool`) and the two bodies (`upload`,
//! `download`).
//!
//! Nodes talk HTTP/2 without TLS on their data ports, so that trailers, both directions at once and the end of a client
//! pass through. The other node serves the request under its own limits, so nothing here has a time limit, except for
//! connections: a peer that answers no ping is taken for dead.

mod download;
mod pool;
mod upload;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use download::{ForwardParts, ForwardedResponse};
pub(crate) use pool::{NoConnection, Pool, StreamPlace};
pub(crate) use upload::{RequestReader, SharedBody};

/// Maximum number of requests that are passed on at the same time.
const MAX_IN_FLIGHT: usize = 4_096;

/// How the passing on of a request ended; the label `outcome` of `selvage_forwarded_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardOutcome {
    /// The client received the response of the other node.
    Answered,
    /// No node of the function could be reached.
    Unreachable,
    /// The exchange with the other node broke.
    Failed,
    /// Too many requests were being passed on.
    Overloaded,
    /// The client left, or its request was faulty.
    Client,
}

impl ForwardOutcome {
    /// All outcomes in the order of their indices.
    pub const ALL: [Self; 5] = [
        Self::Answered,
        Self::Unreachable,
        Self::Failed,
        Self::Overloaded,
        Self::Client,
    ];

    /// Returns the position in [`ALL`](Self::ALL).
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Returns the value of the metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
            Self::Overloaded => "overloaded",
            Self::Client => "client",
        }
    }
}

/// Passes requests on to other nodes.
pub(crate) struct Forwarder {
    pub(crate) pool: Pool,
    places: Arc<Semaphore>,
    /// Size of what is kept of request bodies, in bytes.
    pub(crate) replayed: Arc<AtomicUsize>,
}

impl Forwarder {
    pub(crate) fn new() -> Self {
        Self {
            pool: Pool::default(),
            places: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            replayed: Arc::default(),
        }
    }

    /// Returns a place among the requests that are passed on, unless all are taken.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_match_the_list() {
        for (at, outcome) in ForwardOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), at);
        }
    }
}
