//! What became of each request.

use std::{
    ops::{Bound, RangeBounds},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// No answer in time.
pub(super) const LATE: u16 = 0;
/// The connection failed before the answer was whole.
pub(super) const BROKEN: u16 = 1;
/// Not sent: too many were under way.
pub(super) const OVERRUN: u16 = 2;

/// Beyond this (48 MB, an hour at 800 requests/s) requests are counted, but not kept.
const KEPT: usize = 3_000_000;

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it was due, in microseconds since the generator began.
    due: u64,
    /// From then until the end of the answer, in microseconds.
    latency: u32,
    /// HTTP status, or one of the constants above.
    status: u16,
    /// Index into the names of versions.
    version: u8,
    /// Index of the target.
    target: u8,
}

impl Sample {
    pub(super) fn answered(
        begin: Instant,
        due: Instant,
        target: usize,
        status: u16,
        version: u8,
    ) -> Self {
        let micros = |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros();
        Self {
            due: u64::try_from(micros(begin, due)).unwrap_or(u64::MAX),
            latency: u32::try_from(micros(due, Instant::now())).unwrap_or(u32::MAX),
            status,
            version,
            target: u8::try_from(target).unwrap_or(u8::MAX),
        }
    }

    pub(super) fn failed(begin: Instant, due: Instant, target: usize, reason: u16) -> Self {
        Self::answered(begin, due, target, reason, 0)
    }

    /// When the request was due, since the generator began.
    #[must_use]
    pub const fn due(&self) -> Duration {
        Duration::from_micros(self.due)
    }

    /// When the answer was whole, since the generator began.
    #[must_use]
    pub fn end(&self) -> Duration {
        self.due() + self.latency()
    }

    /// From when it was due to the end of the answer.
    #[must_use]
    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.latency.into())
    }

    /// Anything but a 2xx.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !(200..300).contains(&self.status)
    }

    /// The HTTP status, or why there is none.
    #[must_use]
    pub fn outcome(&self) -> String {
        match self.status {
            LATE => "no answer in time".into(),
            BROKEN => "connection broken".into(),
            OVERRUN => "not sent, too many under way".into(),
            status => format!("HTTP {status}"),
        }
    }

    /// Which target it went to.
    #[must_use]
    pub fn target(&self) -> usize {
        self.target.into()
    }
}

/// The sum over the requests that one version answered; times since the generator began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arm {
    /// Answers.
    pub requests: u64,
    /// Of them, not 2xx.
    pub failed: u64,
    /// Median latency.
    pub p50: Duration,
    /// Latency that one of twenty exceeds.
    pub p95: Duration,
    /// When the first request was due.
    pub first: Option<Duration>,
    /// When the first failed request was answered.
    pub first_failure: Option<Duration>,
    /// When the last answer was in.
    pub last: Option<Duration>,
}

/// All requests so far, in the order of their ends.
#[derive(Debug)]
pub struct Samples {
    begin: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    kept: Vec<Sample>,
    /// Requests beyond [`KEPT`].
    beyond: u64,
    /// Index 0: no version.
    versions: Vec<String>,
}

impl Samples {
    pub(super) fn new(begin: Instant) -> Self {
        let state = State {
            kept: Vec::new(),
            beyond: 0,
            versions: vec![String::new()],
        };
        Self {
            begin,
            state: Mutex::new(state),
        }
    }

    /// When the generator began: the zero of every time here.
    #[must_use]
    pub const fn begin(&self) -> Instant {
        self.begin
    }

    /// Now, as the times here are told.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    pub(super) fn add(&self, sample: Sample) {
        let mut state = self.lock();
        if state.kept.len() < KEPT {
            state.kept.push(sample);
        } else {
            state.beyond += 1;
        }
    }

    /// The index of a version's name; names beyond the 255th are the empty one.
    pub(super) fn version(&self, name: &str) -> u8 {
        let mut state = self.lock();
        let index = state
            .versions
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| {
                if state.versions.len() >= usize::from(u8::MAX) {
                    return 0;
                }
                state.versions.push(name.to_owned());
                state.versions.len() - 1
            });
        u8::try_from(index).unwrap_or(0)
    }

    /// How many requests ended but were not kept: above 0 the sums below are not whole.
    #[must_use]
    pub fn beyond(&self) -> u64 {
        self.lock().beyond
    }

    /// The versions that answered, in the order of their first answers.
    #[must_use]
    pub fn versions(&self) -> Vec<String> {
        self.lock()
            .versions
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect()
    }

    /// The sum over the answers of one version (the empty name: answers without one) that ended in `time`.
    #[must_use]
    pub fn arm(&self, version: &str, time: impl RangeBounds<Duration>) -> Arm {
        let found = {
            let state = self.lock();
            let index = state.versions.iter().position(|known| known == version);
            let index = index.and_then(|index| u8::try_from(index).ok());
            recent(&state.kept, &time)
                .filter(|sample| Some(sample.version) == index)
                .collect()
        };
        sum(found)
    }

    /// The sum over all requests that ended in `time`.
    #[must_use]
    pub fn all(&self, time: impl RangeBounds<Duration>) -> Arm {
        let found = recent(&self.lock().kept, &time).collect();
        sum(found)
    }

    /// How many answers of a version took at least `bound`, and when the first of them was in.
    #[must_use]
    pub fn slower(&self, version: &str, bound: Duration) -> (u64, Option<Duration>) {
        let state = self.lock();
        let index = state.versions.iter().position(|known| known == version);
        let index = index.and_then(|index| u8::try_from(index).ok());
        let slow = || {
            state
                .kept
                .iter()
                .filter(|sample| Some(sample.version) == index && sample.latency() >= bound)
        };
        (slow().count() as u64, slow().map(Sample::end).min())
    }

    /// The failures of all versions but `except`, oldest first, at most `limit`: when, what, which target.
    #[must_use]
    pub fn failures(&self, except: &[&str], limit: usize) -> Vec<Sample> {
        let state = self.lock();
        let counted = |sample: &&Sample| {
            let name = state
                .versions
                .get(usize::from(sample.version))
                .map_or("", String::as_str);
            sample.is_failure() && (name.is_empty() || !except.contains(&name))
        };
        state
            .kept
            .iter()
            .filter(counted)
            .take(limit)
            .copied()
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // a panic elsewhere leaves the list whole
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Samples that ended in `time`, newest first. They are kept in the order of their ends, but for a few microseconds
/// between reading the clock and taking the lock, so looking back a second too far is enough.
fn recent<'a>(
    kept: &'a [Sample],
    time: &'a impl RangeBounds<Duration>,
) -> impl Iterator<Item = Sample> + 'a {
    let start = match time.start_bound() {
        Bound::Included(start) | Bound::Excluded(start) => {
            start.saturating_sub(Duration::from_secs(1))
        }
        Bound::Unbounded => Duration::ZERO,
    };
    kept.iter()
        .rev()
        .take_while(move |sample| sample.end() >= start)
        .filter(move |sample| time.contains(&sample.end()))
        .copied()
}

fn sum(found: Vec<Sample>) -> Arm {
    let mut latencies: Vec<Duration> = found.iter().map(Sample::latency).collect();
    latencies.sort_unstable();
    let failures = || found.iter().filter(|sample| sample.is_failure());
    Arm {
        requests: found.len() as u64,
        failed: failures().count() as u64,
        p50: quantile(&latencies, 0.5),
        p95: quantile(&latencies, 0.95),
        first: found.iter().map(Sample::due).min(),
        first_failure: failures().map(Sample::end).min(),
        last: found.iter().map(Sample::end).max(),
    }
}

/// The smallest value that at least a part `q` (0 to 1) of the sorted values does not exceed; zero without values.
#[must_use]
pub fn quantile(sorted: &[Duration], q: f64) -> Duration {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(due: u64, latency: u32, status: u16, version: u8) -> Sample {
        Sample {
            due,
            latency,
            status,
            version,
            target: 0,
        }
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<Duration> = (1..=20).map(Duration::from_millis).collect();
        assert_eq!(quantile(&values, 0.5), Duration::from_millis(10));
        assert_eq!(quantile(&values, 0.95), Duration::from_millis(19));
        assert_eq!(quantile(&values, 1.0), Duration::from_millis(20));
        assert_eq!(quantile(&[], 0.95), Duration::ZERO);
    }

    #[test]
    fn arms_and_windows_are_kept_apart() {
        let samples = Samples::new(Instant::now());
        let (v1, v3) = (samples.version("v1"), samples.version("v3"));
        for (due, status, version) in [
            (0, 200, v1),
            (1_000, 500, v3),
            (5_000_000, 200, v3),
            (6_000_000, LATE, 0),
        ] {
            samples.add(sample(due, 1_000, status, version));
        }
        let v3 = samples.arm("v3", ..);
        assert_eq!((v3.requests, v3.failed), (2, 1));
        assert_eq!(v3.first_failure, Some(Duration::from_micros(2_000)));
        assert_eq!(v3.last, Some(Duration::from_micros(5_001_000)));
        assert_eq!(samples.all(Duration::from_secs(3)..).requests, 2);
        assert_eq!(samples.all(..).failed, 2);
        assert_eq!(samples.arm("v9", ..), Arm::default());
    }

    #[test]
    fn a_failure_without_version_belongs_to_everybody() {
        let samples = Samples::new(Instant::now());
        let v3 = samples.version("v3");
        samples.add(sample(0, 1, 500, v3));
        samples.add(sample(1, 1, BROKEN, 0));
        let left = samples.failures(&["v3"], 10);
        assert_eq!(
            left.iter().map(Sample::outcome).collect::<Vec<_>>(),
            ["connection broken"]
        );
    }
}
