//! When a node connects to a server again that it could not reach.

use std::time::Duration;

/// Bounds of the time between two attempts.
const DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Attempts to connect to one server. Times are those of a clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconnect {
    failures: u32,
    not_before: Duration,
}

impl Reconnect {
    /// Returns whether the next attempt may start.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        now >= self.not_before
    }

    /// Records a failed attempt. The delay doubles with each of them, from 100 ms to 5 s; `jitter`, from 0 to 1, shortens
    /// it by up to a half, so that the nodes of a cluster do not connect at the same time. Returns whether this is the
    /// first failure after a success.
    pub fn failed(&mut self, now: Duration, jitter: f64) -> bool {
        let (least, most) = DELAY;
        let delay = least.saturating_mul(1 << self.failures.min(16)).min(most);
        self.not_before = now + delay.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
        self.failures = self.failures.saturating_add(1);
        self.failures == 1
    }

    /// Records a successful attempt. Returns whether attempts had failed before.
    pub fn connected(&mut self) -> bool {
        let failed = self.failures > 0;
        *self = Self::default();
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_limit_and_a_success_ends_it() {
        let mut reconnect = Reconnect::default();
        let mut now = Duration::from_secs(60);
        assert!(reconnect.is_due(now));
        for (at, delay) in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]
            .into_iter()
            .enumerate()
        {
            assert_eq!(reconnect.failed(now, 0.0), at == 0);
            let delay = Duration::from_millis(delay);
            assert!(!reconnect.is_due(now + delay - Duration::from_millis(1)));
            now += delay;
            assert!(reconnect.is_due(now));
        }
        assert!(reconnect.connected());
        assert!(!reconnect.connected());
        assert!(reconnect.is_due(now));
        assert!(reconnect.failed(now, 1.0));
        assert!(
            reconnect.is_due(now + Duration::from_millis(50)),
            "half of it"
        );
    }
}
