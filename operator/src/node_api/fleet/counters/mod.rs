//! Counters of a node, assembled from the frames that it sends.
//!
//! A frame is absolute after a connect or a gap; other frames contain increments. Frames carry a boot ID and a
//! sequence number. A repeated frame is dropped. After a missing frame, increments are meaningless and are dropped
//! until the next absolute frame, which the operator requests. The counters here therefore always equal a past state
//! of the node's own counters, the same numbers that a scrape returns.

use std::collections::BTreeMap;

use jiff::Timestamp;
use node_api::v1;
use operator_core::samples::{Counters, Histogram, Outcome, Snapshot, StatusClass};

use super::FunctionKey;

/// Maximum number of rows (revision × population) of one node: two per rollout, and room for those that are ending.
const MAX_ROWS: usize = 4_096;

/// Result of adding a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node_api) enum FrameResult {
    /// The frame was applied.
    Applied,
    /// A frame with this sequence number was already applied.
    Duplicate,
    /// A frame is missing before it, or its boot ID is new and it is not absolute; it was not applied.
    Gap,
    /// The frame violates the contract; handled like a gap.
    Malformed,
}

impl FrameResult {
    /// Value of the metric's label.
    pub(in crate::node_api) fn label(self) -> &'static str {
        match self {
            Self::Applied => "frame_applied",
            Self::Duplicate => "frame_duplicate",
            Self::Gap => "frame_gap",
            Self::Malformed => "frame_malformed",
        }
    }
}

/// The latency that a plan compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Latency {
    /// Latency up to the response head.
    #[default]
    Head,
    /// Latency up to the last byte of the response.
    Duration,
}

/// Selects counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterSelector<'a> {
    /// Latency that goes into [`Counters::latency`].
    pub latency: Latency,
    /// Population of requests: `live`, `matched`, `shadow`, `synthetic` or `preview`.
    pub population: &'a str,
}

#[derive(Clone, Default)]
struct Row {
    /// Counters without latency.
    counted: Counters,
    head: Histogram,
    duration: Histogram,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RowKey {
    function: FunctionKey,
    revision: String,
    population: String,
}

/// Counters of one node since one start of its process.
pub(super) struct CounterTable {
    boot: u64,
    sequence: Option<u64>,
    at: Option<Timestamp>,
    rows: BTreeMap<RowKey, Row>,
}

impl CounterTable {
    pub(super) fn new(boot: u64) -> Self {
        Self {
            boot,
            sequence: None,
            at: None,
            rows: BTreeMap::new(),
        }
    }

    /// Applies a frame that arrived at `at`.
    pub(super) fn take(&mut self, frame: v1::CounterFrame, at: Timestamp) -> FrameResult {
        let same_boot = frame.boot_id == self.boot;
        if same_boot && self.sequence.is_some_and(|last| frame.sequence <= last) {
            return FrameResult::Duplicate;
        }
        let follows = same_boot
            && self
                .sequence
                .is_some_and(|last| last.checked_add(1) == Some(frame.sequence));
        if !frame.absolute && !follows {
            self.sequence = None;
            return FrameResult::Gap;
        }
        let Some(rows) = read_rows(frame.revisions) else {
            self.sequence = None;
            return FrameResult::Malformed;
        };
        if frame.absolute {
            self.rows.clear();
        }
        for (key, row) in rows {
            if self.rows.len() < MAX_ROWS || self.rows.contains_key(&key) {
                self.rows.entry(key).or_default().add(&row);
            }
        }
        self.boot = frame.boot_id;
        self.sequence = Some(frame.sequence);
        self.at = Some(at);
        FrameResult::Applied
    }

    /// Whether a frame was applied.
    pub(super) fn has_any(&self) -> bool {
        self.at.is_some()
    }

    /// Returns the counters of all revisions of a function, or `None` before the first frame.
    pub(super) fn snapshot(
        &self,
        process: &str,
        key: &FunctionKey,
        selector: CounterSelector<'_>,
    ) -> Option<Snapshot> {
        let at = self.at?;
        let wanted = |row: &&RowKey| row.function == *key && row.population == selector.population;
        let rows = self.rows.keys().filter(wanted);
        let revisions = rows
            .filter_map(|row_key| {
                let row = self.rows.get(row_key)?;
                let latency = match selector.latency {
                    Latency::Head => row.head,
                    Latency::Duration => row.duration,
                };
                let mut counted = row.counted;
                counted.latency = latency;
                Some((row_key.revision.clone(), counted))
            })
            .collect::<BTreeMap<_, _>>();
        (!revisions.is_empty()).then(|| Snapshot {
            process: process.to_owned(),
            boot: Some(self.boot),
            at,
            revisions,
        })
    }

    /// Returns all counters as an absolute frame for another replica.
    pub(super) fn to_frame(&self) -> Option<v1::CounterFrame> {
        let sequence = self.sequence?;
        let at = self.at?;
        Some(v1::CounterFrame {
            boot_id: self.boot,
            sequence,
            absolute: true,
            at: u64::try_from(at.as_millisecond()).unwrap_or(0),
            revisions: self
                .rows
                .iter()
                .map(|(key, row)| row.to_wire(key))
                .collect(),
        })
    }
}

impl Row {
    fn add(&mut self, other: &Self) {
        for outcome in Outcome::ALL {
            for (code, _) in CODES {
                let more = other.counted.of(outcome, code);
                self.counted.add(outcome, code, more);
            }
        }
        self.counted.saturated = self
            .counted
            .saturated
            .saturating_add(other.counted.saturated);
        for (held, more) in [
            (&mut self.head, &other.head),
            (&mut self.duration, &other.duration),
        ] {
            for (slot, more) in held.0.iter_mut().zip(more.0) {
                *slot = slot.saturating_add(more);
            }
        }
    }

    fn to_wire(&self, key: &RowKey) -> v1::RevisionCounters {
        let mut outcomes = Vec::new();
        for outcome in Outcome::ALL {
            for (code, class) in CODES {
                let count = self.counted.of(outcome, code);
                if count > 0 {
                    outcomes.push(v1::OutcomeCount {
                        outcome: outcome.label().to_owned(),
                        code: class.to_owned(),
                        start: String::new(),
                        count,
                    });
                }
            }
        }
        v1::RevisionCounters {
            function: Some((&key.function).into()),
            revision: key.revision.clone(),
            population: key.population.clone(),
            outcomes,
            saturated: self.counted.saturated,
            head: Some(sparse(&self.head)),
            duration: Some(sparse(&self.duration)),
        }
    }
}

/// Status classes, each with a label that parses back to it.
const CODES: [(StatusClass, &str); 3] = [
    (StatusClass::ClientError, "4xx"),
    (StatusClass::ServerError, "5xx"),
    (StatusClass::Other, "2xx"),
];

/// Parses a row; `None` if it has no function, a histogram with an unknown bucket, or two lists of different lengths.
fn read_rows(wire: Vec<v1::RevisionCounters>) -> Option<Vec<(RowKey, Row)>> {
    let mut rows = Vec::with_capacity(wire.len().min(MAX_ROWS));
    for counters in wire.into_iter().take(MAX_ROWS) {
        let key = RowKey {
            function: FunctionKey::from(counters.function.as_ref()?),
            revision: counters.revision,
            population: counters.population,
        };
        let mut row = Row {
            head: histogram(counters.head)?,
            duration: histogram(counters.duration)?,
            ..Row::default()
        };
        row.counted.saturated = counters.saturated;
        for one in counters.outcomes {
            // An outcome from a newer node, which no evaluation uses.
            let Some(outcome) = Outcome::from_label(&one.outcome) else {
                continue;
            };
            row.counted
                .add(outcome, StatusClass::from_label(&one.code), one.count);
        }
        rows.push((key, row));
    }
    Some(rows)
}

fn histogram(wire: Option<v1::Histogram>) -> Option<Histogram> {
    let Some(wire) = wire else {
        return Some(Histogram::default());
    };
    if wire.index.len() != wire.count.len() {
        return None;
    }
    let buckets = wire.index.into_iter().zip(wire.count);
    let buckets =
        buckets.map(|(index, count)| (usize::try_from(index).unwrap_or(usize::MAX), count));
    Histogram::from_sparse(buckets).ok()
}

fn sparse(histogram: &Histogram) -> v1::Histogram {
    let mut wire = v1::Histogram::default();
    for (index, count) in (0_u32..).zip(histogram.0) {
        if count > 0 {
            wire.index.push(index);
            wire.count.push(count);
        }
    }
    wire
}

#[cfg(test)]
mod tests;
