//! Detects revisions that do not stand reuse, such as guests that fail at their second request.

/// Number of latest requests on used instances that count.
pub const WINDOW: u32 = 100;
/// Maximum number of them that may have run again. With one more, the revision gets fresh instances only.
pub const TOLERATED_RERUNS: u32 = 2;

/// The latest requests of a revision on used instances.
#[derive(Clone, Debug, Default)]
pub struct ReuseGuard {
    /// One bit for each request, the latest one lowest: whether it ran again on a fresh instance.
    reruns: u128,
    off: bool,
}

impl ReuseGuard {
    /// Counts a request on a used instance. Returns true when the revision stops reusing instances because of it, which
    /// happens once.
    pub fn record(&mut self, ran_again: bool) -> bool {
        if self.off {
            return false;
        }
        let window = (1 << WINDOW) - 1;
        self.reruns = ((self.reruns << 1) | u128::from(ran_again)) & window;
        self.off = self.reruns.count_ones() > TOLERATED_RERUNS;
        self.off
    }

    /// Returns whether the revision reuses instances.
    #[must_use]
    pub fn allows_reuse(&self) -> bool {
        !self.off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_reruns_in_a_hundred_requests_end_reuse() {
        // gaps of successful requests between three reruns
        for (gaps, ends) in [
            ([0, 0], true),
            ([49, 48], true),
            ([97, 0], true),
            ([50, 48], false),
            ([98, 0], false),
            ([0, 98], false),
        ] {
            let mut guard = ReuseGuard::default();
            assert!(!guard.record(true));
            for gap in gaps {
                for _ in 0..gap {
                    assert!(!guard.record(false));
                }
                let ended = guard.record(true);
                assert_eq!(ended, !guard.allows_reuse());
            }
            assert_eq!(!guard.allows_reuse(), ends, "{gaps:?}");
        }
    }

    #[test]
    fn the_end_of_reuse_is_final_and_reported_once() {
        let mut guard = ReuseGuard::default();
        let reported = (0..10).filter(|_| guard.record(true)).count();
        for _ in 0..1_000 {
            assert!(!guard.record(false));
        }
        assert_eq!((reported, guard.allows_reuse()), (1, false));
    }
}
