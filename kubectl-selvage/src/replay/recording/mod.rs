//! A recording: requests, failures and latencies of versions, interval by interval.
//!
//! Each row has the counts of one interval, not totals since a start, so nothing in a file has to be reset.

mod csv;
mod lines;

use std::collections::{BTreeMap, BTreeSet};

use delivery::samples::{Histogram, LATENCY_BOUNDS, Tally};
use jiff::Timestamp;

pub(crate) use csv::write;

/// Name of the process of rows that name none.
const ALL: &str = "all";

/// Counts of one version in one process and one interval.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// End of the interval.
    pub(crate) at: Timestamp,
    pub(crate) process: String,
    pub(crate) revision: String,
    pub(crate) tally: Tally,
}

/// Rows in the order of their times.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Recording {
    pub(crate) rows: Vec<Row>,
}

impl Recording {
    pub(crate) fn new(mut rows: Vec<Row>) -> Self {
        rows.sort_by(|a, b| (a.at, &a.process, &a.revision).cmp(&(b.at, &b.process, &b.revision)));
        Self { rows }
    }

    /// Reads a recording: JSON lines if the first one is an object, else CSV.
    ///
    /// # Errors
    /// A sentence that names the line and what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let rows = if text.trim_start().starts_with('{') {
            lines::parse(text)?
        } else {
            csv::parse(text)?
        };
        if rows.is_empty() {
            return Err("the recording has no rows".to_owned());
        }
        let recording = Self::new(rows);
        recording.check_times()?;
        Ok(recording)
    }

    /// Two rows for one time are a mistake in the making of the file, and their sum would be a guess.
    fn check_times(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for row in &self.rows {
            if !seen.insert((row.at, &row.process, &row.revision)) {
                return Err(format!(
                    "two rows have the time {}, the process {} and the revision {}",
                    row.at, row.process, row.revision
                ));
            }
        }
        Ok(())
    }

    /// Returns the requests of each version, in the order in which the versions appear.
    pub(crate) fn revisions(&self) -> Vec<(&str, u64)> {
        let mut found: Vec<(&str, u64)> = Vec::new();
        for row in &self.rows {
            match found.iter_mut().find(|(name, _)| *name == row.revision) {
                Some((_, requests)) => *requests += row.tally.requests,
                None => found.push((&row.revision, row.tally.requests)),
            }
        }
        found
    }

    /// Whether any request has a latency.
    pub(crate) fn has_latencies(&self) -> bool {
        self.rows.iter().any(|row| row.tally.latency.count() > 0)
    }

    /// Puts every request into the fastest bucket.
    pub(crate) fn ignore_latencies(&mut self) {
        for row in &mut self.rows {
            row.tally.latency = Histogram::default();
            if let Some(fastest) = row.tally.latency.0.first_mut() {
                *fastest = row.tally.requests;
            }
        }
    }
}

/// Counts of a row as a file has them.
#[derive(Debug, Default)]
struct Written {
    requests: u64,
    failures: u64,
    client_errors: u64,
    /// Bound in seconds, and number of requests at or below it.
    latency: Vec<(f64, f64)>,
}

impl Written {
    /// Checks the counts.
    fn tally(self) -> Result<Tally, String> {
        let failed = self.failures.saturating_add(self.client_errors);
        if failed > self.requests {
            return Err(format!(
                "{failed} requests failed or were client errors, of only {}",
                self.requests
            ));
        }
        let all = self.latency.iter().find(|(bound, _)| bound.is_infinite());
        let count = all.map_or(self.requests as f64, |(_, count)| *count);
        let latency = if self.latency.is_empty() {
            Histogram::default()
        } else {
            Histogram::from_cumulative(&self.latency, count)
                .map_err(|error| format!("the latencies are wrong: {error}; {}", bounds()))?
        };
        Ok(Tally {
            requests: self.requests,
            errors: self.failures,
            client_errors: self.client_errors,
            latency,
        })
    }
}

/// `the bounds are 0.0001, …, 10 and +Inf seconds, and counts include all faster requests`
fn bounds() -> String {
    let known: Vec<String> = LATENCY_BOUNDS.iter().map(f64::to_string).collect();
    format!(
        "the bounds are {} and +Inf seconds, and each count includes all faster requests",
        known.join(", ")
    )
}

/// Parses the bound of a bucket; `+Inf` is the one without a bound.
fn bound(text: &str) -> Result<f64, String> {
    let parsed = text.parse::<f64>().ok().filter(|bound| *bound > 0.0);
    parsed.ok_or_else(|| format!("{text:?} is not a bound of latencies; {}", bounds()))
}

/// Parses a time: RFC 3339, or seconds since 1970.
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    let text = text.trim();
    let help =
        || format!("{text:?} is not a time: write 2026-11-21T13:30:00Z, or seconds since 1970");
    match text.parse::<f64>() {
        Ok(seconds) if seconds.abs() < 1e11 =>
        {
            #[allow(clippy::cast_possible_truncation, reason = "bounded above")]
            Timestamp::from_millisecond((seconds * 1000.0).round() as i64).map_err(|_| help())
        }
        Ok(_) => Err(help()),
        Err(_) => text.parse().map_err(|_| help()),
    }
}

/// Bounds of the buckets that have requests in any row, in their order, by index.
fn used_bounds(rows: &[Row]) -> BTreeMap<usize, f64> {
    let used = |index: usize| {
        rows.iter().any(|row| {
            row.tally
                .latency
                .0
                .get(index)
                .is_some_and(|count| *count > 0)
        })
    };
    let bounds = LATENCY_BOUNDS.iter().copied().enumerate();
    bounds.filter(|(index, _)| used(*index)).collect()
}
