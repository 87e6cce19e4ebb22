//! Who waits for whom in a response body, for those who look from outside.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Kept by a body, read by whoever watches its client.
#[derive(Debug, Default)]
pub(crate) struct StreamProgress {
    state: AtomicU8,
    chunks: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamState {
    /// The client could take more; the guest has nothing.
    WaitingForGuest,
    /// A chunk was handed over and nobody has asked for another.
    WaitingForClient,
    Finished,
}

impl StreamProgress {
    pub(crate) fn set(&self, state: StreamState) {
        if state == StreamState::WaitingForClient {
            self.chunks.fetch_add(1, Ordering::Relaxed);
        }
        self.state.store(state as u8, Ordering::Relaxed);
    }

    pub(crate) fn state(&self) -> StreamState {
        match self.state.load(Ordering::Relaxed) {
            0 => StreamState::WaitingForGuest,
            1 => StreamState::WaitingForClient,
            _ => StreamState::Finished,
        }
    }

    /// Chunks handed over so far.
    pub(crate) fn chunks(&self) -> u64 {
        self.chunks.load(Ordering::Relaxed)
    }
}
