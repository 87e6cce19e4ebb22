//! Counters of one revision in one process, since that process started.

use node_api_types::{LATENCY_BOUNDS, LATENCY_BUCKETS, Outcome};
use serde::{Deserialize, Serialize};

/// Reason why a snapshot was rejected. Its node keeps the previous baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum InvalidSnapshot {
    /// A counter is NaN, infinite or not a number at all.
    #[error("a counter is not a finite number")]
    NotFinite,
    /// A counter is below zero.
    #[error("a counter is negative")]
    Negative,
    /// The cumulative buckets of a histogram fall, or exceed its count.
    #[error("a histogram bucket holds more than the count")]
    BucketAboveCount,
    /// A bucket bound is not one of [`LATENCY_BOUNDS`].
    #[error("a histogram has an unknown bucket bound")]
    UnknownBound,
}

impl InvalidSnapshot {
    /// Value of the `reason` label of the metric.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFinite => "not_finite",
            Self::Negative => "negative",
            Self::BucketAboveCount => "bucket_above_count",
            Self::UnknownBound => "unknown_bound",
        }
    }
}

/// Converts a scraped number into a count, rounded to the nearest.
///
/// # Errors
/// [`InvalidSnapshot::NotFinite`] or [`InvalidSnapshot::Negative`].
pub fn whole(value: f64) -> Result<u64, InvalidSnapshot> {
    if !value.is_finite() {
        return Err(InvalidSnapshot::NotFinite);
    }
    if value < 0.0 {
        return Err(InvalidSnapshot::Negative);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "finite and not negative; counters beyond 2^64 saturate"
    )]
    Ok(value.round() as u64)
}

/// Class of the HTTP status that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusClass {
    /// Status 4xx.
    ClientError,
    /// Status 5xx.
    ServerError,
    /// Any other status, or none.
    Other,
}

impl StatusClass {
    /// Parses the label `code`.
    #[must_use]
    pub fn from_label(label: &str) -> Self {
        match label {
            "4xx" => Self::ClientError,
            "5xx" => Self::ServerError,
            _ => Self::Other,
        }
    }
}

/// Latency histogram: requests per bucket (not cumulative), in the order of [`LATENCY_BOUNDS`]. The last bucket has no upper
/// bound. It is persisted as a sparse list of `(bucket, requests)`, because most buckets of a function are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<(usize, u64)>", try_from = "Vec<(usize, u64)>")]
pub struct Histogram(pub [u64; LATENCY_BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; LATENCY_BUCKETS])
    }
}

impl From<Histogram> for Vec<(usize, u64)> {
    fn from(histogram: Histogram) -> Self {
        let buckets = histogram.0.into_iter().enumerate();
        buckets.filter(|(_, requests)| *requests > 0).collect()
    }
}

impl TryFrom<Vec<(usize, u64)>> for Histogram {
    type Error = InvalidSnapshot;

    fn try_from(buckets: Vec<(usize, u64)>) -> Result<Self, InvalidSnapshot> {
        Self::from_sparse(buckets)
    }
}

impl Histogram {
    /// Creates a histogram from the cumulative buckets of a scrape: `(upper bound in seconds, requests at or below it)` in any
    /// order, with or without `+Inf`, and the count.
    ///
    /// # Errors
    /// Any variant of [`InvalidSnapshot`].
    pub fn from_cumulative(buckets: &[(f64, f64)], count: f64) -> Result<Self, InvalidSnapshot> {
        let count = whole(count)?;
        let mut cumulative: Vec<(f64, u64)> = Vec::with_capacity(LATENCY_BUCKETS);
        for (bound, value) in buckets {
            if bound.is_nan() {
                return Err(InvalidSnapshot::UnknownBound);
            }
            if bound.is_finite() {
                cumulative.push((*bound, whole(*value)?));
            } else if whole(*value)? > count {
                return Err(InvalidSnapshot::BucketAboveCount);
            }
        }
        cumulative.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut histogram = Self::default();
        let mut below = 0;
        let mut rest = cumulative.iter().peekable();
        for (slot, bound) in histogram.0.iter_mut().zip(LATENCY_BOUNDS) {
            if let Some((_, value)) = rest.next_if(|(at, _)| same_bound(*at, bound)) {
                *slot = value
                    .checked_sub(below)
                    .ok_or(InvalidSnapshot::BucketAboveCount)?;
                below = *value;
            }
        }
        if rest.next().is_some() {
            return Err(InvalidSnapshot::UnknownBound);
        }
        let above = count
            .checked_sub(below)
            .ok_or(InvalidSnapshot::BucketAboveCount)?;
        if let Some(last) = histogram.0.last_mut() {
            *last = above;
        }
        Ok(histogram)
    }

    /// Creates a histogram from a sparse list of `(bucket, requests)`, not cumulative.
    ///
    /// # Errors
    /// [`InvalidSnapshot::UnknownBound`] for a bucket that does not exist.
    pub fn from_sparse(
        buckets: impl IntoIterator<Item = (usize, u64)>,
    ) -> Result<Self, InvalidSnapshot> {
        let mut histogram = Self::default();
        for (index, requests) in buckets {
            let slot = histogram
                .0
                .get_mut(index)
                .ok_or(InvalidSnapshot::UnknownBound)?;
            *slot = slot.saturating_add(requests);
        }
        Ok(histogram)
    }

    /// Adds the requests of another histogram.
    pub fn add(&mut self, other: &Self) {
        for (slot, more) in self.0.iter_mut().zip(other.0) {
            *slot = slot.saturating_add(more);
        }
    }

    /// Returns the number of requests in all buckets.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns the number of requests slower than the upper bound of `bucket`.
    #[must_use]
    pub fn slower_than(&self, bucket: usize) -> u64 {
        self.0.iter().skip(bucket.saturating_add(1)).sum()
    }
}

fn same_bound(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * b
}

/// Counters of one process for one revision and one population.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    requests: [[u64; 3]; Outcome::ALL.len()],
    /// Number of requests refused by the revision's own permits or queue. They are part of the outcome `overloaded` too.
    pub saturated: u64,
    /// Latency that the plan compares (to the response head or to the last byte), of warm starts only.
    pub latency: Histogram,
}

impl Counters {
    /// Adds requests of one outcome and status class; warm and cold starts are added together.
    pub fn add(&mut self, outcome: Outcome, code: StatusClass, requests: u64) {
        let slot = self
            .requests
            .get_mut(outcome.index())
            .and_then(|row| row.get_mut(code as usize));
        if let Some(slot) = slot {
            *slot = slot.saturating_add(requests);
        }
    }

    /// Returns the number of requests of one outcome and status class.
    #[must_use]
    pub fn of(&self, outcome: Outcome, code: StatusClass) -> u64 {
        self.requests
            .get(outcome.index())
            .and_then(|row| row.get(code as usize))
            .copied()
            .unwrap_or(0)
    }

    /// Returns the number of all requests, including those that the tests ignore.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.requests.iter().flatten().sum()
    }

    /// Returns the part that the tests compare. It excludes `host_error`, `client`, and `overloaded` for the node's own reasons.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let all = |outcome| {
            [
                StatusClass::ClientError,
                StatusClass::ServerError,
                StatusClass::Other,
            ]
            .into_iter()
            .map(|code| self.of(outcome, code))
            .sum::<u64>()
        };
        let broken: u64 = [
            Outcome::GuestError,
            Outcome::Trap,
            Outcome::Deadline,
            Outcome::OutOfMemory,
        ]
        .into_iter()
        .map(all)
        .sum();
        Tally {
            requests: all(Outcome::Ok) + broken + self.saturated,
            errors: self.of(Outcome::Ok, StatusClass::ServerError) + broken + self.saturated,
            client_errors: self.of(Outcome::Ok, StatusClass::ClientError),
            latency: self.latency,
        }
    }
}

/// Part of [`Counters`], or of their growth, that the tests compare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Number of requests that count.
    pub requests: u64,
    /// Number of those requests that failed through the revision's fault.
    pub errors: u64,
    /// Number of those requests that the guest answered with 4xx.
    pub client_errors: u64,
    /// Latency of warm starts.
    pub latency: Histogram,
}

impl Tally {
    /// Whether nothing was counted.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the growth since `older`, or `None` if any part has decreased.
    #[must_use]
    pub fn since(&self, older: &Self) -> Option<Self> {
        let mut latency = Histogram::default();
        let pairs = self.latency.0.iter().zip(older.latency.0);
        for (slot, (new, old)) in latency.0.iter_mut().zip(pairs) {
            *slot = new.checked_sub(old)?;
        }
        let requests = self.requests.checked_sub(older.requests)?;
        // a node reports some histograms only during a rollout: the content of a histogram that appears is not growth
        let appeared = older.requests > 0 && older.latency == Histogram::default();
        if appeared && latency.0.iter().sum::<u64>() > requests {
            latency = Histogram::default();
        }
        Some(Self {
            requests,
            errors: self.errors.checked_sub(older.errors)?,
            client_errors: self.client_errors.checked_sub(older.client_errors)?,
            latency,
        })
    }

    /// Adds the counts of another process.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.client_errors = self.client_errors.saturating_add(other.client_errors);
        self.latency.add(&other.latency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_that_appears_late_is_no_growth() {
        let tally = |requests, requests_in_bucket| {
            let mut tally = Tally {
                requests,
                ..Tally::default()
            };
            tally.latency.0[3] = requests_in_bucket;
            tally
        };
        let growth = |old: Tally, new: Tally| {
            let since = new.since(&old).unwrap();
            (since.requests, since.latency.0[3])
        };
        assert_eq!(growth(tally(1_000, 0), tally(1_010, 1_010)), (10, 0));
        assert_eq!(growth(tally(1_010, 1_010), tally(1_030, 1_030)), (20, 20));
        // if a process had counted nothing, everything is growth
        assert_eq!(growth(tally(0, 0), tally(7, 7)), (7, 7));
    }

    #[test]
    fn outcomes_that_count_as_errors_of_a_revision() {
        let mut counters = Counters {
            saturated: 3,
            ..Counters::default()
        };
        let rows = [
            (Outcome::Ok, StatusClass::Other, 100),
            (Outcome::Ok, StatusClass::ClientError, 7),
            (Outcome::Ok, StatusClass::ServerError, 2),
            (Outcome::GuestError, StatusClass::ServerError, 1),
            (Outcome::Trap, StatusClass::Other, 1),
            (Outcome::Deadline, StatusClass::ServerError, 1),
            (Outcome::OutOfMemory, StatusClass::ServerError, 1),
            (Outcome::Overloaded, StatusClass::ServerError, 50),
            (Outcome::HostError, StatusClass::ServerError, 60),
            (Outcome::ClientFault, StatusClass::ClientError, 70),
        ];
        for (outcome, code, requests) in rows {
            counters.add(outcome, code, requests);
        }
        let tally = counters.tally();
        assert_eq!(
            (tally.requests, tally.errors, tally.client_errors),
            (116, 9, 7)
        );
        assert_eq!(counters.total(), 293);
    }

    #[test]
    fn cumulative_buckets_become_single_ones() {
        let histogram =
            Histogram::from_cumulative(&[(0.1, 4.0), (0.05, 1.0), (f64::INFINITY, 6.0)], 6.0)
                .unwrap();
        assert_eq!(histogram.count(), 6);
        let at = LATENCY_BOUNDS.iter().position(|b| *b == 0.1).unwrap();
        assert_eq!(histogram.slower_than(at), 2);
    }

    /// FE-2: NaN, infinite and negative counts and broken histograms have a reason.
    #[test]
    fn invalid_numbers_are_rejected_with_a_reason() {
        for (value, reason) in [
            (f64::NAN, InvalidSnapshot::NotFinite),
            (f64::INFINITY, InvalidSnapshot::NotFinite),
            (-1.0, InvalidSnapshot::Negative),
        ] {
            assert_eq!(whole(value), Err(reason));
            assert_eq!(
                Histogram::from_cumulative(&[(0.1, value)], 6.0),
                Err(reason)
            );
        }
        for (buckets, reason) in [
            (vec![(0.1, 7.0)], InvalidSnapshot::BucketAboveCount),
            (
                vec![(0.1, 3.0), (0.15, 2.0)],
                InvalidSnapshot::BucketAboveCount,
            ),
            (vec![(0.11, 3.0)], InvalidSnapshot::UnknownBound),
            (
                vec![(f64::INFINITY, 7.0)],
                InvalidSnapshot::BucketAboveCount,
            ),
        ] {
            assert_eq!(Histogram::from_cumulative(&buckets, 6.0), Err(reason));
        }
        assert_eq!(
            Histogram::from_sparse([(LATENCY_BUCKETS, 1)]),
            Err(InvalidSnapshot::UnknownBound)
        );
    }
}
