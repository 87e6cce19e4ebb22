//! Baselines: the last snapshot of each process, and the growth since then.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use super::counters::Tally;
use super::merge::Snapshot;

/// A node runs one process at a time, two while it is upgraded.
const BOOTS_KEPT: usize = 2;

/// Counts of both revisions in one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arms {
    /// Counts of the candidate.
    pub candidate: Tally,
    /// Counts of stable, the control.
    pub stable: Tally,
}

impl Arms {
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
    pub arms: Arms,
}

/// Growth of the counters of one process since its baseline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIncrement {
    /// Name of the node.
    pub process: String,
    /// Growth of both revisions.
    pub arms: Arms,
    /// Begin of the period of the growth, if known.
    pub since: Option<Timestamp>,
}

/// Baselines of all processes of one rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tracker {
    baselines: BTreeMap<String, Vec<Baseline>>,
    /// Time of the previous evaluation. Everything that a process counted after a later start is new.
    previous_look: Option<Timestamp>,
}

impl Tracker {
    /// Creates a tracker without baselines. Everything that is counted after `since` counts.
    #[must_use]
    pub const fn new(since: Timestamp) -> Self {
        Self {
            baselines: BTreeMap::new(),
            previous_look: Some(since),
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
            previous_look: None,
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
            let arms = Arms::of(snapshot, candidate, stable);
            let new = Baseline {
                boot: snapshot.boot,
                at: snapshot.at,
                arms,
            };
            let boots = self.baselines.entry(snapshot.process.clone()).or_default();
            let Some((arms, since)) = take(boots, new, self.previous_look) else {
                continue;
            };
            let sum = increments
                .entry(snapshot.process.clone())
                .or_insert_with(|| NodeIncrement {
                    process: snapshot.process.clone(),
                    arms: Arms::default(),
                    since,
                });
            sum.arms.candidate.add(&arms.candidate);
            sum.arms.stable.add(&arms.stable);
            // the earlier begin of two boots; unknown if one of them is unknown
            sum.since = sum.since.min(since);
        }
        self.previous_look = Some(now);
        increments.into_values().collect()
    }
}

/// Returns the growth since the matching baseline and moves the baseline; `None` if the snapshot is not newer.
fn take(
    boots: &mut Vec<Baseline>,
    new: Baseline,
    previous_look: Option<Timestamp>,
) -> Option<(Arms, Option<Timestamp>)> {
    if let Some(known) = matching(boots, new.boot) {
        let since = Some(known.at);
        if let Some(growth) = new.arms.since(&known.arms) {
            if growth.is_zero() && new.at <= known.at {
                return None;
            }
            known.at = known.at.max(new.at);
            known.boot = known.boot.or(new.boot);
            known.arms = new.arms;
            return Some((growth, since));
        }
        if known.boot.is_some() {
            // same boot, smaller counters: an older snapshot
            return None;
        }
        // the boot is unknown, and counters never fall: the process was restarted
        *known = new;
        return Some((new.arms, None));
    }
    let followed = boots.iter().any(|b| b.boot < new.boot);
    let young = boots.is_empty() && started_after(new, previous_look);
    boots.push(new);
    boots.sort_by_key(|b| b.boot);
    if boots.len() > BOOTS_KEPT {
        boots.remove(0);
    }
    (followed || young).then_some((new.arms, None))
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

/// Whether everything in a first snapshot was counted after the previous evaluation.
fn started_after(new: Baseline, previous_look: Option<Timestamp>) -> bool {
    let Some(previous) = previous_look else {
        return false;
    };
    let booted_later = new
        .boot
        .and_then(|ms| i64::try_from(ms).ok())
        .is_some_and(|ms| ms > previous.as_millisecond());
    booted_later || new.arms.is_zero()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Code, Counters, Outcome};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000 + second).unwrap()
    }

    fn snapshot(boot: Option<u64>, second: i64, [nc, ns]: [u64; 2]) -> Snapshot {
        let counters = |requests| {
            let mut counters = Counters::default();
            counters.add(Outcome::Ok, Code::Other, requests);
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
            .map(|n| [n.arms.candidate.requests, n.arms.stable.requests])
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
