//! The rows of two versions side by side, in intervals of one length.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use delivery::samples::Tally;
use jiff::{SignedDuration, Timestamp};

use super::recording::{Recording, Row};

/// Limits of the length of an interval in milliseconds.
const INTERVAL: [i64; 2] = [1_000, 3_600_000];
/// Largest number of intervals: a year of minutes.
const MAX_SLOTS: i64 = 600_000;

/// Versions that are played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) stable: String,
    /// `None` plays stable against itself.
    pub(crate) candidate: Option<String>,
    /// Stable's requests are those of this much earlier.
    pub(crate) earlier: Duration,
}

/// Counts of one process in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Recorded {
    pub(crate) stable: Tally,
    pub(crate) candidate: Tally,
    /// Requests that the process had at that time, whichever version served them.
    pub(crate) served: u64,
}

/// Counts of one interval, by process. Empty in a gap of the recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Slot {
    pub(crate) processes: BTreeMap<String, Recorded>,
}

/// A recording, ready to be played.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Timeline {
    pub(crate) versions: Versions,
    /// Length of an interval.
    pub(crate) interval: Duration,
    /// End of the first interval.
    pub(crate) begin: Timestamp,
    pub(crate) slots: Vec<Slot>,
    /// Whether the processes were added, because some served only one of the versions.
    pub(crate) is_merged: bool,
}

impl Timeline {
    /// Arranges the rows of the versions.
    ///
    /// # Errors
    /// A sentence: there are no rows, or none at which both versions served requests.
    pub(crate) fn new(
        recording: &Recording,
        versions: Versions,
        interval: Option<Duration>,
    ) -> Result<Self, String> {
        let rows = placed(recording, &versions)?;
        let interval = match interval {
            Some(interval) => i64::try_from(interval.as_millis()).unwrap_or(i64::MAX),
            None => usual_interval(recording),
        };
        let interval = interval.clamp(INTERVAL[0], INTERVAL[1]);
        let times = rows.iter().map(|(at, ..)| at.as_millisecond());
        let (Some(first), Some(last)) = (times.clone().min(), times.max()) else {
            return Err("the recording has no rows of these versions".to_owned());
        };
        // the end of the interval in which a time is, or is nearly
        let slot_of = |millis: i64| (millis - first + interval / 2) / interval;
        let count = slot_of(last) + 1;
        if count > MAX_SLOTS {
            return Err(format!(
                "the recording has {count} intervals of {} s; play a part of it (--from, --to)",
                interval / 1000
            ));
        }
        let mut slots = vec![Slot::default(); usize::try_from(count).unwrap_or(0)];
        for (at, row, role) in rows {
            let index = usize::try_from(slot_of(at.as_millisecond())).unwrap_or(0);
            if let Some(slot) = slots.get_mut(index) {
                slot.add(row, role);
            }
        }
        let mut timeline = Self {
            versions,
            interval: Duration::from_millis(u64::try_from(interval).unwrap_or(0)),
            begin: Timestamp::from_millisecond(first).unwrap_or(Timestamp::MIN),
            slots,
            is_merged: false,
        };
        timeline.merge_if_apart();
        if timeline.versions.candidate.is_some() && timeline.first_shared().is_none() {
            return Err(
                "there is no interval in which both versions served requests. Give stable's requests of an earlier time, such as \
                 those of the day before: --stable-earlier 24h"
                    .to_owned(),
            );
        }
        Ok(timeline)
    }

    /// Returns the end of an interval.
    pub(crate) fn at(&self, index: usize) -> Timestamp {
        let passed = self.interval.as_millis().saturating_mul(index as u128);
        let passed = SignedDuration::from_millis(i64::try_from(passed).unwrap_or(i64::MAX));
        self.begin.saturating_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// Returns the first interval that ends at or after a time; `None` if the recording ends before.
    pub(crate) fn index_at(&self, time: Timestamp) -> Option<usize> {
        (0..self.slots.len()).find(|index| self.at(*index) >= time)
    }

    /// Returns the number of intervals that a time covers, at least one.
    pub(crate) fn intervals(&self, time: Duration) -> usize {
        let count = time.as_millis() / self.interval.as_millis().max(1);
        usize::try_from(count).unwrap_or(usize::MAX).max(1)
    }

    /// Returns the first interval with requests of both versions.
    pub(crate) fn first_shared(&self) -> Option<usize> {
        self.slots.iter().position(|slot| {
            let both = slot.sum();
            both.stable.requests > 0 && both.candidate.requests > 0
        })
    }

    /// Adds the processes if one of them never served one of the versions: there is nothing to compare within it.
    fn merge_if_apart(&mut self) {
        if self.versions.candidate.is_none() {
            return;
        }
        let of = |role: fn(&Recorded) -> u64| -> BTreeSet<&String> {
            let all = self.slots.iter().flat_map(|slot| &slot.processes);
            all.filter(|(_, recorded)| role(recorded) > 0)
                .map(|(name, _)| name)
                .collect()
        };
        self.is_merged = of(|one| one.stable.requests) != of(|one| one.candidate.requests);
        if !self.is_merged {
            return;
        }
        for slot in &mut self.slots {
            if !slot.processes.is_empty() {
                slot.processes = [("all".to_owned(), slot.sum())].into();
            }
        }
    }
}

impl Slot {
    /// Returns the counts of all processes.
    pub(crate) fn sum(&self) -> Recorded {
        let mut sum = Recorded::default();
        for one in self.processes.values() {
            sum.stable.add(&one.stable);
            sum.candidate.add(&one.candidate);
            sum.served += one.served;
        }
        sum
    }

    fn add(&mut self, row: &Row, role: Role) {
        let recorded = self.processes.entry(row.process.clone()).or_default();
        match role {
            Role::Stable => recorded.stable.add(&row.tally),
            Role::Candidate => recorded.candidate.add(&row.tally),
            Role::Served => recorded.served += row.tally.requests,
        }
    }
}

/// What the counts of a row are used as.
#[derive(Clone, Copy)]
enum Role {
    Stable,
    Candidate,
    /// The number of requests that there were.
    Served,
}

fn rows_of<'a>(recording: &'a Recording, name: &str) -> impl Iterator<Item = &'a Row> {
    recording
        .rows
        .iter()
        .filter(move |row| row.revision == name)
}

/// Returns each row with its time and its roles.
fn placed<'a>(
    recording: &'a Recording,
    versions: &Versions,
) -> Result<Vec<(Timestamp, &'a Row, Role)>, String> {
    let earlier = SignedDuration::try_from(versions.earlier).unwrap_or(SignedDuration::MAX);
    let candidate = versions.candidate.as_deref();
    for name in [Some(versions.stable.as_str()), candidate]
        .into_iter()
        .flatten()
    {
        if rows_of(recording, name).next().is_none() {
            let names: Vec<&str> = recording.revisions().into_iter().map(|it| it.0).collect();
            return Err(format!(
                "the recording has no revision {name}; it has {}",
                names.join(", ")
            ));
        }
    }
    let mut rows: Vec<_> = rows_of(recording, &versions.stable)
        .filter_map(|row| Some((row.at.checked_add(earlier).ok()?, row, Role::Stable)))
        .collect();
    let Some(candidate) = candidate else {
        rows.extend(rows_of(recording, &versions.stable).map(|row| (row.at, row, Role::Served)));
        return Ok(rows);
    };
    rows.extend(rows_of(recording, candidate).map(|row| (row.at, row, Role::Candidate)));
    // with a shift, only the time of the candidate and of stable before it is played
    let (first, last) = (
        rows.iter().map(|(at, ..)| *at).min(),
        rows.iter().map(|(at, ..)| *at).max(),
    );
    let inside = |at: Timestamp| first.is_some_and(|f| at >= f) && last.is_some_and(|l| at <= l);
    let both = [versions.stable.as_str(), candidate];
    let served = recording.rows.iter();
    let served = served.filter(|row| both.contains(&row.revision.as_str()) && inside(row.at));
    rows.extend(served.map(|row| (row.at, row, Role::Served)));
    Ok(rows)
}

/// Returns the usual time between two rows of a version in a process: the median, in milliseconds.
fn usual_interval(recording: &Recording) -> i64 {
    let mut last: BTreeMap<(&str, &str), Timestamp> = BTreeMap::new();
    let mut apart = Vec::new();
    for row in &recording.rows {
        let key = (row.process.as_str(), row.revision.as_str());
        if let Some(before) = last.insert(key, row.at) {
            apart.push(row.at.as_millisecond() - before.as_millisecond());
        }
    }
    apart.sort_unstable();
    let median = apart.get(apart.len() / 2).copied().unwrap_or(INTERVAL[0]);
    // scrapes are some milliseconds early or late
    (median + 500) / 1_000 * 1_000
}
