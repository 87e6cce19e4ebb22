//! Backoff before a watch is started again. Only a few replicas watch, not thousands of nodes, so the delay stays
//! short: while a replica receives no changes, its nodes receive none either. With kube's default backoff, the nodes
//! of a replica received no changes for a minute after the API server was available again.

use std::time::Duration;

use kube::runtime::utils::Backoff;

const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(5);

/// Doubles from 0.5 s to 5 s, each delay shortened by a random part of up to a half; starts over after any event.
#[derive(Debug, Default)]
pub(super) struct WatchBackoff {
    failures: u32,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let bound = FIRST.saturating_mul(doubled).min(LAST);
        Some(bound.mul_f64(0.5 + fastrand::f64() / 2.0))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_seconds_and_start_over() {
        let mut pause = WatchBackoff::default();
        let first = pause.next().unwrap();
        assert!((FIRST / 2..=FIRST).contains(&first), "{first:?}");
        let later = pause.by_ref().nth(60).unwrap();
        assert!((LAST / 2..=LAST).contains(&later), "{later:?}");
        pause.reset();
        assert!(pause.next().unwrap() <= FIRST);
    }
}
