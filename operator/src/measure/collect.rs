//! Converts series to snapshots while they are read.
//!
//! All samples of one scrape carry the time of the scrape, so a snapshot consists of one target's series at one time,
//! with both revisions of a node at the same moment. What is kept is bounded by what was asked for: counters of the functions
//! in the query, at the scrapes of the verified targets.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use operator_core::samples::{
    Counters, Histogram, InvalidSnapshot, Outcome, Snapshot, StatusClass, merge, whole,
};

use super::answer::Series;
use super::targets::{Scrapes, Targets};
use super::{SampleQuery, Sampled};
use crate::node_api::FunctionKey;

/// Which scrapes become snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moments {
    /// The newest scrape of each process.
    Newest,
    /// All scrapes of a target that are at least this many milliseconds apart.
    All {
        /// Minimum distance in milliseconds; 0 keeps all.
        apart: Moment,
    },
}

pub(super) type Labels = BTreeMap<String, String>;
/// Milliseconds since the Unix epoch.
pub(super) type Moment = i64;

/// Maximum number of unknown targets that are counted.
const MAX_UNKNOWN: usize = 64;

pub(super) fn label<'a>(metric: &'a Labels, name: &str) -> &'a str {
    metric.get(name).map_or("", String::as_str)
}

pub(super) fn moment(seconds: f64) -> Option<Moment> {
    let millis = (seconds * 1000.0).round();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bounded to what a timestamp can express"
    )]
    (millis.abs() < 1e14).then_some(millis as Moment)
}

/// Parses a count, or returns why the value is rejected.
pub(super) fn number(text: &str) -> Result<f64, InvalidSnapshot> {
    let value: f64 = text.parse().map_err(|_| InvalidSnapshot::NotFinite)?;
    whole(value).map(|_| value)
}

/// Counters of one target for one function at one time.
#[derive(Default)]
struct Reading {
    /// By the position of the revision in [`SampleQuery::revisions`].
    revisions: BTreeMap<usize, Revision>,
    rejected: Option<InvalidSnapshot>,
}

/// Values of the series of one revision. Of two series with the same labels, which a scraper that renames targets produces, the
/// larger value is used: a sum would count twice.
#[derive(Default)]
struct Revision {
    requests: Vec<((Outcome, Status, Start), u64)>,
    saturated: u64,
    buckets: Vec<(f64, f64)>,
}

/// First letter of the label `code`, such as `2` of `2xx`.
type Status = u8;
/// First letter of the label `start`.
type Start = u8;

impl Reading {
    fn note(&mut self, outcome: Result<(), InvalidSnapshot>) {
        if let Err(reason) = outcome {
            self.rejected.get_or_insert(reason);
        }
    }

    fn finish(self, revisions: &[String]) -> Result<BTreeMap<String, Counters>, InvalidSnapshot> {
        if let Some(reason) = self.rejected {
            return Err(reason);
        }
        let mut finished = BTreeMap::new();
        for (index, revision) in self.revisions {
            if let Some(name) = revisions.get(index) {
                finished.insert(name.clone(), revision.finish()?);
            }
        }
        Ok(finished)
    }
}

impl Revision {
    fn finish(self) -> Result<Counters, InvalidSnapshot> {
        let mut counters = Counters::default();
        counters.saturated = self.saturated;
        for ((outcome, status, _), requests) in self.requests {
            let code = match status {
                b'4' => StatusClass::ClientError,
                b'5' => StatusClass::ServerError,
                _ => StatusClass::Other,
            };
            counters.add(outcome, code, requests);
        }
        if !self.buckets.is_empty() {
            let mut all = self.buckets.iter();
            let all = all.find(|(bound, _)| bound.is_infinite());
            let (_, count) = all.ok_or(InvalidSnapshot::BucketAboveCount)?;
            counters.latency = Histogram::from_cumulative(&self.buckets, *count)?;
        }
        Ok(counters)
    }
}

/// Sets the value of a key, or raises it if it is smaller.
fn raise<K: PartialEq, V: PartialOrd>(values: &mut Vec<(K, V)>, key: K, value: V) {
    match values.iter_mut().find(|(held, _)| *held == key) {
        Some((_, held)) if *held < value => *held = value,
        Some(_) => {}
        None => values.push((key, value)),
    }
}

/// Counters of a group of functions, as they are read.
pub(super) struct Collector<'a> {
    targets: &'a Targets,
    wanted: &'a [SampleQuery],
    by_key: BTreeMap<&'a FunctionKey, usize>,
    /// By target and position in `wanted`.
    readings: BTreeMap<(usize, usize), BTreeMap<Moment, Reading>>,
    unknown: BTreeSet<String>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(targets: &'a Targets, wanted: &'a [SampleQuery]) -> Self {
        let by_key = wanted.iter().enumerate();
        Self {
            targets,
            wanted,
            by_key: by_key.map(|(index, one)| (&one.function, index)).collect(),
            readings: BTreeMap::new(),
            unknown: BTreeSet::new(),
        }
    }

    /// Identifies function and revision of a series: the selectors match every combination of the names in them.
    fn requested(&self, metric: &Labels) -> Option<(usize, usize)> {
        let function = FunctionKey::new(
            label(metric, "function_namespace"),
            label(metric, "function"),
        );
        let index = *self.by_key.get(&function)?;
        let wanted = self.wanted.get(index)?;
        let revision = label(metric, "revision");
        let revision = wanted.revisions.iter().position(|one| one == revision)?;
        (wanted.population == label(metric, "population")).then_some((index, revision))
    }

    /// Reads a series of `selvage_requests_total`. Only these create readings, because they exist for every revision from the
    /// start.
    pub(super) fn requests(&mut self, series: &Series) {
        let outcome = Outcome::from_label(label(&series.metric, "outcome"));
        let first = |name| label(&series.metric, name).bytes().next().unwrap_or(0);
        let (status, start) = (first("code"), first("start"));
        self.each_sample(series, true, |revision, value| {
            let value = whole(value)?;
            if let Some(outcome) = outcome {
                raise(&mut revision.requests, (outcome, status, start), value);
            }
            Ok(())
        });
    }

    /// Reads a series of `selvage_saturated_total`.
    pub(super) fn saturated(&mut self, series: &Series) {
        self.each_sample(series, false, |revision, value| {
            revision.saturated = revision.saturated.max(whole(value)?);
            Ok(())
        });
    }

    /// Reads a bucket of a histogram of latencies.
    pub(super) fn bucket(&mut self, series: &Series) {
        let bound: Result<f64, InvalidSnapshot> = label(&series.metric, "le")
            .parse()
            .map_err(|_| InvalidSnapshot::UnknownBound);
        self.each_sample(series, false, |revision, value| {
            raise(&mut revision.buckets, bound?, value);
            Ok(())
        });
    }

    fn each_sample(
        &mut self,
        series: &Series,
        creates: bool,
        mut take: impl FnMut(&mut Revision, f64) -> Result<(), InvalidSnapshot>,
    ) {
        let Some((wanted, revision)) = self.requested(&series.metric) else {
            return;
        };
        let targets = self.targets;
        let Some((target, scrapes)) = targets.find(&series.metric) else {
            if self.unknown.len() < MAX_UNKNOWN {
                let instance = label(&series.metric, "instance");
                self.unknown.insert(instance.to_owned());
            }
            return;
        };
        let by_moment = self.readings.entry((target, wanted)).or_default();
        for (seconds, text) in &series.values {
            let at = moment(*seconds).filter(|at| scrapes.contains_key(at));
            let Some(at) = at.filter(|at| creates || by_moment.contains_key(at)) else {
                continue;
            };
            let reading = by_moment.entry(at).or_default();
            let held = reading.revisions.entry(revision).or_default();
            let result = number(text).and_then(|value| take(held, value));
            reading.note(result);
        }
    }

    /// Returns the snapshots of every function.
    pub(super) fn finish(self, moments: Moments) -> Sampled {
        let mut sampled = Sampled::default();
        let mut reject = |reason, count| {
            if count > 0 {
                *sampled.rejected.entry(reason).or_default() += count;
            }
        };
        reject(
            "unknown_node",
            u64::try_from(self.unknown.len()).unwrap_or(0),
        );
        for ((target, wanted), by_moment) in self.readings {
            let scrapes = self.targets.scrapes(target);
            let (Some(scrapes), Some(wanted)) = (scrapes, self.wanted.get(wanted)) else {
                continue;
            };
            let (found, rejected) = snapshots(by_moment, scrapes, &wanted.revisions, moments);
            for reason in rejected {
                reject(reason.reason(), 1);
            }
            let all = sampled.snapshots.entry(wanted.function.clone());
            all.or_default().extend(found);
        }
        sampled.snapshots.retain(|_, snapshots| {
            if moments == Moments::Newest {
                *snapshots = merge(std::mem::take(snapshots));
            }
            snapshots.sort_by_key(|snapshot| snapshot.at);
            !snapshots.is_empty()
        });
        sampled
    }
}

/// Returns the snapshots of one target, and why readings were left out.
fn snapshots(
    by_moment: BTreeMap<Moment, Reading>,
    scrapes: &Scrapes,
    revisions: &[String],
    moments: Moments,
) -> (impl Iterator<Item = Snapshot> + use<>, Vec<InvalidSnapshot>) {
    let (mut found, mut rejected) = (BTreeMap::new(), Vec::new());
    for (at, reading) in by_moment {
        let (Some(scrape), Ok(time)) = (scrapes.get(&at), Timestamp::from_millisecond(at)) else {
            continue;
        };
        match reading.finish(revisions) {
            Ok(revisions) => {
                let snapshot = Snapshot {
                    process: scrape.node.as_ref().to_owned(),
                    boot: Some(scrape.boot),
                    at: time,
                    revisions,
                };
                let key = match moments {
                    Moments::Newest => (scrape.boot, 0),
                    Moments::All { .. } => (scrape.boot, at),
                };
                found.insert(key, snapshot);
            }
            Err(reason) => rejected.push(reason),
        }
    }
    (found.into_values(), rejected)
}
