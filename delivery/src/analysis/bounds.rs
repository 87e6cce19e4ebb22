//! Latency bounds at which both revisions are compared. They are chosen from stable's latency, and again when it has changed.
//!
//! Without a history the bounds come from stable's first requests, which may be from a quiet time. If most of stable's
//! requests later exceed what was its p95, exceeding that bound no longer distinguishes the revisions, and the rollout would
//! be held indefinitely. All bounds are therefore chosen again when half of stable's recent requests exceed the p95 bound.
//!
//! The cost: none on the rollback side, where the wealth moves to other alternatives, which may be chosen by earlier data. On
//! the pass side the new bounds start without evidence, so such a step has two chances to pass by luck instead of one. This
//! happens at most once in a step.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::samples::{Histogram, LATENCY_BOUNDS, Tally};
use crate::stats::{self, EProcess};

use super::Analysis;
use super::history::{History, UNKNOWN_RATE, smoothed};
use super::sequential::{self, Event, Pass, Test};
use super::verdict::Metric;

/// Minimum number of stable's requests, and the minimum time they cover, from which bounds are chosen.
const REQUESTS_FOR_BOUNDS: u64 = 500;
const TIME_FOR_BOUNDS: SignedDuration = SignedDuration::from_secs(30);
/// Maximum age of requests that count as recent.
const RECENT: SignedDuration = SignedDuration::from_mins(1);
/// Share of stable's requests above its former p95 from which on the bounds no longer distinguish the revisions.
const STALE_BOUND_SHARE: f64 = 0.5;
/// Quantiles of stable's latency at which the revisions are compared.
const QUANTILES: [f64; 4] = [0.9, 0.95, 0.99, 0.999];

/// Histogram buckets at whose upper bounds the latency of both revisions is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailBounds {
    /// Buckets of the nearest bounds above stable's p90, p95, p99 and p99.9, but not below the floor; each once, ascending.
    pub compared: Vec<usize>,
    /// Buckets of p95 and p99, which must pass before a step ends.
    pub passing: Vec<usize>,
}

impl TailBounds {
    /// Chooses the buckets; `None` if the histogram is empty. A quantile above the last bound has no bucket and is left out;
    /// one below `floor` is compared at the nearest bound above the floor.
    #[must_use]
    pub fn from_histogram(histogram: &Histogram, floor: Duration) -> Option<Self> {
        let count = histogram.count();
        if count == 0 {
            return None;
        }
        // the bounds are rounded decimal numbers
        let floor = floor.as_secs_f64() - 1e-9;
        let lowest = LATENCY_BOUNDS
            .iter()
            .take_while(|bound| **bound < floor)
            .count();
        let above = |quantile: f64| -> Option<usize> {
            (lowest..LATENCY_BOUNDS.len()).find(|bucket| {
                let at_or_below = count - histogram.slower_than(*bucket);
                at_or_below as f64 >= quantile * count as f64
            })
        };
        let mut bounds = Self::default();
        for quantile in QUANTILES {
            let Some(bucket) = above(quantile) else {
                continue;
            };
            if !bounds.compared.contains(&bucket) {
                bounds.compared.push(bucket);
            }
            let passes = (0.95..0.999).contains(&quantile);
            if passes && !bounds.passing.contains(&bucket) {
                bounds.passing.push(bucket);
            }
        }
        Some(bounds)
    }
}

impl Analysis {
    /// Takes in stable's latency after the tests were evaluated: data that chooses bounds must not be tested at them.
    pub(super) fn learn_bounds(&mut self, now: Timestamp, stable: &Tally) {
        if self.plan.latency.is_none() {
            return;
        }
        self.seen.add(&stable.latency);
        let spread = now.duration_since(self.seen_since);
        if self.seen.count() < REQUESTS_FOR_BOUNDS || spread < TIME_FOR_BOUNDS {
            return;
        }
        if self.bounds.is_none() || (self.are_bounds_stale() && !self.step.rechosen) {
            self.choose_bounds();
        } else if spread < RECENT {
            return;
        }
        self.seen = Histogram::default();
        self.seen_since = now;
    }

    fn are_bounds_stale(&self) -> bool {
        let bound = self.bounds.as_ref().and_then(|b| b.passing.first());
        bound.is_some_and(|bucket| {
            self.seen.slower_than(*bucket) as f64 > STALE_BOUND_SHARE * self.seen.count() as f64
        })
    }

    fn choose_bounds(&mut self) {
        let Some(chosen) = TailBounds::from_histogram(&self.seen, self.plan.latency_floor) else {
            return;
        };
        // without bounds no step ends, so none at all are accepted once: stable is slower than the last bucket
        let none = chosen.compared.is_empty() && self.bounds.is_some();
        if none || Some(&chosen) == self.bounds.as_ref() {
            return;
        }
        self.step.rechosen = self.bounds.is_some();
        let (old, others): (Vec<Test>, Vec<Test>) = std::mem::take(&mut self.tests)
            .into_iter()
            .partition(|test| test.event.metric == Metric::Latency);
        let mut fresh =
            sequential::latency_tests(&self.plan, &chosen, &self.seen, &History::default());
        if !old.is_empty() {
            inherit(&mut fresh, &old);
        }
        self.tests = others;
        self.tests.extend(fresh);
        self.bounds = Some(chosen);
        self.follow_bounds();
    }

    /// Updates the pass side to the current bounds. Evidence at bounds that stay is kept.
    pub(super) fn follow_bounds(&mut self) {
        let Some(next) = self.step.next else {
            self.pass.clear();
            return;
        };
        let events = sequential::pass_events(&self.plan, self.bounds.as_ref());
        self.pass.retain(|pass| events.contains(&pass.event));
        for event in events {
            if self.pass.iter().all(|pass| pass.event != event) {
                let dispersion = self.dispersion_of(event);
                let settings =
                    sequential::pass_settings(&self.plan, event.metric, next, dispersion);
                let process = EProcess::new(settings, &[self.estimate_of(event)]);
                self.pass.push(Pass { event, process });
            }
        }
    }

    /// Returns φ of the rollback test of the same event, or of the same metric.
    pub(super) fn dispersion_of(&self, event: Event) -> f64 {
        self.sibling(event)
            .map_or(stats::UNKNOWN, |t| t.process.settings().dispersion)
    }

    /// Returns the estimate of stable's rate from the rollback test of the same event, or from the requests since the bounds
    /// were chosen.
    fn estimate_of(&self, event: Event) -> f64 {
        let known = self.tests.iter().find(|t| t.event == event);
        match (known, event.bucket) {
            (None, Some(bucket)) if self.seen.count() > 0 => {
                smoothed(self.seen.count(), self.seen.slower_than(bucket))
            }
            _ => self
                .sibling(event)
                .and_then(|t| t.process.estimates().first())
                .map_or(UNKNOWN_RATE, stats::RateEstimate::rate),
        }
    }

    fn sibling(&self, event: Event) -> Option<&Test> {
        self.tests
            .iter()
            .find(|t| t.event == event)
            .or_else(|| self.tests.iter().find(|t| t.event.metric == event.metric))
    }
}

/// Gives new tests the wealth of the old ones, spread evenly, and their largest dispersion.
fn inherit(fresh: &mut [Test], old: &[Test]) {
    let terms: Vec<f64> = old.iter().map(|t| t.part.ln() + t.ln_evidence()).collect();
    let owned: f64 = old.iter().map(|t| t.part).sum();
    let ln_wealth = stats::ln_sum_exp(&terms) - owned.ln();
    let dispersion = old
        .iter()
        .map(|t| t.process.settings().dispersion)
        .fold(1.0, f64::max);
    for test in fresh {
        test.process.inherit(ln_wealth, dispersion);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A revision with a small share of the requests is slower by fractions of a millisecond for no fault of its own.
    #[test]
    fn latency_is_not_compared_below_the_floor() {
        let mut histogram = Histogram::default();
        histogram.0[1] = 99_000;
        histogram.0[15] = 1_000;
        let chosen = |floor| {
            let chosen = TailBounds::from_histogram(&histogram, Duration::from_micros(floor));
            chosen.unwrap().compared
        };
        assert_eq!(chosen(0), [1, 15]);
        assert_eq!(LATENCY_BOUNDS[8], 0.005);
        assert_eq!(chosen(5_000), [8, 15]);
        assert_eq!(chosen(4_001), [8, 15]);
        assert_eq!(chosen(1_000_000), [24]);
    }
}
