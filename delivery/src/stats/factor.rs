//! The factor by which one look multiplies the wealth on one alternative.

use serde::{Deserialize, Serialize};

/// Persisted counts are rounded to this fraction of a request. They are only displayed; fractions come from nodes whose
/// influence is limited.
const PERSISTED_PARTS: f64 = 16.0;

/// Counts of both arms between two looks, in one stratum.
///
/// The counts are whole numbers, except for fractions from nodes whose influence is limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "[u64; 4]", into = "[u64; 4]")]
pub struct Increment {
    /// Requests of the candidate.
    pub candidate_requests: f64,
    /// Number of those requests that are events.
    pub candidate_events: f64,
    /// Requests of stable.
    pub stable_requests: f64,
    /// Number of those requests that are events.
    pub stable_events: f64,
}

impl Increment {
    /// Creates an increment from counts.
    #[must_use]
    pub const fn new(
        candidate_requests: f64,
        candidate_events: f64,
        stable_requests: f64,
        stable_events: f64,
    ) -> Self {
        Self {
            candidate_requests,
            candidate_events,
            stable_requests,
            stable_events,
        }
    }

    /// Adds the counts of another node.
    pub fn add(&mut self, other: &Self) {
        self.candidate_requests += other.candidate_requests;
        self.candidate_events += other.candidate_events;
        self.stable_requests += other.stable_requests;
        self.stable_events += other.stable_events;
    }

    /// Returns the candidate's counts without those of stable, for absolute tests of the candidate.
    #[must_use]
    pub const fn candidate_alone(&self) -> Self {
        Self::new(self.candidate_requests, self.candidate_events, 0.0, 0.0)
    }

    /// Returns stable's counts as the candidate, for absolute tests of stable.
    #[must_use]
    pub const fn stable_alone(&self) -> Self {
        Self::new(self.stable_requests, self.stable_events, 0.0, 0.0)
    }
}

impl From<Increment> for [u64; 4] {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are not negative and far below 2^60"
    )]
    fn from(increment: Increment) -> Self {
        [
            increment.candidate_requests,
            increment.candidate_events,
            increment.stable_requests,
            increment.stable_events,
        ]
        .map(|count| (count * PERSISTED_PARTS).round() as u64)
    }
}

impl From<[u64; 4]> for Increment {
    fn from(parts: [u64; 4]) -> Self {
        let [nc, xc, ns, xs] = parts.map(|part| part as f64 / PERSISTED_PARTS);
        Self::new(nc, xc, ns, xs)
    }
}

/// Limit between harmless and harmful: the candidate's rate is compared with `ratio * stable + delta`.
/// A ratio of 0 makes the test absolute: stable is ignored.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tolerance {
    /// R: factor of stable's rate, or 0.
    pub ratio: f64,
    /// δ: share of requests (0 to 1).
    pub delta: f64,
}

impl Tolerance {
    /// Returns the rate that the candidate may have when stable has `stable_rate`.
    ///
    /// ```
    /// use delivery::stats::Tolerance;
    /// let as_stable_plus = Tolerance { ratio: 1.0, delta: 0.005 };
    /// assert!((as_stable_plus.limit(0.01) - 0.015).abs() < 1e-12);
    /// let absolute = Tolerance { ratio: 0.0, delta: 0.05 };
    /// assert_eq!(absolute.limit(0.01), 0.05);
    /// ```
    #[must_use]
    pub fn limit(&self, stable_rate: f64) -> f64 {
        if self.ratio > 0.0 {
            self.ratio * stable_rate + self.delta
        } else {
            self.delta
        }
    }

    /// Returns ln of the factor by which one look multiplies the wealth on the alternative "the candidate fails at the rate
    /// `alternative`", given the estimate `estimate` of stable's rate before the look.
    ///
    /// The factor is the Poisson likelihood of the alternative divided by that of the *nearest* pair of rates on the line. The
    /// nearest point depends on the request counts of the look (`q` below), so any split of traffic is allowed. The result is
    /// 0 if an arm has no requests.
    ///
    /// ```
    /// use delivery::stats::{Increment, Tolerance};
    /// let tolerance = Tolerance { ratio: 1.0, delta: 0.005 };
    /// // the alternative is "the candidate fails 10 %"; the estimate of stable is 1 %
    /// let ln_factor = |failed| {
    ///     tolerance.ln_factor(&Increment::new(50.0, failed, 950.0, 10.0), 0.01, 0.1)
    /// };
    /// assert!(ln_factor(5.0) > 0.0); // 5 of 50: the wealth grows
    /// assert!(ln_factor(0.0) < 0.0); // 0 of 50: the wealth shrinks
    /// ```
    #[must_use]
    pub fn ln_factor(&self, increment: &Increment, estimate: f64, alternative: f64) -> f64 {
        let Increment {
            candidate_requests,
            candidate_events,
            stable_requests,
            stable_events,
        } = *increment;
        if candidate_requests <= 0.0 || (self.ratio > 0.0 && stable_requests <= 0.0) {
            return 0.0;
        }
        let (candidate, stable) = if self.ratio > 0.0 {
            self.multipliers(candidate_requests / stable_requests, estimate, alternative)
        } else {
            (alternative / self.delta, 1.0)
        };
        let mut ln_factor = -candidate_requests * self.delta * (candidate - 1.0);
        if candidate_events > 0.0 {
            ln_factor += candidate_events * candidate.ln();
        }
        if self.ratio > 0.0 && stable_events > 0.0 {
            ln_factor += stable_events * stable.ln();
        }
        ln_factor
    }

    /// Returns the factors by which one event of the candidate and one of stable multiply the wealth. `split` is nC/nS. Both
    /// follow from the positive root `q` of a quadratic, which is stable's rate at the nearest point of the line. The
    /// formula avoids differences of nearly equal numbers.
    fn multipliers(&self, split: f64, estimate: f64, alternative: f64) -> (f64, f64) {
        let Self { ratio, delta } = *self;
        let quadratic = ratio * (ratio * split + 1.0);
        let linear = ratio * split * (delta - alternative) + delta - ratio * estimate;
        let constant = -delta * estimate;
        let root = (linear * linear - 4.0 * quadratic * constant).sqrt();
        let nearest = if linear > 0.0 {
            -2.0 * constant / (linear + root)
        } else {
            (root - linear) / (2.0 * quadratic)
        };
        (alternative / (ratio * nearest + delta), estimate / nearest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKED: Increment = Increment::new(50.0, 3.0, 950.0, 10.0);
    const TOLERANCE: Tolerance = Tolerance {
        ratio: 1.0,
        delta: 0.005,
    };

    /// The hand-computed look: effect size, candidate's and stable's multiplier, ln of the factor.
    #[test]
    fn agrees_with_the_worked_example() {
        let limit = TOLERANCE.limit(0.01);
        let rows = [
            (0.95, 16.410_680_8, 0.188_911_536, -12.123_637_4),
            (0.0625, 4.447_079_50, 0.818_574_763, 1.613_067_44),
            (1.0 / 256.0, 1.245_634_01, 0.987_071_894, 0.467_401_427),
        ];
        for (size, candidate, stable, ln_factor) in rows {
            let alternative = limit + (1.0 - limit) * size;
            let (a, b) = TOLERANCE.multipliers(50.0 / 950.0, 0.01, alternative);
            assert!((a - candidate).abs() < 1e-7, "a at {size}: {a}");
            assert!((b - stable).abs() < 1e-8, "b at {size}: {b}");
            let got = TOLERANCE.ln_factor(&WORKED, 0.01, alternative);
            assert!((got - ln_factor).abs() < 1e-6, "ln f at {size}: {got}");
        }
    }

    #[test]
    fn a_margin_of_zero_needs_no_special_case() {
        let no_margin = Tolerance {
            ratio: 1.0,
            delta: 0.0,
        };
        assert!(no_margin.ln_factor(&WORKED, 0.01, 0.05).is_finite());
    }

    #[test]
    fn an_arm_without_requests_gives_no_evidence() {
        for increment in [
            Increment::new(0.0, 0.0, 500.0, 5.0),
            Increment::new(50.0, 1.0, 0.0, 0.0),
        ] {
            assert_eq!(TOLERANCE.ln_factor(&increment, 0.01, 0.5), 0.0);
        }
    }
}
