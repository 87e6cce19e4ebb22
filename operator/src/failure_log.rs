//! Which of the failures of a task that tries again and again are logged: each cause at once, and then at a falling rate. An
//! outage of an hour is a few lines of the log, and none of them hides another cause.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// Time until the next line about the same cause.
const INTERVALS: Backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(3600));
/// Maximum number of causes that are remembered.
const CAUSES: usize = 16;

/// Failures of one task.
#[derive(Debug, Default)]
pub(crate) struct FailureLog {
    causes: Vec<Cause>,
    /// Number of failures since the last success.
    failures: u64,
    /// Whether one of them was logged.
    is_logged: bool,
}

#[derive(Debug)]
struct Cause {
    text: String,
    /// Number of lines so far.
    lines: u32,
    /// Time of the next line.
    next: Instant,
}

impl FailureLog {
    /// Records a failure. If a line about it is due, returns the number of failures since the last success.
    pub(crate) fn failed(&mut self, cause: impl ToString) -> Option<u64> {
        self.failures += 1;
        let (text, now) = (cause.to_string(), Instant::now());
        let known = self.causes.iter().position(|known| known.text == text);
        let lines = match known.map(|at| self.causes.remove(at)) {
            Some(known) if now < known.next => {
                self.causes.push(known);
                return None;
            }
            // A cause that was away for longer than its line was due is a new one.
            Some(known) if now < known.next + INTERVALS.ceiling(known.lines) => known.lines + 1,
            _ => 1,
        };
        if self.causes.len() >= CAUSES {
            self.causes.remove(0);
        }
        let next = now + INTERVALS.ceiling(lines);
        self.causes.push(Cause { text, lines, next });
        self.is_logged = true;
        Some(self.failures)
    }

    /// Records a success. Returns the number of failures before it if a line about one of them was due.
    pub(crate) fn succeeded(&mut self) -> Option<u64> {
        let failures = std::mem::take(&mut self.failures);
        std::mem::take(&mut self.is_logged).then_some(failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines about failures every four seconds for this many seconds.
    async fn lines(log: &mut FailureLog, seconds: u64, recovers: bool) -> usize {
        let mut lines = 0;
        for _ in 0..seconds / 4 {
            lines += usize::from(log.failed("connection refused").is_some());
            if recovers {
                log.succeeded();
            }
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        lines
    }

    #[tokio::test(start_paused = true)]
    async fn a_cause_is_logged_at_once_and_then_at_a_falling_rate() {
        for recovers in [false, true] {
            let mut log = FailureLog::default();
            assert_eq!(lines(&mut log, 40, recovers).await, 1);
            assert_eq!(lines(&mut log, 3_600, recovers).await, 5, "{recovers}");
            assert!(lines(&mut log, 24 * 3_600, recovers).await <= 25);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_cause_is_logged_at_once_and_an_old_one_again() {
        let mut log = FailureLog::default();
        assert_eq!(log.failed("one"), Some(1));
        assert_eq!(log.failed("two"), Some(2));
        assert_eq!((log.failed("one"), log.failed("two")), (None, None));
        assert_eq!((log.succeeded(), log.succeeded()), (Some(4), None));
        tokio::time::sleep(Duration::from_secs(24 * 3_600)).await;
        assert_eq!(log.failed("one"), Some(1));
        for n in 0..100 {
            assert!(log.failed(n).is_some());
        }
        assert_eq!(log.causes.len(), CAUSES);
    }
}
