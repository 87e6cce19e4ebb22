//! Points of the charts: how the newest rollout of each function went, as this replica has seen it.
//!
//! The status has the present figures only, so the points are collected from its versions. They are lost when the replica
//! ends. Their number is bounded: when a rollout has too many, every second one is dropped.

use std::collections::HashMap;

use crds::EdgeFunction;
use crds::function::EdgeFunctionStatus;
use crds::rollout::RolloutStatus;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::evidence;
use crate::watch::ObjectKey;

/// Maximum number of points of a rollout.
const MAX_POINTS: usize = 160;
/// Maximum number of metrics with points.
const MAX_METRICS: usize = 8;
/// Maximum number of functions with points.
const MAX_RECORDS: usize = 1_000;

/// The records of all functions that have had a rollout since the replica started.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    records: HashMap<ObjectKey, Record>,
}

/// The points of one rollout.
#[derive(Debug, Clone)]
pub(super) struct Record {
    revision: String,
    started_at: Option<Timestamp>,
    /// Names of the metrics, in the order of [`Point::rates`].
    pub(super) metrics: Vec<String>,
    pub(super) points: Vec<Point>,
    /// Minimum time between two points with equal weights.
    spacing: SignedDuration,
    is_running: bool,
}

/// What was known at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Point {
    /// Milliseconds since 1970.
    pub(super) at: i64,
    /// Weight of the candidate in basis points (1/10,000).
    pub(super) weight: u32,
    /// Combined evidence against the candidate.
    pub(super) evidence: Option<f64>,
    /// Rates of candidate and stable, for each metric.
    pub(super) rates: Vec<Option<(f32, f32)>>,
}

impl Recorder {
    /// Takes over the newest version of a function; `None` if it was deleted.
    pub(super) fn record(
        &mut self,
        key: &ObjectKey,
        function: Option<&EdgeFunction>,
        now: Timestamp,
    ) {
        let Some(function) = function else {
            self.records.remove(key);
            return;
        };
        let Some((status, rollout)) = function
            .status
            .as_ref()
            .and_then(|status| Some((status, status.rollout.as_ref()?)))
        else {
            return;
        };
        let candidate = status.candidate.as_ref().filter(|_| rollout.is_running());
        let Some(candidate) = candidate else {
            if let Some(record) = self.records.get_mut(key).filter(|it| it.is_running) {
                record.is_running = false;
                record.add(status, rollout, now);
            }
            return;
        };
        let started_at = rollout.started_at.as_ref().map(|at| at.0);
        let is_same =
            |it: &Record| it.revision == candidate.revision && it.started_at == started_at;
        if !self.records.get(key).is_some_and(is_same) {
            self.records.remove(key);
            self.make_room();
            let record = Record::new(candidate.revision.clone(), started_at);
            self.records.insert(key.clone(), record);
        }
        if let Some(record) = self.records.get_mut(key) {
            record.add(status, rollout, now);
        }
    }

    /// Returns the points of the newest rollout of a function.
    pub(super) fn record_of(&self, key: &ObjectKey) -> Option<&Record> {
        self.records.get(key)
    }

    /// Drops the record that was not extended for the longest time, finished rollouts first.
    fn make_room(&mut self) {
        if self.records.len() < MAX_RECORDS {
            return;
        }
        let age = |record: &Record| record.points.last().map(|point| point.at);
        let oldest = self
            .records
            .iter()
            .min_by_key(|(_, record)| (record.is_running, age(record)));
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.records.remove(&key);
        }
    }
}

impl Record {
    const fn new(revision: String, started_at: Option<Timestamp>) -> Self {
        Self {
            revision,
            started_at,
            metrics: Vec::new(),
            points: Vec::new(),
            spacing: SignedDuration::from_secs(1),
            is_running: true,
        }
    }

    fn add(&mut self, status: &EdgeFunctionStatus, rollout: &RolloutStatus, now: Timestamp) {
        let share = status
            .traffic
            .iter()
            .find(|entry| entry.revision == self.revision);
        let mut point = Point {
            at: now.as_millisecond(),
            weight: share.map_or(0, |entry| entry.weight),
            evidence: None,
            rates: vec![None; self.metrics.len()],
        };
        if let Some(measured) = &rollout.evidence {
            point.evidence = evidence::combined(measured);
            for metric in &measured.metrics {
                let known = self.metrics.iter().position(|name| *name == metric.name);
                let rates = evidence::rates(metric).map(single);
                match known.and_then(|at| point.rates.get_mut(at)) {
                    Some(slot) => *slot = rates,
                    None if self.metrics.len() < MAX_METRICS => {
                        self.metrics.push(metric.name.clone());
                        point.rates.push(rates);
                    }
                    None => {}
                }
            }
        }
        self.push(point);
    }

    fn push(&mut self, point: Point) {
        if let [.., before, last] = self.points.as_mut_slice() {
            let is_close = point.at - before.at < self.spacing.as_millis() as i64;
            if last.weight == point.weight && before.weight == point.weight && is_close {
                *last = point;
                return;
            }
        }
        self.points.push(point);
        if self.points.len() > MAX_POINTS {
            self.thin_out();
        }
    }

    /// Drops every second point, but none at which the weight changed, as long as there are enough others.
    fn thin_out(&mut self) {
        self.spacing *= 2;
        let points = std::mem::take(&mut self.points);
        let last = points.len().saturating_sub(1);
        let mut weight = None;
        for (at, point) in points.into_iter().enumerate() {
            let has_changed = weight.replace(point.weight) != Some(point.weight);
            if has_changed || at == last || at % 2 == 0 {
                self.points.push(point);
            }
        }
        if self.points.len() > MAX_POINTS {
            self.points.remove(0);
        }
    }
}

/// Rates are drawn, so single precision is enough.
#[allow(clippy::cast_possible_truncation, reason = "shares between 0 and 1")]
const fn single((candidate, stable): (f64, f64)) -> (f32, f32) {
    (candidate as f32, stable as f32)
}
