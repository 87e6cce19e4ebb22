//! Token bucket that limits the log of a revision: 64 KiB/s with bursts of 256 KiB.

use std::time::Instant;

use parking_lot::Mutex;
const RATE: f64 = 64.0 * 1024.0;
const BURST: f64 = 256.0 * 1024.0;

#[derive(Debug, Default)]
pub(crate) struct TokenBucket {
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    at: Instant,
    dropped: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The line exceeds the rate.
    Drop,
    /// The line may be written; `dropped` lines were dropped since the last one.
    Pass { dropped: u64 },
}

impl TokenBucket {
    pub(super) fn take(&self, bytes: usize, now: Instant) -> Admission {
        let mut state = self.state.lock();
        let state = state.get_or_insert(State {
            tokens: BURST,
            at: now,
            dropped: 0,
        });
        let passed = now.saturating_duration_since(state.at).as_secs_f64();
        state.tokens = (state.tokens + passed * RATE).min(BURST);
        state.at = now;
        let cost = bytes as f64;
        if state.tokens < cost {
            state.dropped += 1;
            return Admission::Drop;
        }
        state.tokens -= cost;
        Admission::Pass {
            dropped: std::mem::take(&mut state.dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// HG-20: burst, rate, and the number of dropped lines.
    #[test]
    fn a_burst_passes_then_the_rate_applies_and_drops_are_reported_once() {
        let bucket = TokenBucket::default();
        let now = Instant::now();
        for _ in 0..256 {
            assert_eq!(bucket.take(1024, now), Admission::Pass { dropped: 0 });
        }
        assert_eq!(bucket.take(1024, now), Admission::Drop);
        assert_eq!(bucket.take(1024, now), Admission::Drop);
        let later = now + Duration::from_secs(1);
        assert_eq!(
            bucket.take(64 * 1024, later),
            Admission::Pass { dropped: 2 }
        );
        assert_eq!(bucket.take(1, later), Admission::Drop);
    }
}
