//! Quotas of the log of one function, which its revisions and requests share: the rate of its output, and its part of
//! the lines that wait for the writer.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::token_bucket::TokenBucket;

/// Maximum size in bytes of a function's lines that wait for the writer. Its longest line fits several times.
const MAX_QUEUED: usize = 256 << 10;

/// Minimum time between two lines about denied outbound requests.
const DENIAL_INTERVAL: Duration = Duration::from_secs(1);

/// Log of one function.
#[derive(Debug, Default)]
pub(crate) struct FunctionLog {
    rate: TokenBucket,
    /// Time of the last denied outbound request that was logged.
    denial: Mutex<Option<Instant>>,
    queued: AtomicUsize,
    /// Number of lines that were dropped and are not reported in the log yet.
    unreported: AtomicU64,
}

impl FunctionLog {
    /// Returns whether the rate allows at least this number of bytes at `now`.
    pub(super) fn allows(&self, bytes: usize, now: Instant) -> bool {
        self.rate.allows(bytes, now)
    }

    /// Counts this number of bytes as written at `now`. Returns false when they exceed the rate.
    pub(super) fn take(&self, bytes: usize, now: Instant) -> bool {
        self.rate.take(bytes, now)
    }

    /// Returns whether a denied outbound request is logged at `now`.
    pub(super) fn allows_denial(&self, now: Instant) -> bool {
        let mut last = self.denial.lock();
        let allowed =
            last.is_none_or(|last| now.saturating_duration_since(last) >= DENIAL_INTERVAL);
        if allowed {
            *last = Some(now);
        }
        allowed
    }

    /// Counts this number of bytes as waiting. Returns false when they exceed the quota.
    pub(super) fn enqueue(&self, bytes: usize) -> bool {
        reserve(&self.queued, bytes, MAX_QUEUED)
    }

    pub(super) fn dequeue(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_unreported(&self, lines: u64) {
        self.unreported.fetch_add(lines, Ordering::Relaxed);
    }

    /// Returns the number of dropped lines that the next line reports.
    pub(super) fn take_unreported(&self) -> u64 {
        // reads only, in the usual case that there are none
        match self.unreported.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.unreported.swap(0, Ordering::Relaxed),
        }
    }
}

/// Adds `more` to a counter unless it would exceed `max`.
pub(super) fn reserve(counter: &AtomicUsize, more: usize, max: usize) -> bool {
    let add = |used: usize| used.checked_add(more).filter(|all| *all <= max);
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
        .is_ok()
}
