//! Rate limits per second.

use tokio::time::Instant;

/// A token bucket.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: f64,
    burst: f64,
    left: f64,
    at: Instant,
}

impl TokenBucket {
    /// Creates a full bucket with a rate of `per_second` and a capacity of `seconds` times that rate.
    pub(super) fn new(per_second: u32, seconds: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        let burst = per_second * f64::from(seconds);
        Self {
            per_second,
            burst,
            left: burst,
            at: now,
        }
    }

    /// Takes `amount` if the bucket has that much; returns whether it did.
    pub(super) fn take(&mut self, amount: u32, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.burst);
        self.at = now;
        let enough = self.left >= f64::from(amount);
        if enough {
            self.left -= f64::from(amount);
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tokens_refill_with_time_up_to_the_burst() {
        let start = Instant::now();
        let mut budget = TokenBucket::new(10, 2, start);
        assert!(budget.take(20, start));
        assert!(!budget.take(1, start));
        assert!(budget.take(5, start + Duration::from_millis(500)));
        let later = start + Duration::from_secs(3600);
        assert!(!budget.take(21, later));
        assert!(budget.take(20, later));
    }
}
