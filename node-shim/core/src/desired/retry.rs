//! Exponential backoff with full jitter: the delay is uniformly distributed between zero and the
//! current bound, so that a thousand nodes that failed together do not retry together.

use std::time::Duration;

/// Upper bound of the delay after the first failed load of a component.
const RETRY_BASE: Duration = Duration::from_secs(1);
/// Upper bound of every delay between loads of a component.
pub const RETRY_CAP: Duration = Duration::from_secs(300);

const RECONNECT_BASE: Duration = Duration::from_millis(200);
/// Short, because a disconnected node serves no new functions: with 30 s, two of three nodes answered 404 for a new
/// function for 38 s after the operators had returned. Attempts to reach an absent operator are cheap, and an overloaded
/// operator sends a retry delay.
const RECONNECT_CAP: Duration = Duration::from_secs(5);

/// Returns the delay before the next load after `attempts` consecutive failures. `requested`, the delay
/// that the server asked for (`Retry-After`), is a lower bound and is itself capped at [`RETRY_CAP`].
/// `jitter` is a random number in [0, 1).
#[must_use]
pub fn retry_delay(attempts: u32, jitter: f64, requested: Option<Duration>) -> Duration {
    let jittered = full_jitter(RETRY_BASE, RETRY_CAP, attempts.saturating_sub(1), jitter);
    jittered.max(requested.unwrap_or_default().min(RETRY_CAP))
}

/// Returns the delay before the next connection to an operator after `failures` consecutive failures.
/// `requested` is the delay that the operator asked for, and `jitter` a random number in [0, 1).
#[must_use]
pub fn reconnect_delay(failures: u32, jitter: f64, requested: Option<Duration>) -> Duration {
    let jittered = full_jitter(
        RECONNECT_BASE,
        RECONNECT_CAP,
        failures.saturating_sub(1),
        jitter,
    );
    jittered.max(requested.unwrap_or_default().min(RECONNECT_CAP))
}

fn full_jitter(base: Duration, cap: Duration, doublings: u32, jitter: f64) -> Duration {
    let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
    let bound = base.saturating_mul(factor).min(cap);
    bound.mul_f64(jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_cap() {
        let highest = |attempts| retry_delay(attempts, 1.0, None);
        assert_eq!(highest(1), Duration::from_secs(1));
        assert_eq!(highest(2), Duration::from_secs(2));
        assert_eq!(highest(9), Duration::from_secs(256));
        assert_eq!(highest(10), RETRY_CAP);
        assert_eq!(highest(u32::MAX), RETRY_CAP);
        assert_eq!(reconnect_delay(1, 1.0, None), Duration::from_millis(200));
        assert_eq!(reconnect_delay(40, 1.0, None), Duration::from_secs(5));
    }

    #[test]
    fn jitter_reaches_zero_and_a_requested_delay_is_a_lower_bound() {
        assert_eq!(retry_delay(5, 0.0, None), Duration::ZERO);
        assert_eq!(
            retry_delay(1, 0.5, Some(Duration::from_secs(20))),
            Duration::from_secs(20)
        );
        assert_eq!(
            retry_delay(1, 0.5, Some(Duration::from_secs(86_400))),
            RETRY_CAP
        );
    }
}
