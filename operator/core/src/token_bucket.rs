//! Token buckets. Times are durations since an arbitrary origin on a monotonic clock.

use std::collections::BTreeSet;
use std::time::Duration;

/// A token bucket. A caller takes tokens that are there, or reserves one and gets the time of it.
///
/// It is the generic cell rate algorithm, which needs the time of the next token instead of a count that is refilled.
#[derive(Debug)]
pub struct TokenBucket {
    interval: Duration,
    /// Tokens that may be taken at once, as the time in which they refill.
    burst: Duration,
    /// Time of the next token if none were left over.
    next: Duration,
    /// Reserved times in the future that were given back.
    free: BTreeSet<Duration>,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that refills with `per_second` tokens each second. Zero counts as one.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self {
            interval,
            burst: interval * burst.max(1).saturating_sub(1),
            next: Duration::ZERO,
            free: BTreeSet::new(),
        }
    }

    /// Takes `amount` tokens if the bucket has that many; returns whether it did.
    pub fn take(&mut self, amount: u32, now: Duration) -> bool {
        let next = self.next.max(now) + self.interval * amount;
        let enough = next <= now + self.burst + self.interval;
        if enough {
            self.next = next;
        }
        enough
    }

    /// Takes the next token and returns its time: `now` while the bucket is not empty, else the time at which the token
    /// exists. Times after `now` are distinct.
    pub fn reserve(&mut self, now: Duration) -> Duration {
        self.free = self.free.split_off(&now);
        if let Some(at) = self.free.pop_first() {
            return at;
        }
        let at = self.next.saturating_sub(self.burst).max(now);
        self.next = self.next.max(now) + self.interval;
        at
    }

    /// Returns a token that was reserved for `at` and is not needed. The next reservation takes it if it is still ahead.
    pub fn give_back(&mut self, at: Duration) {
        self.free.insert(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(1_000_000 + millis)
    }

    #[test]
    fn a_reservation_that_is_not_needed_goes_to_the_next_function() {
        let mut bucket = TokenBucket::new(5, 1);
        let times: Vec<Duration> = (0..4).map(|_| bucket.reserve(at(0))).collect();
        assert_eq!(times, [at(0), at(200), at(400), at(600)]);
        bucket.give_back(at(400));
        assert_eq!(bucket.reserve(at(100)), at(400));
        assert_eq!(bucket.reserve(at(100)), at(800));
        bucket.give_back(at(600));
        assert_eq!(bucket.reserve(at(601)), at(1_000), "it has passed");
    }

    #[test]
    fn tokens_refill_with_time_up_to_the_burst() {
        let mut budget = TokenBucket::new(10, 20);
        assert!(budget.take(20, at(0)));
        assert!(!budget.take(1, at(0)));
        assert!(budget.take(5, at(500)));
        let later = at(3_600_000);
        assert!(!budget.take(21, later));
        assert!(budget.take(20, later));
    }
}
