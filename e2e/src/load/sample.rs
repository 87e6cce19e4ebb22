//! Results of the requests of a load generator.

use std::{
    ops::{Bound, RangeBounds},
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
/// Status of a request without a response in time.
pub(super) const LATE: u16 = 0;
/// Status of a request whose connection failed before the response was complete.
pub(super) const BROKEN: u16 = 1;
/// Status of a request that was not sent because too many were in flight.
pub(super) const OVERRUN: u16 = 2;

/// Number of requests that are recorded individually (48 MB, an hour at 800 requests/s). Further ones are only
/// counted.
const KEPT: usize = 3_000_000;

/// Result of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Scheduled time, in microseconds since the start of the generator.
    due: u64,
    /// Time from then until the end of the response, in microseconds.
    latency: u32,
    /// HTTP status code, or one of the constants above.
    status: u16,
    /// Index in the list of versions.
    version: u8,
    /// Index in the list of targets.
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

    /// Returns the scheduled time, since the start of the generator.
    #[must_use]
    pub const fn due(&self) -> Duration {
        Duration::from_micros(self.due)
    }

    /// Returns the time of the complete response, since the start of the generator.
    #[must_use]
    pub fn end(&self) -> Duration {
        self.due() + self.latency()
    }

    /// Returns the time from the schedule to the end of the response.
    #[must_use]
    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.latency.into())
    }

    /// Returns whether the result is anything but a 2xx response.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !(200..300).contains(&self.status)
    }

    /// Returns the HTTP status, or the reason why there is none.
    #[must_use]
    pub fn outcome(&self) -> String {
        match self.status {
            LATE => "no answer in time".into(),
            BROKEN => "connection broken".into(),
            OVERRUN => "not sent, too many under way".into(),
            status => format!("HTTP {status}"),
        }
    }

    /// Returns the index of the target.
    #[must_use]
    pub fn target(&self) -> usize {
        self.target.into()
    }
}

/// Summary of the requests that one version answered. Times are since the start of the generator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arm {
    /// Number of responses.
    pub requests: u64,
    /// Number of those responses that are not 2xx.
    pub failed: u64,
    /// Median of the latency.
    pub p50: Duration,
    /// 95th percentile of the latency.
    pub p95: Duration,
    /// Scheduled time of the first request.
    pub first: Option<Duration>,
    /// Time of the response to the first failed request.
    pub first_failure: Option<Duration>,
    /// Time of the last response.
    pub last: Option<Duration>,
}

/// All requests so far, in the order in which they ended.
#[derive(Debug)]
pub struct Samples {
    begin: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    kept: Vec<Sample>,
    /// Number of requests beyond [`KEPT`].
    beyond: u64,
    /// Names of versions. Index 0 stands for responses without a version.
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

    /// Returns the start of the generator, to which all times are relative.
    #[must_use]
    pub const fn begin(&self) -> Instant {
        self.begin
    }

    /// Returns the time since the start of the generator.
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

    /// Returns the index of a version. Versions beyond the 255th are recorded without a name.
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

    /// Returns the number of requests that were not recorded individually. Above 0 the summaries are incomplete.
    #[must_use]
    pub fn beyond(&self) -> u64 {
        self.lock().beyond
    }

    /// Returns the versions that answered, in the order of their first responses.
    #[must_use]
    pub fn versions(&self) -> Vec<String> {
        self.lock()
            .versions
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect()
    }

    /// Returns the summary of the responses of one version that ended in `time`. The empty name selects responses
    /// without a version.
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

    /// Returns the summary of all requests that ended in `time`.
    #[must_use]
    pub fn all(&self, time: impl RangeBounds<Duration>) -> Arm {
        let found = recent(&self.lock().kept, &time).collect();
        sum(found)
    }

    /// Returns the number of responses of a version that took at least `bound`, and the time of the first.
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

    /// Returns the failed requests of all versions but `except`, oldest first, at most `limit`.
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
        // a panic elsewhere leaves the list consistent
        self.state.lock()
    }
}

/// Returns the samples that ended in `time`, newest first. Their order differs from the order of their ends by a few
/// microseconds at most (between reading the clock and taking the lock), so searching one second further is enough.
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

/// Returns the quantile `q` (0 to 1): the smallest value that at least this part of the sorted values does not
/// exceed. Zero without values.
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
    fn a_failure_without_version_is_never_excluded() {
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
