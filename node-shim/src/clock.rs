//! Readings of the clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Current time of the monotonic clock and of the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    /// Wall clock, in ms since the Unix epoch.
    pub(crate) wall: u64,
}

impl Now {
    /// Reads both clocks. The monotonic one is tokio's, which tests can pause.
    pub(crate) fn read() -> Self {
        Self {
            at: tokio::time::Instant::now().into_std(),
            wall: unix_ms(),
        }
    }
}

/// Returns the wall clock time, in ms since the Unix epoch.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
