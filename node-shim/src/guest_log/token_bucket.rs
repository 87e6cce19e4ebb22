//! Token bucket that limits the log of a function: 64 KiB/s with bursts of 256 KiB.

use std::time::Instant;

use parking_lot::Mutex;
const RATE: f64 = 64.0 * 1024.0;
const BURST: f64 = 256.0 * 1024.0;

#[derive(Debug, Default)]
pub(super) struct TokenBucket {
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// Returns whether this number of bytes may be written at `now`, without counting them.
    pub(super) fn allows(&self, bytes: usize, now: Instant) -> bool {
        self.with_tokens(now, |tokens| *tokens >= bytes as f64)
    }

    /// Counts this number of bytes as written at `now` and returns true, or returns false when they exceed the rate.
    pub(super) fn take(&self, bytes: usize, now: Instant) -> bool {
        let cost = bytes as f64;
        self.with_tokens(now, |tokens| {
            let allowed = *tokens >= cost;
            if allowed {
                *tokens -= cost;
            }
            allowed
        })
    }

    fn with_tokens(&self, now: Instant, act: impl FnOnce(&mut f64) -> bool) -> bool {
        let mut state = self.state.lock();
        let state = state.get_or_insert(State {
            tokens: BURST,
            at: now,
        });
        let passed = now.saturating_duration_since(state.at).as_secs_f64();
        state.tokens = (state.tokens + passed * RATE).min(BURST);
        state.at = state.at.max(now);
        act(&mut state.tokens)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// HG-20: burst and rate.
    #[test]
    fn a_burst_passes_then_the_rate_applies() {
        let bucket = TokenBucket::default();
        let now = Instant::now();
        for _ in 0..256 {
            assert!(bucket.allows(1024, now) && bucket.take(1024, now));
        }
        assert!(!bucket.allows(1, now) && !bucket.take(1, now));
        let later = now + Duration::from_secs(1);
        assert!(!bucket.take(64 * 1024 + 1, later));
        assert!(bucket.take(64 * 1024, later));
        assert!(!bucket.take(1, later));
    }
}
