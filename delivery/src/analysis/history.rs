//! Stable's counts before the candidate got its first request.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::samples::{Snapshot, Tally, Tracker};
use crate::stats;

/// Minimum length in seconds; a shorter history, or one with fewer than [`MIN_REQUESTS`], is treated as unknown.
const MIN_SECONDS: f64 = 60.0;
const MIN_REQUESTS: u64 = 100;
/// Estimate of a rate without any data.
pub(super) const UNKNOWN_RATE: f64 = 0.01;

/// Stable's counts per node and evaluation period, over the last minutes before the rollout.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Length in seconds.
    pub seconds: f64,
    /// One row per node with the counts of each evaluation period; all rows have the same length.
    pub nodes: Vec<Vec<Tally>>,
}

impl History {
    /// Creates the history from raw snapshots of stable in any order. The first snapshot of each process only sets its baseline.
    #[must_use]
    pub fn from_snapshots(
        snapshots: &[Snapshot],
        stable: &str,
        evaluation_interval: Duration,
    ) -> Self {
        let mut ordered: Vec<&Snapshot> = snapshots.iter().collect();
        ordered.sort_by_key(|s| s.at);
        let (Some(first), Some(last)) = (ordered.first(), ordered.last()) else {
            return Self::default();
        };
        let start = first.at;
        let period = i64::try_from(evaluation_interval.as_millis())
            .unwrap_or(i64::MAX)
            .max(1);
        let period_of = |at: Timestamp| -> usize {
            let passed = at.as_millisecond() - start.as_millisecond();
            usize::try_from(passed / period).unwrap_or(0)
        };
        let length = period_of(last.at) + 1;
        let mut tracker = Tracker::resume([]);
        let mut rows: BTreeMap<String, Vec<Tally>> = BTreeMap::new();
        for snapshot in &ordered {
            let row = rows
                .entry(snapshot.process.clone())
                .or_insert_with(|| vec![Tally::default(); length]);
            for increment in tracker.advance(snapshot.at, [*snapshot], "", stable) {
                if let Some(cell) = row.get_mut(period_of(snapshot.at)) {
                    cell.add(&increment.tallies.stable);
                }
            }
        }
        let covered = last.at.as_millisecond() - start.as_millisecond();
        Self {
            seconds: covered as f64 / 1000.0,
            nodes: rows.into_values().collect(),
        }
    }

    /// Returns the sum of all counts.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut sum = Tally::default();
        for cell in self.nodes.iter().flatten() {
            sum.add(cell);
        }
        sum
    }

    /// Whether there is enough history to derive rates and bounds.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.seconds >= MIN_SECONDS && self.total().requests >= MIN_REQUESTS
    }

    /// Returns stable's requests per second; `None` if unknown.
    #[must_use]
    pub fn requests_per_second(&self) -> Option<f64> {
        self.is_known()
            .then(|| self.total().requests as f64 / self.seconds)
    }

    /// Returns the first estimate of a rate and the dispersion of its events.
    pub(super) fn rate_and_dispersion(&self, event: impl Fn(&Tally) -> (u64, u64)) -> (f64, f64) {
        if !self.is_known() {
            return (UNKNOWN_RATE, stats::UNKNOWN);
        }
        let (requests, events) = event(&self.total());
        let nodes: Vec<Vec<stats::Cell>> = self
            .nodes
            .iter()
            .map(|row| {
                row.iter()
                    .map(|cell| {
                        let (n, x) = event(cell);
                        (n as f64, x as f64)
                    })
                    .collect()
            })
            .collect();
        (smoothed(requests, events), stats::dispersion(&nodes))
    }
}

/// Returns a rate that is never 0: no event among n requests does not prove that there are none.
pub(super) fn smoothed(requests: u64, events: u64) -> f64 {
    (events as f64 + 0.5) / (requests as f64 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::TailBounds;
    use super::*;
    use crate::samples::{Counters, Outcome, StatusClass};

    /// Two nodes with `requests` each per evaluation, of which every hundredth fails on the first node only.
    fn snapshots(evaluations: i64, requests: u64) -> Vec<Snapshot> {
        let mut all = Vec::new();
        for look in 0..=evaluations {
            for (node, failing) in [("a", true), ("b", false)] {
                let mut counters = Counters::default();
                let sum = requests * look.unsigned_abs();
                let failed = if failing { sum / 100 } else { 0 };
                counters.add(Outcome::Ok, StatusClass::Other, sum - failed);
                counters.add(Outcome::Trap, StatusClass::ServerError, failed);
                counters.latency.0[10] = sum - sum / 20;
                counters.latency.0[15] = sum / 20;
                all.push(Snapshot {
                    process: node.into(),
                    boot: Some(1),
                    at: Timestamp::from_second(1_000 + 5 * look).unwrap(),
                    revisions: [("old".into(), counters)].into(),
                });
            }
        }
        all
    }

    fn history(evaluations: i64, requests: u64) -> History {
        History::from_snapshots(
            &snapshots(evaluations, requests),
            "old",
            Duration::from_secs(5),
        )
    }

    #[test]
    fn rates_bounds_and_dispersion_of_stable() {
        let history = history(180, 50);
        assert_eq!(history.seconds, 900.0);
        assert_eq!(history.requests_per_second(), Some(20.0));
        let (rate, dispersion) = history.rate_and_dispersion(|t| (t.requests, t.errors));
        assert!((rate - 0.005).abs() < 1e-4, "{rate}");
        assert!(
            dispersion > 1.0,
            "one node has all the errors: {dispersion}"
        );
        let bounds = TailBounds::from_histogram(&history.total().latency, Duration::ZERO).unwrap();
        assert_eq!(bounds.compared, [10, 15], "each bound once");
        assert_eq!(bounds.passing, [10, 15]);
    }

    #[test]
    fn a_short_history_is_unknown() {
        for short in [history(11, 50), history(180, 0), History::default()] {
            assert_eq!(short.requests_per_second(), None);
            let unknown = short.rate_and_dispersion(|t| (t.requests, t.errors));
            assert_eq!(unknown, (UNKNOWN_RATE, stats::UNKNOWN));
        }
    }

    #[test]
    fn the_order_of_snapshots_is_irrelevant() {
        let mut shuffled = snapshots(20, 50);
        shuffled.reverse();
        let shuffled = History::from_snapshots(&shuffled, "old", Duration::from_secs(5));
        assert_eq!(shuffled, history(20, 50));
    }
}
