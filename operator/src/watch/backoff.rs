//! How long to wait before a watch is begun again. A few replicas watch, not thousands of nodes, so the pause stays short:
//! what a replica does not hear its nodes do not hear either. With kube's default a replica's nodes were told nothing for a
//! minute after the API server was back.

use std::time::Duration;

use kube::runtime::utils::Backoff;

const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(5);

/// Doubles from half a second to five, each time shortened by up to a half, and starts over with anything that is heard.
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
