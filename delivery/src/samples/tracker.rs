//! Baselines: the last snapshot of each process, and the growth since then.

use std::collections::BTreeMap;

use jiff::fmt::serde::timestamp::millisecond;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::counters::Tally;
use super::merge::Snapshot;

/// Maximum number of boots of one process that are kept. A node runs one process at a time and two while it is upgraded. More
/// appear when a source of samples confuses nodes; the boot that was read last stays.
const BOOTS_KEPT: usize = 8;
/// A boot that was not read for this long is forgotten when another one appears.
const BOOT_RETENTION: SignedDuration = SignedDuration::from_mins(15);

/// Counts of both revisions in one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionTallies {
    /// Counts of the candidate.
    pub candidate: Tally,
    /// Counts of stable, the control.
    pub stable: Tally,
}

impl RevisionTallies {
    /// Takes the counts of the two revisions from a snapshot.
    #[must_use]
    pub fn of(snapshot: &Snapshot, candidate: &str, stable: &str) -> Self {
        let tally = |revision: &str| {
            snapshot
                .revisions
                .get(revision)
                .map(super::Counters::tally)
                .unwrap_or_default()
        };
        Self {
            candidate: tally(candidate),
            stable: tally(stable),
        }
    }

    fn since(&self, older: &Self) -> Option<Self> {
        Some(Self {
            candidate: self.candidate.since(&older.candidate)?,
            stable: self.stable.since(&older.stable)?,
        })
    }

    fn is_zero(&self) -> bool {
        self.candidate.is_zero() && self.stable.is_zero()
    }
}

/// Last snapshot of one boot of a process that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Start of the process in Unix milliseconds; `None` if unknown.
    pub boot: Option<u64>,
    /// Time at which the snapshot was read.
    #[serde(with = "millisecond::required")]
    pub at: Timestamp,
    /// Counters of the snapshot.
    pub tallies: RevisionTallies,
    /// A later snapshot with smaller counters. If the next one continues it, the counters were reset, or the baseline was wrong.
    #[serde(skip)]
    fallen: Option<(Timestamp, RevisionTallies)>,
}

/// Growth of the counters of one process since its baseline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIncrement {
    /// Name of the node.
    pub process: String,
    /// Growth of both revisions.
    pub tallies: RevisionTallies,
    /// Begin of the period of the growth, if known.
    pub since: Option<Timestamp>,
    /// End of the period of the growth.
    pub until: Timestamp,
}

impl NodeIncrement {
    /// Returns the length of the period of the growth in seconds; `None` if it is unknown or empty.
    #[must_use]
    pub fn seconds(&self) -> Option<f64> {
        let length = self.until.duration_since(self.since?).as_secs_f64();
        (length > 0.0).then_some(length)
    }
}

/// Baselines of all processes of one rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tracker {
    baselines: BTreeMap<String, Vec<Baseline>>,
    /// Time of the previous evaluation. Everything that a process counted after a later start is new.
    previous_evaluation: Option<Timestamp>,
}

impl Tracker {
    /// Creates a tracker without baselines. Everything that is counted after `since` counts.
    #[must_use]
    pub const fn new(since: Timestamp) -> Self {
        Self {
            baselines: BTreeMap::new(),
            previous_evaluation: Some(since),
        }
    }

    /// Restores a tracker from persisted baselines. The first snapshot of a process without one only sets its baseline, even if
    /// the process seems to have started recently: clocks may differ, and counting twice is worse than counting late.
    #[must_use]
    pub fn resume(kept: impl IntoIterator<Item = (String, Baseline)>) -> Self {
        let mut baselines: BTreeMap<String, Vec<Baseline>> = BTreeMap::new();
        for (process, baseline) in kept {
            baselines.entry(process).or_default().push(baseline);
        }
        Self {
            baselines,
            previous_evaluation: None,
        }
    }

    /// Returns all baselines by process.
    pub fn baselines(&self) -> impl Iterator<Item = (&String, &Baseline)> {
        self.baselines
            .iter()
            .flat_map(|(process, boots)| boots.iter().map(move |b| (process, b)))
    }

    /// Returns the time at which the newest used snapshot of the process was read.
    #[must_use]
    pub fn last_seen(&self, process: &str) -> Option<Timestamp> {
        self.baselines
            .get(process)?
            .iter()
            .map(|baseline| baseline.at)
            .max()
    }

    /// Takes the merged snapshots of one evaluation and returns the growth, in the order of process names. An increment of
    /// zero is returned too: it shows that the process reported.
    pub fn advance<'a>(
        &mut self,
        now: Timestamp,
        snapshots: impl IntoIterator<Item = &'a Snapshot>,
        candidate: &str,
        stable: &str,
    ) -> Vec<NodeIncrement> {
        let mut increments: BTreeMap<String, NodeIncrement> = BTreeMap::new();
        for snapshot in snapshots {
            let tallies = RevisionTallies::of(snapshot, candidate, stable);
            let new = Baseline {
                boot: snapshot.boot,
                at: snapshot.at,
                tallies,
                fallen: None,
            };
            let boots = self.baselines.entry(snapshot.process.clone()).or_default();
            let Some((tallies, since)) = take(boots, new, self.previous_evaluation) else {
                continue;
            };
            let sum = increments
                .entry(snapshot.process.clone())
                .or_insert_with(|| NodeIncrement {
                    process: snapshot.process.clone(),
                    tallies: RevisionTallies::default(),
                    since,
                    until: snapshot.at,
                });
            sum.tallies.candidate.add(&tallies.candidate);
            sum.tallies.stable.add(&tallies.stable);
            // the earlier begin of two boots; unknown if one of them is unknown
            sum.since = sum.since.min(since);
            sum.until = sum.until.max(snapshot.at);
        }
        self.previous_evaluation = Some(now);
        increments.into_values().collect()
    }
}

/// Returns the growth since the matching baseline and moves the baseline; `None` if nothing of the snapshot counts.
fn take(
    boots: &mut Vec<Baseline>,
    new: Baseline,
    previous_evaluation: Option<Timestamp>,
) -> Option<(RevisionTallies, Option<Timestamp>)> {
    if let Some(known) = matching(boots, new.boot) {
        return continue_from(known, new);
    }
    let read = boots.iter().map(|known| known.at).max();
    // counts of a process that ran when another one of the node was read may have been counted already, or be another node's
    let all_new = started_after(new, read) || started_after(new, previous_evaluation);
    let zero = boots.is_empty() && previous_evaluation.is_some() && new.tallies.is_zero();
    boots.retain(|known| new.at.duration_since(known.at) <= BOOT_RETENTION);
    boots.push(new);
    if boots.len() > BOOTS_KEPT {
        let read_at = |index: &usize| boots.get(*index).map(|known| known.at);
        if let Some(oldest) = (0..boots.len()).min_by_key(read_at) {
            boots.remove(oldest);
        }
    }
    boots.sort_by_key(|b| b.boot);
    (all_new || zero).then_some((new.tallies, None))
}

/// Returns the growth since a baseline of the same process and moves the baseline.
fn continue_from(
    known: &mut Baseline,
    new: Baseline,
) -> Option<(RevisionTallies, Option<Timestamp>)> {
    if let Some(growth) = new.tallies.since(&known.tallies) {
        if growth.is_zero() && new.at <= known.at {
            return None;
        }
        let since = Some(known.at);
        *known = Baseline {
            boot: known.boot.or(new.boot),
            at: known.at.max(new.at),
            ..new
        };
        return Some((growth, since));
    }
    if known.boot.is_none() {
        // the boot is unknown, and counters never fall: the process was restarted
        *known = new;
        return Some((new.tallies, None));
    }
    // same boot, smaller counters: usually an older snapshot, which counts nothing
    if new.at <= known.at {
        return None;
    }
    let fallen = known.fallen.filter(|(at, _)| *at < new.at);
    let continued = fallen.and_then(|(at, tallies)| Some((at, new.tallies.since(&tallies)?)));
    let Some((at, growth)) = continued else {
        known.fallen = known
            .fallen
            .filter(|(at, _)| *at >= new.at)
            .or(Some((new.at, new.tallies)));
        return None;
    };
    let boot = known.boot;
    *known = Baseline { boot, ..new };
    Some((growth, Some(at)))
}

/// Returns the baseline that a snapshot of this boot continues. A snapshot without a boot continues the newest baseline, and
/// any snapshot continues a baseline without a boot, so that a process never has two.
fn matching(boots: &mut [Baseline], boot: Option<u64>) -> Option<&mut Baseline> {
    match boot {
        None => boots.last_mut(),
        Some(_) => boots
            .iter_mut()
            .rev()
            .find(|known| known.boot == boot || known.boot.is_none()),
    }
}

/// Whether the process of a first snapshot started after `time`, so that everything in it was counted after that.
fn started_after(new: Baseline, time: Option<Timestamp>) -> bool {
    let booted = new.boot.and_then(|ms| i64::try_from(ms).ok());
    booted
        .zip(time)
        .is_some_and(|(booted, time)| booted > time.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Counters, Outcome, StatusClass};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000 + second).unwrap()
    }

    fn snapshot(boot: Option<u64>, second: i64, [nc, ns]: [u64; 2]) -> Snapshot {
        let counters = |requests| {
            let mut counters = Counters::default();
            counters.add(Outcome::Ok, StatusClass::Other, requests);
            counters
        };
        Snapshot {
            process: "node".into(),
            boot,
            at: at(second),
            revisions: [("new".into(), counters(nc)), ("old".into(), counters(ns))].into(),
        }
    }

    /// Requests of candidate and stable that are new, or `None` if the snapshot was not used.
    fn new(tracker: &mut Tracker, snapshot: &Snapshot) -> Option<[u64; 2]> {
        tracker
            .advance(snapshot.at, [snapshot], "new", "old")
            .first()
            .map(|n| [n.tallies.candidate.requests, n.tallies.stable.requests])
    }

    /// A process that has counted 10 and 100, read at second 10; it started before the analysis did.
    fn seen(boot: Option<u64>) -> Tracker {
        let mut tracker = Tracker::new(at(0));
        assert_eq!(new(&mut tracker, &snapshot(boot, 10, [10, 100])), None);
        tracker
    }

    const OLD: Option<u64> = Some(900_000);
    const YOUNG: Option<u64> = Some(1_012_000);

    #[test]
    fn counters_of_the_same_boot_continue() {
        let mut tracker = seen(OLD);
        assert_eq!(
            new(&mut tracker, &snapshot(OLD, 15, [13, 150])),
            Some([3, 50])
        );
        assert_eq!(
            new(&mut tracker, &snapshot(OLD, 20, [13, 151])),
            Some([0, 1])
        );
    }

    /// FE-3: a late or repeated snapshot counts nothing.
    #[test]
    fn an_older_snapshot_of_the_same_boot_is_ignored() {
        let mut tracker = seen(OLD);
        assert_eq!(new(&mut tracker, &snapshot(OLD, 15, [11, 99])), None);
        assert_eq!(
            new(&mut tracker, &snapshot(OLD, 20, [12, 110])),
            Some([2, 10])
        );
    }

    /// FE-3: a restarted shim counts from zero.
    #[test]
    fn a_later_boot_counts_from_zero_while_the_old_one_continues() {
        let mut tracker = seen(OLD);
        assert_eq!(
            new(&mut tracker, &snapshot(YOUNG, 15, [4, 40])),
            Some([4, 40])
        );
        assert_eq!(
            new(&mut tracker, &snapshot(OLD, 16, [11, 100])),
            Some([1, 0])
        );
        assert_eq!(
            new(&mut tracker, &snapshot(YOUNG, 20, [5, 44])),
            Some([1, 4])
        );
    }

    /// FE-3: a counter that falls was reset, and is never negative.
    #[test]
    fn an_unknown_boot_that_falls_counts_from_zero() {
        let mut tracker = seen(None);
        assert_eq!(
            new(&mut tracker, &snapshot(None, 15, [12, 3])),
            Some([12, 3])
        );
        assert_eq!(
            new(&mut tracker, &snapshot(None, 20, [12, 5])),
            Some([0, 2])
        );
    }

    #[test]
    fn a_first_snapshot_counts_if_all_of_it_is_new() {
        let fresh = || Tracker::new(at(0));
        assert_eq!(
            new(&mut fresh(), &snapshot(YOUNG, 15, [4, 40])),
            Some([4, 40])
        );
        assert_eq!(new(&mut fresh(), &snapshot(OLD, 15, [0, 0])), Some([0, 0]));
        assert_eq!(new(&mut fresh(), &snapshot(OLD, 15, [0, 1])), None);
        assert_eq!(new(&mut fresh(), &snapshot(None, 15, [4, 40])), None);
    }

    #[test]
    fn after_a_restart_even_a_recently_started_process_only_sets_its_baseline() {
        let mut tracker = Tracker::resume([]);
        assert_eq!(new(&mut tracker, &snapshot(YOUNG, 15, [4, 40])), None);
        assert_eq!(
            new(&mut tracker, &snapshot(YOUNG, 20, [5, 44])),
            Some([1, 4])
        );
    }

    #[test]
    fn a_sometimes_unknown_boot_does_not_create_a_second_baseline() {
        let mut tracker = seen(OLD);
        assert_eq!(
            new(&mut tracker, &snapshot(None, 15, [12, 105])),
            Some([2, 5])
        );
        assert_eq!(
            new(&mut tracker, &snapshot(OLD, 20, [12, 106])),
            Some([0, 1])
        );
        assert_eq!(new(&mut tracker, &snapshot(None, 25, [1, 2])), None);
    }

    /// FE-3: a source that confuses nodes for a while reads other processes under the name of this one. They count nothing and do
    /// not displace it.
    #[test]
    fn processes_of_other_nodes_count_nothing_and_displace_nothing() {
        let mut tracker = seen(OLD);
        for (index, foreign) in (0..20_i64).map(|n| (n, Some(900_001 + n.unsigned_abs()))) {
            let second = 11 + index;
            assert_eq!(
                new(&mut tracker, &snapshot(foreign, second, [500, 5_000])),
                None
            );
            assert_eq!(
                new(&mut tracker, &snapshot(OLD, second, [11, 101])),
                Some(if index == 0 { [1, 1] } else { [0, 0] })
            );
        }
        assert!(tracker.baselines().count() <= BOOTS_KEPT);
        assert_eq!(
            new(&mut tracker, &snapshot(OLD, 40, [15, 110])),
            Some([4, 9])
        );
    }

    /// FE-3: counters that fell within a boot count again from the second snapshot on.
    #[test]
    fn counters_that_stay_below_their_baseline_count_again() {
        let mut tracker = seen(OLD);
        assert_eq!(new(&mut tracker, &snapshot(OLD, 15, [2, 30])), None);
        assert_eq!(new(&mut tracker, &snapshot(OLD, 15, [2, 30])), None);
        assert_eq!(new(&mut tracker, &snapshot(OLD, 20, [3, 35])), Some([1, 5]));
        assert_eq!(
            new(&mut tracker, &snapshot(OLD, 25, [4, 45])),
            Some([1, 10])
        );
    }

    #[test]
    fn a_process_that_started_before_another_was_read_only_sets_its_baseline() {
        let mut tracker = seen(OLD);
        let overlapping = Some(1_009_000);
        assert_eq!(new(&mut tracker, &snapshot(overlapping, 15, [4, 40])), None);
        assert_eq!(
            new(&mut tracker, &snapshot(overlapping, 20, [5, 44])),
            Some([1, 4])
        );
    }

    #[test]
    fn a_revision_that_appears_counts_from_zero() {
        let mut tracker = Tracker::new(at(0));
        let mut first = snapshot(OLD, 10, [0, 100]);
        first.revisions.remove("new");
        assert_eq!(new(&mut tracker, &first), None);
        assert_eq!(
            new(&mut tracker, &snapshot(OLD, 15, [7, 100])),
            Some([7, 0])
        );
    }
}
