//! Rate limits per second, on the clock of this process.

use operator_core::token_bucket::TokenBucket;
use tokio::time::Instant;

/// A token bucket whose times count from its creation.
#[derive(Debug)]
pub(super) struct RateLimit {
    created: Instant,
    bucket: TokenBucket,
}

impl RateLimit {
    /// Allows `per_second`, and bursts of what `seconds` allow.
    pub(super) fn new(per_second: u32, seconds: u32, now: Instant) -> Self {
        Self {
            created: now,
            bucket: TokenBucket::new(per_second, per_second.saturating_mul(seconds)),
        }
    }

    /// Takes `amount` if the limit allows it; returns whether it does.
    pub(super) fn take(&mut self, amount: u32, now: Instant) -> bool {
        let at = now.saturating_duration_since(self.created);
        self.bucket.take(amount, at)
    }
}
