//! Counters of one revision in one process, since that process started.

use node_api_types::{LATENCY_BOUNDS, LATENCY_BUCKETS, Outcome};
use serde::{Deserialize, Serialize};

/// Why a snapshot was not used. Its node keeps the previous baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Rejected {
    /// NaN, infinite, or not a number at all.
    #[error("a counter is not a finite number")]
    NotFinite,
    /// Below zero.
    #[error("a counter is negative")]
    Negative,
    /// A histogram whose buckets do not rise, or hold more than its count.
    #[error("a histogram bucket holds more than the count")]
    BucketAboveCount,
    /// A bucket bound that is not one of [`LATENCY_BOUNDS`].
    #[error("a histogram has an unknown bucket bound")]
    UnknownBound,
}

impl Rejected {
    /// The value of the `reason` label.
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

/// A scraped number as a count.
///
/// # Errors
/// [`Rejected::NotFinite`], [`Rejected::Negative`].
pub fn whole(value: f64) -> Result<u64, Rejected> {
    if !value.is_finite() {
        return Err(Rejected::NotFinite);
    }
    if value < 0.0 {
        return Err(Rejected::Negative);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "finite and not negative; counters beyond 2^64 saturate"
    )]
    Ok(value.round() as u64)
}

/// Class of the status that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// 4xx.
    ClientError,
    /// 5xx.
    ServerError,
    /// Any other, or none.
    Other,
}

impl Code {
    /// From the label `code`.
    #[must_use]
    pub fn from_label(label: &str) -> Self {
        match label {
            "4xx" => Self::ClientError,
            "5xx" => Self::ServerError,
            _ => Self::Other,
        }
    }
}

/// Requests per bucket (not cumulative), in the order of [`LATENCY_BOUNDS`]; the last bucket has no upper bound. It is
/// persisted as a sparse list of `(bucket, requests)`, because most buckets of a function are empty.
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
    type Error = Rejected;

    fn try_from(buckets: Vec<(usize, u64)>) -> Result<Self, Rejected> {
        Self::from_sparse(buckets)
    }
}

impl Histogram {
    /// From the cumulative buckets of a scrape: `(upper bound in seconds, requests at or below it)` in any order, with
    /// `+Inf` or without it, and the count.
    ///
    /// # Errors
    /// Any [`Rejected`].
    pub fn from_cumulative(buckets: &[(f64, f64)], count: f64) -> Result<Self, Rejected> {
        let count = whole(count)?;
        let mut cumulative: Vec<(f64, u64)> = Vec::with_capacity(LATENCY_BUCKETS);
        for (bound, value) in buckets {
            if bound.is_nan() {
                return Err(Rejected::UnknownBound);
            }
            if bound.is_finite() {
                cumulative.push((*bound, whole(*value)?));
            } else if whole(*value)? > count {
                return Err(Rejected::BucketAboveCount);
            }
        }
        cumulative.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut histogram = Self::default();
        let mut below = 0;
        let mut rest = cumulative.iter().peekable();
        for (slot, bound) in histogram.0.iter_mut().zip(LATENCY_BOUNDS) {
            if let Some((_, value)) = rest.next_if(|(at, _)| same_bound(*at, bound)) {
                *slot = value.checked_sub(below).ok_or(Rejected::BucketAboveCount)?;
                below = *value;
            }
        }
        if rest.next().is_some() {
            return Err(Rejected::UnknownBound);
        }
        let above = count.checked_sub(below).ok_or(Rejected::BucketAboveCount)?;
        if let Some(last) = histogram.0.last_mut() {
            *last = above;
        }
        Ok(histogram)
    }

    /// From a sparse list of `(bucket, requests)`, not cumulative.
    ///
    /// # Errors
    /// [`Rejected::UnknownBound`] for a bucket that does not exist.
    pub fn from_sparse(buckets: impl IntoIterator<Item = (usize, u64)>) -> Result<Self, Rejected> {
        let mut histogram = Self::default();
        for (index, requests) in buckets {
            let slot = histogram.0.get_mut(index).ok_or(Rejected::UnknownBound)?;
            *slot = slot.saturating_add(requests);
        }
        Ok(histogram)
    }

    /// Adds another one's requests.
    pub fn add(&mut self, other: &Self) {
        for (slot, more) in self.0.iter_mut().zip(other.0) {
            *slot = slot.saturating_add(more);
        }
    }

    /// All requests.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Requests slower than the upper bound of `bucket`.
    #[must_use]
    pub fn slower_than(&self, bucket: usize) -> u64 {
        self.0.iter().skip(bucket.saturating_add(1)).sum()
    }
}

fn same_bound(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * b
}

/// Everything one process counted for one revision and one population.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    requests: [[u64; 3]; Outcome::ALL.len()],
    /// Refused by the revision's own permits or queue; part of outcome `overloaded` too.
    pub saturated: u64,
    /// The latency the plan judges (to the head, or to the last byte); warm starts only.
    pub latency: Histogram,
}

impl Counters {
    /// Adds requests of one outcome and status class; warm and cold starts are added together.
    pub fn add(&mut self, outcome: Outcome, code: Code, requests: u64) {
        let slot = self
            .requests
            .get_mut(outcome.index())
            .and_then(|row| row.get_mut(code as usize));
        if let Some(slot) = slot {
            *slot = slot.saturating_add(requests);
        }
    }

    /// Requests of one outcome and status class.
    #[must_use]
    pub fn of(&self, outcome: Outcome, code: Code) -> u64 {
        self.requests
            .get(outcome.index())
            .and_then(|row| row.get(code as usize))
            .copied()
            .unwrap_or(0)
    }

    /// All requests, also those that no revision is judged by.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.requests.iter().flatten().sum()
    }

    /// What of it is judged. `host_error`, `client` and `overloaded` for the node's own reasons are in nothing.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let all = |outcome| {
            [Code::ClientError, Code::ServerError, Code::Other]
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
            errors: self.of(Outcome::Ok, Code::ServerError) + broken + self.saturated,
            client_errors: self.of(Outcome::Ok, Code::ClientError),
            latency: self.latency,
        }
    }
}

/// The judged part of [`Counters`], or of their growth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests that count.
    pub requests: u64,
    /// Of them: failed through the revision's fault.
    pub errors: u64,
    /// Of them: answered 4xx by the guest.
    pub client_errors: u64,
    /// Latency, warm starts.
    pub latency: Histogram,
}

impl Tally {
    /// Whether nothing was counted.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// The growth since `older`, or `None` if any part is smaller than there.
    #[must_use]
    pub fn since(&self, older: &Self) -> Option<Self> {
        let mut latency = Histogram::default();
        let pairs = self.latency.0.iter().zip(older.latency.0);
        for (slot, (new, old)) in latency.0.iter_mut().zip(pairs) {
            *slot = new.checked_sub(old)?;
        }
        let requests = self.requests.checked_sub(older.requests)?;
        // a node shows some histograms only from the beginning of a rollout on: what one held when it appeared is
        // no growth
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

    /// Adds another process' counts.
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
        // of a process that had counted nothing, everything is growth
        assert_eq!(growth(tally(0, 0), tally(7, 7)), (7, 7));
    }

    #[test]
    fn what_counts_against_a_revision() {
        let mut counters = Counters {
            saturated: 3,
            ..Counters::default()
        };
        let rows = [
            (Outcome::Ok, Code::Other, 100),
            (Outcome::Ok, Code::ClientError, 7),
            (Outcome::Ok, Code::ServerError, 2),
            (Outcome::GuestError, Code::ServerError, 1),
            (Outcome::Trap, Code::Other, 1),
            (Outcome::Deadline, Code::ServerError, 1),
            (Outcome::OutOfMemory, Code::ServerError, 1),
            (Outcome::Overloaded, Code::ServerError, 50),
            (Outcome::HostError, Code::ServerError, 60),
            (Outcome::ClientFault, Code::ClientError, 70),
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
    fn broken_numbers_are_refused_by_reason() {
        for (value, reason) in [
            (f64::NAN, Rejected::NotFinite),
            (f64::INFINITY, Rejected::NotFinite),
            (-1.0, Rejected::Negative),
        ] {
            assert_eq!(whole(value), Err(reason));
            assert_eq!(
                Histogram::from_cumulative(&[(0.1, value)], 6.0),
                Err(reason)
            );
        }
        for (buckets, reason) in [
            (vec![(0.1, 7.0)], Rejected::BucketAboveCount),
            (vec![(0.1, 3.0), (0.15, 2.0)], Rejected::BucketAboveCount),
            (vec![(0.11, 3.0)], Rejected::UnknownBound),
            (vec![(f64::INFINITY, 7.0)], Rejected::BucketAboveCount),
        ] {
            assert_eq!(Histogram::from_cumulative(&buckets, 6.0), Err(reason));
        }
        assert_eq!(
            Histogram::from_sparse([(LATENCY_BUCKETS, 1)]),
            Err(Rejected::UnknownBound)
        );
    }
}
