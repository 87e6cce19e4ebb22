//! Progress of a response body, observable from other tasks.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tokio::sync::Notify;

/// Shared between a response body and the task that detects a stalled client.
#[derive(Debug, Default)]
pub(crate) struct StreamProgress {
    state: AtomicU8,
    chunks: AtomicU64,
    /// Wakes the task that detects a stalled client.
    finished: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamState {
    /// The client can receive more, but the guest has not produced it yet.
    WaitingForGuest,
    /// A chunk was passed to the connection, which has not asked for another one yet.
    WaitingForClient,
    Finished,
}

impl StreamProgress {
    pub(crate) fn set(&self, state: StreamState) {
        if state == StreamState::WaitingForClient {
            self.chunks.fetch_add(1, Ordering::Relaxed);
        }
        self.state.store(state as u8, Ordering::Relaxed);
        if state == StreamState::Finished {
            self.finished.notify_one();
        }
    }

    /// Waits until the body has ended or was dropped. Only one task may wait.
    pub(crate) async fn finished(&self) {
        self.finished.notified().await;
    }

    pub(crate) fn state(&self) -> StreamState {
        match self.state.load(Ordering::Relaxed) {
            0 => StreamState::WaitingForGuest,
            1 => StreamState::WaitingForClient,
            _ => StreamState::Finished,
        }
    }

    /// Returns the number of chunks passed to the connection so far.
    pub(crate) fn chunks(&self) -> u64 {
        self.chunks.load(Ordering::Relaxed)
    }
}
