//! Who waits for whom in a response body, for those who look from outside.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Kept by a body, read by whoever watches its client.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    state: AtomicU8,
    handed: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PaceState {
    /// The client could take more; the guest has nothing.
    Asking,
    /// A chunk was handed over and nobody has asked for another.
    Handed,
    Over,
}

impl Pace {
    pub(crate) fn set(&self, state: PaceState) {
        if state == PaceState::Handed {
            self.handed.fetch_add(1, Ordering::Relaxed);
        }
        self.state.store(state as u8, Ordering::Relaxed);
    }

    pub(crate) fn state(&self) -> PaceState {
        match self.state.load(Ordering::Relaxed) {
            0 => PaceState::Asking,
            1 => PaceState::Handed,
            _ => PaceState::Over,
        }
    }

    /// Chunks handed over so far.
    pub(crate) fn handed(&self) -> u64 {
        self.handed.load(Ordering::Relaxed)
    }
}
