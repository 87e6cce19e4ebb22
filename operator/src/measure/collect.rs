//! Converts series to snapshots.
//!
//! All samples of one scrape carry the time of the scrape, so a snapshot consists of one target's series at one time,
//! with both revisions of a node at the same moment. Targets are distinguished by every label that does not belong to
//! the metric. Two scrapers of one process, or an HA pair, are two targets of one node; the target with the highest
//! counts is used.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use operator_core::samples::{
    Code, Counters, Histogram, Outcome, Rejected, Snapshot, merge, whole,
};

use super::answer::Series;
use super::{Sampled, Wanted};
use crate::node_api::FunctionKey;

/// Series that the queries returned.
#[derive(Default)]
pub(super) struct Scraped {
    pub(super) nodes: Vec<Series>,
    pub(super) starts: Vec<Series>,
    pub(super) requests: Vec<Series>,
    pub(super) saturated: Vec<Series>,
    pub(super) buckets: Vec<Series>,
}

/// Which scrape times become snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moments {
    /// The newest scrape of each process start.
    Newest,
    /// All scrapes.
    All,
}

/// Labels that belong to a metric; the remaining labels identify the target.
const OWN_LABELS: [&str; 10] = [
    "__name__",
    "function_namespace",
    "function",
    "revision",
    "population",
    "outcome",
    "code",
    "start",
    "le",
    "node_name",
];

type Labels = BTreeMap<String, String>;
/// Milliseconds since the Unix epoch.
type Moment = i64;

/// Returns the labels that identify the scrape target of a series.
fn target(metric: &Labels) -> Labels {
    let own = |label: &String| OWN_LABELS.contains(&label.as_str());
    let rest = metric.iter().filter(|(label, _)| !own(label));
    rest.map(|(label, value)| (label.clone(), value.clone()))
        .collect()
}

fn label<'a>(metric: &'a Labels, name: &str) -> &'a str {
    metric.get(name).map_or("", String::as_str)
}

fn moment(seconds: f64) -> Option<Moment> {
    let millis = (seconds * 1000.0).round();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bounded to what a timestamp can express"
    )]
    (millis.abs() < 1e14).then_some(millis as Moment)
}

/// Parses a count, or returns why the value is rejected.
fn number(text: &str) -> Result<f64, Rejected> {
    let value: f64 = text.parse().map_err(|_| Rejected::NotFinite)?;
    whole(value).map(|_| value)
}

/// Counters of one target for one function at one time.
#[derive(Default)]
struct Reading {
    revisions: BTreeMap<String, Revision>,
    rejected: Option<Rejected>,
}

#[derive(Default)]
struct Revision {
    counters: Counters,
    buckets: Vec<(f64, f64)>,
}

impl Reading {
    fn note(&mut self, outcome: Result<(), Rejected>) {
        if let Err(reason) = outcome {
            self.rejected.get_or_insert(reason);
        }
    }

    fn finish(self) -> Result<BTreeMap<String, Counters>, Rejected> {
        if let Some(reason) = self.rejected {
            return Err(reason);
        }
        let mut finished = BTreeMap::new();
        for (name, mut revision) in self.revisions {
            if !revision.buckets.is_empty() {
                let all = revision
                    .buckets
                    .iter()
                    .find(|(bound, _)| bound.is_infinite());
                let (_, count) = all.ok_or(Rejected::BucketAboveCount)?;
                revision.counters.latency = Histogram::from_cumulative(&revision.buckets, *count)?;
            }
            finished.insert(name, revision.counters);
        }
        Ok(finished)
    }
}

type Readings = BTreeMap<(Labels, FunctionKey), BTreeMap<Moment, Reading>>;

pub(super) fn collect(scraped: &Scraped, wanted: &[Wanted], moments: Moments) -> Sampled {
    let targets = Targets::new(scraped);
    let mut readings = Readings::new();
    let requested = Requested::new(wanted);
    read_requests(&scraped.requests, &requested, &mut readings);
    // Only request counters create readings, because they exist for every revision from the start.
    read_saturated(&scraped.saturated, &requested, &mut readings);
    read_buckets(&scraped.buckets, &requested, &mut readings);

    let mut sampled = Sampled::default();
    for ((labels, function), mut by_moment) in readings {
        // At the edge of the window, the queries, which run one after the other, do not return the same samples.
        if moments == Moments::All {
            by_moment.pop_first();
        }
        let mut reject = |reason| *sampled.rejected.entry(reason).or_default() += 1;
        let Some(process) = targets.node(&labels) else {
            reject("unknown_node");
            continue;
        };
        let mut last_of_boot = BTreeMap::new();
        for (at, reading) in by_moment {
            let boot = targets.boot(&labels, at);
            let Ok(time) = Timestamp::from_millisecond(at) else {
                continue;
            };
            match reading.finish() {
                Ok(revisions) => {
                    let snapshot = Snapshot {
                        process: process.to_owned(),
                        boot,
                        at: time,
                        revisions,
                    };
                    let key = match moments {
                        Moments::Newest => (boot, 0),
                        Moments::All => (boot, at),
                    };
                    last_of_boot.insert(key, snapshot);
                }
                Err(reason) => reject(reason.reason()),
            }
        }
        let found = sampled.snapshots.entry(function).or_default();
        found.extend(last_of_boot.into_values());
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

/// Which series were requested: the selectors match every combination of the names in them.
struct Requested<'a>(BTreeMap<FunctionKey, &'a Wanted>);

impl<'a> Requested<'a> {
    fn new(wanted: &'a [Wanted]) -> Self {
        let by_key = wanted.iter().map(|one| (one.function.clone(), one));
        Self(by_key.collect())
    }

    /// Identifies the target, function and revision of a series.
    fn address<'s>(&self, metric: &'s Labels) -> Option<(Labels, FunctionKey, &'s str)> {
        let function = FunctionKey::new(
            label(metric, "function_namespace"),
            label(metric, "function"),
        );
        let wanted = self.0.get(&function)?;
        let revision = label(metric, "revision");
        let requested = wanted.revisions.iter().any(|one| one == revision)
            && wanted.population == label(metric, "population");
        requested.then(|| (target(metric), function, revision))
    }
}

fn read_requests(series: &[Series], requested: &Requested<'_>, readings: &mut Readings) {
    for one in series {
        let Some((labels, function, revision)) = requested.address(&one.metric) else {
            continue;
        };
        let outcome = Outcome::from_label(label(&one.metric, "outcome"));
        let code = Code::from_label(label(&one.metric, "code"));
        let by_moment = readings.entry((labels, function)).or_default();
        for (seconds, text) in &one.values {
            let Some(at) = moment(*seconds) else { continue };
            let reading = by_moment.entry(at).or_default();
            let counters = &mut reading
                .revisions
                .entry(revision.to_owned())
                .or_default()
                .counters;
            let value = number(text).and_then(whole);
            let result = value.map(|value| {
                if let Some(outcome) = outcome {
                    counters.add(outcome, code, value);
                }
            });
            reading.note(result);
        }
    }
}

/// Adds each sample of a series to its reading; times without a request counter are skipped.
fn each_sample(
    series: &[Series],
    requested: &Requested<'_>,
    readings: &mut Readings,
    mut take: impl FnMut(&Labels, &mut Revision, f64) -> Result<(), Rejected>,
) {
    for one in series {
        let Some((labels, function, revision)) = requested.address(&one.metric) else {
            continue;
        };
        let Some(by_moment) = readings.get_mut(&(labels, function)) else {
            continue;
        };
        for (seconds, text) in &one.values {
            let reading = moment(*seconds).and_then(|at| by_moment.get_mut(&at));
            let Some(reading) = reading else { continue };
            let held = reading.revisions.entry(revision.to_owned()).or_default();
            let result = number(text).and_then(|value| take(&one.metric, held, value));
            reading.note(result);
        }
    }
}

fn read_saturated(series: &[Series], requested: &Requested<'_>, readings: &mut Readings) {
    each_sample(series, requested, readings, |_, revision, value| {
        let more = whole(value)?;
        revision.counters.saturated = revision.counters.saturated.saturating_add(more);
        Ok(())
    });
}

fn read_buckets(series: &[Series], requested: &Requested<'_>, readings: &mut Readings) {
    each_sample(series, requested, readings, |metric, revision, value| {
        let bound = label(metric, "le")
            .parse()
            .map_err(|_| Rejected::UnknownBound)?;
        revision.buckets.push((bound, value));
        Ok(())
    });
}

/// Determines the node of a target, and when its process started.
struct Targets {
    nodes: BTreeMap<Labels, String>,
    by_instance: BTreeMap<String, BTreeSet<String>>,
    starts: BTreeMap<Labels, BTreeMap<Moment, u64>>,
}

impl Targets {
    fn new(scraped: &Scraped) -> Self {
        let mut nodes = BTreeMap::new();
        let mut by_instance: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for series in &scraped.nodes {
            let name = label(&series.metric, "node_name");
            if !name.is_empty() {
                nodes.insert(target(&series.metric), name.to_owned());
                let instance = label(&series.metric, "instance").to_owned();
                by_instance
                    .entry(instance)
                    .or_default()
                    .insert(name.to_owned());
            }
        }
        let mut starts: BTreeMap<Labels, BTreeMap<Moment, u64>> = BTreeMap::new();
        for series in &scraped.starts {
            let by_moment = starts.entry(target(&series.metric)).or_default();
            for (seconds, text) in &series.values {
                let started = number(text).and_then(|value| whole(value * 1000.0));
                if let (Some(at), Ok(started)) = (moment(*seconds), started) {
                    by_moment.insert(at, started);
                }
            }
        }
        Self {
            nodes,
            by_instance,
            starts,
        }
    }

    /// Matches by all labels, or else by instance if that is unique to one node.
    fn node(&self, labels: &Labels) -> Option<&str> {
        if let Some(name) = self.nodes.get(labels) {
            return Some(name);
        }
        let names = self.by_instance.get(label(labels, "instance"))?;
        (names.len() == 1).then(|| names.first().map(String::as_str))?
    }

    /// Returns the process start as of that time.
    fn boot(&self, labels: &Labels, at: Moment) -> Option<u64> {
        let starts = self.starts.get(labels)?;
        let known = starts
            .range(..=at)
            .next_back()
            .or_else(|| starts.iter().next());
        known.map(|(_, started)| *started)
    }
}
