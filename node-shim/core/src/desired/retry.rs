//! How long to wait before the next attempt. Full jitter: any moment up to the bound is as likely
//! as any other, so that a thousand nodes that failed together do not return together.

use std::time::Duration;

/// Bound of the first wait before code is fetched or compiled again.
pub const RETRY_BASE: Duration = Duration::from_secs(1);
/// Bound of every later wait.
pub const RETRY_CAP: Duration = Duration::from_secs(300);

const RECONNECT_BASE: Duration = Duration::from_millis(200);
/// Short, because a node that has not come back serves nothing new: with 30 s two of three nodes answered 404 for a new
/// function for 38 s after operators had returned. Attempts at operators that are away cost nobody anything, and one
/// that is busy says when to come back.
const RECONNECT_CAP: Duration = Duration::from_secs(5);

/// Wait before attempt number `attempts + 1`, `attempts` of which failed. What the other side asked
/// for (`Retry-After`) is a floor, itself bounded by the cap. `dice` in [0, 1).
#[must_use]
pub fn retry_delay(attempts: u32, dice: f64, asked: Option<Duration>) -> Duration {
    let jittered = full_jitter(RETRY_BASE, RETRY_CAP, attempts.saturating_sub(1), dice);
    jittered.max(asked.unwrap_or_default().min(RETRY_CAP))
}

/// Wait before connecting to an operator again after `failures` failures in a row. `dice` in [0, 1).
#[must_use]
pub fn reconnect_delay(failures: u32, dice: f64, asked: Option<Duration>) -> Duration {
    let jittered = full_jitter(
        RECONNECT_BASE,
        RECONNECT_CAP,
        failures.saturating_sub(1),
        dice,
    );
    jittered.max(asked.unwrap_or_default().min(RECONNECT_CAP))
}

fn full_jitter(base: Duration, cap: Duration, doublings: u32, dice: f64) -> Duration {
    let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
    let bound = base.saturating_mul(factor).min(cap);
    bound.mul_f64(dice.clamp(0.0, 1.0))
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
    fn jitter_reaches_down_to_zero_and_a_request_to_wait_is_a_floor() {
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
