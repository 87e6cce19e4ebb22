//! Delays before something that failed is tried again.

use std::time::Duration;

use kube::runtime::utils;

/// A delay that doubles with every failure in a row, up to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
}

impl Backoff {
    /// Doubles from `first` to `last`.
    pub(crate) const fn new(first: Duration, last: Duration) -> Self {
        Self { first, last }
    }

    /// Longest delay after the `failures`-th failure in a row, counted from 1.
    pub(crate) fn ceiling(self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1));
        let doubled = self.first.saturating_mul(factor.unwrap_or(u32::MAX));
        doubled.min(self.last)
    }

    /// Delay after the `failures`-th failure: the ceiling, shortened by up to a half, so that what failed together is not
    /// tried again together. `dice` is in [0, 1).
    pub(crate) fn delay(self, failures: u32, dice: f64) -> Duration {
        self.ceiling(failures).mul_f64(0.5 + dice / 2.0)
    }

    /// The delays after each failure in a row, shortened at random.
    pub(crate) fn delays(self) -> Delays {
        Delays {
            backoff: self,
            failures: 0,
        }
    }
}

/// The delays of a [`Backoff`] one after the other. It is a stream of delays for the watches of kube.
#[derive(Debug)]
pub(crate) struct Delays {
    backoff: Backoff,
    failures: u32,
}

impl Delays {
    /// Delay after one more failure.
    pub(crate) fn after_failure(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.delay(self.failures, fastrand::f64())
    }

    /// Starts over, after a success.
    pub(crate) fn start_over(&mut self) {
        self.failures = 0;
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.after_failure())
    }
}

impl utils::Backoff for Delays {
    fn reset(&mut self) {
        self.start_over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(500);
    const LAST: Duration = Duration::from_secs(300);

    #[test]
    fn delays_double_to_exactly_the_limit() {
        let backoff = Backoff::new(FIRST, LAST);
        let ceilings = [0, 1, 2, 3, 10, 11, 31, 32, 33, 34, u32::MAX]
            .map(|failures| u64::try_from(backoff.ceiling(failures).as_millis()).unwrap());
        assert_eq!(
            ceilings,
            [
                500, 500, 1_000, 2_000, 256_000, 300_000, 300_000, 300_000, 300_000, 300_000,
                300_000
            ]
        );
        assert_eq!(backoff.delay(2, 0.0), FIRST);
        assert_eq!(backoff.delay(2, 0.5), Duration::from_millis(750));
    }

    #[test]
    fn delays_grow_to_the_limit_and_start_over() {
        use utils::Backoff as _;
        let mut delays = Backoff::new(FIRST, LAST).delays();
        let first = delays.next().unwrap();
        assert!((FIRST / 2..=FIRST).contains(&first), "{first:?}");
        let later = delays.by_ref().nth(60).unwrap();
        assert!((LAST / 2..=LAST).contains(&later), "{later:?}");
        delays.reset();
        assert!(delays.next().unwrap() <= FIRST);
    }
}
