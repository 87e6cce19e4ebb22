//! Builds reports: the complete status after a connection, then changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use node_api::v1::{
    CounterFrame, FunctionKey, Histogram, NodeException, OutcomeCount, Report, RevisionCounters,
    RevisionState,
};

use super::NodeStatus;
use crate::clock::Now;

/// Minimum time between two reports.
pub(super) const MIN_GAP: Duration = Duration::from_secs(1);
/// Number of requests since the last counter frame after which the next one is sent before the interval ends.
const EARLY_FRAME_REQUESTS: u64 = 50;

type RevisionId = (String, String, String);
type CounterId = (RevisionId, String);

/// Builds the reports of one stream and tracks what the operator has received.
pub(super) struct Reporter {
    boot_id: u64,
    interval: Duration,
    /// Highest table version that the operator offered on this stream. `applied_version` never exceeds it.
    offered: u64,
    sent: Option<LastReport>,
    frames: CounterProgress,
}

/// States of revisions in a report.
struct ReportedRevisions {
    states: Vec<RevisionState>,
    /// Whether revisions that are not among `states` do not exist.
    complete: bool,
}

/// Content of the last report.
struct LastReport {
    at: Instant,
    status: NodeStatus,
    revisions: BTreeMap<RevisionId, RevisionState>,
}

/// Counters that the operator has received.
struct CounterProgress {
    /// Absolute values at the last frame; `None` makes the next frame absolute.
    base: Option<BTreeMap<CounterId, RevisionCounters>>,
    last: Instant,
    /// [`NodeStatus::counter_generation`] of `base`.
    counter_generation: u64,
}

impl Reporter {
    /// Creates the reporter of a new stream. `resumed_at` is the table version from which the operator resumes; 0 if it
    /// sends a snapshot.
    pub(super) fn new(boot_id: u64, interval: Duration, resumed_at: u64, now: Instant) -> Self {
        Self {
            boot_id,
            interval: interval.max(MIN_GAP),
            offered: resumed_at,
            sent: None,
            frames: CounterProgress {
                base: None,
                last: now,
                counter_generation: 0,
            },
        }
    }

    /// Records that the operator sent a table of this version.
    pub(super) fn offered(&mut self, version: u64) {
        self.offered = self.offered.max(version);
    }

    /// Makes the next counter frame absolute.
    pub(super) fn request_absolute(&mut self) {
        self.frames.base = None;
    }

    /// Returns the report to send now, if one is due. `sequence` is the number of the last counter frame of this boot
    /// and is incremented with each frame.
    pub(super) fn next(
        &mut self,
        status: &NodeStatus,
        counters: Vec<RevisionCounters>,
        sequence: &mut u64,
        now: Now,
    ) -> Option<Report> {
        let too_soon = self
            .sent
            .as_ref()
            .is_some_and(|sent| now.at.duration_since(sent.at) < MIN_GAP);
        if too_soon {
            return None;
        }
        if self.frames.counter_generation != status.counter_generation {
            // Dropped counters may start again at 0. An absolute frame makes the operator drop them too, so that no
            // counter decreases there.
            self.frames.counter_generation = status.counter_generation;
            self.request_absolute();
        }
        let frame = self.frame(counters, sequence, now);
        let unchanged = self
            .sent
            .as_ref()
            .is_some_and(|sent| sent.status == *status);
        // A node without reports for 10 s counts as absent, even if its stream is healthy.
        let overdue = self
            .sent
            .as_ref()
            .is_some_and(|sent| now.at.duration_since(sent.at) >= self.interval);
        if frame.is_none() && unchanged && !overdue {
            return None;
        }
        let ReportedRevisions { states, complete } = self.revisions(status);
        let report = Report {
            applied_version: status.applied.min(self.offered),
            revisions: states,
            revisions_complete: complete,
            exceptions: status.exceptions.clone(),
            exceptions_dropped: status.exceptions_dropped,
            counters: frame,
            functions_desired: status.functions_desired,
            functions_loaded: status.functions_loaded,
            functions_failed: status.functions_failed,
            ready: status.ready,
            remote: self.remote(status),
        };
        let revisions = status
            .revisions
            .iter()
            .map(|state| (id(state), state.clone()))
            .collect();
        self.sent = Some(LastReport {
            at: now.at,
            status: status.clone(),
            revisions,
        });
        Some(report)
    }

    /// Returns the functions of other nodes, for the first report.
    fn remote(&self, status: &NodeStatus) -> Vec<FunctionKey> {
        match self.sent {
            None => status.remote.iter().map(FunctionKey::from).collect(),
            Some(_) => Vec::new(),
        }
    }

    /// Returns the states that changed since the last report. Returns all states for the first report and after a
    /// revision was removed, because changes cannot express a removal.
    fn revisions(&self, status: &NodeStatus) -> ReportedRevisions {
        let all = || ReportedRevisions {
            states: status.revisions.clone(),
            complete: true,
        };
        let Some(sent) = &self.sent else {
            return all();
        };
        let mut still_there = 0;
        let mut changed = Vec::new();
        for state in &status.revisions {
            let before = sent.revisions.get(&id(state));
            still_there += usize::from(before.is_some());
            if before != Some(state) {
                changed.push(state.clone());
            }
        }
        if still_there < sent.revisions.len() {
            all()
        } else {
            ReportedRevisions {
                states: changed,
                complete: false,
            }
        }
    }

    /// Returns the counter frame to send now, if one is due. The first frame is absolute, later ones contain increments.
    fn frame(
        &mut self,
        counters: Vec<RevisionCounters>,
        sequence: &mut u64,
        now: Now,
    ) -> Option<CounterFrame> {
        let absolute = self.frames.base.is_none();
        let base = self.frames.base.get_or_insert_default();
        let empty = RevisionCounters::default();
        let added: Vec<RevisionCounters> = counters
            .iter()
            .map(|one| added(base.get(&counter_id(one)).unwrap_or(&empty), one))
            .collect();
        if !absolute {
            let due = now.at.duration_since(self.frames.last) >= self.interval;
            let outcomes = added.iter().flat_map(|one| &one.outcomes);
            let requests: u64 = outcomes.map(|outcome| outcome.count).sum();
            if counters.is_empty() || !(due || requests >= EARLY_FRAME_REQUESTS) {
                return None;
            }
        }
        // Counters that are not reported now keep their base because they may be reported again.
        base.extend(counters.iter().map(|one| (counter_id(one), one.clone())));
        self.frames.last = now.at;
        *sequence += 1;
        Some(CounterFrame {
            boot_id: self.boot_id,
            sequence: *sequence,
            absolute,
            at: now.wall,
            revisions: if absolute { counters } else { added },
        })
    }
}

fn id(state: &RevisionState) -> RevisionId {
    let key = state.function.clone().unwrap_or_default();
    (key.namespace, key.name, state.revision.clone())
}

fn counter_id(counters: &RevisionCounters) -> CounterId {
    let key = counters.function.clone().unwrap_or_default();
    (
        (key.namespace, key.name, counters.revision.clone()),
        counters.population.clone(),
    )
}

/// Returns the increments from `before` to `after`, both absolute.
fn added(before: &RevisionCounters, after: &RevisionCounters) -> RevisionCounters {
    let count_before = |wanted: &OutcomeCount| {
        before
            .outcomes
            .iter()
            .find(|one| {
                one.outcome == wanted.outcome
                    && one.code == wanted.code
                    && one.start == wanted.start
            })
            .map_or(0, |one| one.count)
    };
    let outcomes = after
        .outcomes
        .iter()
        .map(|one| OutcomeCount {
            count: one.count.saturating_sub(count_before(one)),
            ..one.clone()
        })
        .filter(|one| one.count > 0)
        .collect();
    RevisionCounters {
        outcomes,
        saturated: after.saturated.saturating_sub(before.saturated),
        head: histogram_added(before.head.as_ref(), after.head.as_ref()),
        duration: histogram_added(before.duration.as_ref(), after.duration.as_ref()),
        ..after.clone()
    }
}

fn histogram_added(before: Option<&Histogram>, after: Option<&Histogram>) -> Option<Histogram> {
    let after = after?;
    let old: BTreeMap<u32, u64> = before
        .map(|before| {
            before
                .index
                .iter()
                .copied()
                .zip(before.count.iter().copied())
                .collect()
        })
        .unwrap_or_default();
    let (index, count) = after
        .index
        .iter()
        .zip(&after.count)
        .map(|(index, count)| {
            (
                *index,
                count.saturating_sub(old.get(index).copied().unwrap_or_default()),
            )
        })
        .filter(|(_, count)| *count > 0)
        .unzip();
    let sum_before = before.map_or(0.0, |before| before.sum_seconds);
    Some(Histogram {
        index,
        count,
        sum_seconds: (after.sum_seconds - sum_before).max(0.0),
    })
}

/// Maximum number of exceptions in a report; the others are only counted.
const MAX_EXCEPTIONS: usize = 64;
/// Maximum length of an exception's message, in bytes.
const MAX_MESSAGE: usize = 256;

/// Limits the number of exceptions and the length of their messages. Keeps the oldest ones and returns the number of
/// the others.
pub(crate) fn limit_exceptions(mut exceptions: Vec<NodeException>) -> (Vec<NodeException>, u32) {
    exceptions
        .sort_by(|a, b| (a.since, &a.reason, &a.revision).cmp(&(b.since, &b.reason, &b.revision)));
    let dropped = exceptions.len().saturating_sub(MAX_EXCEPTIONS);
    exceptions.truncate(MAX_EXCEPTIONS);
    for exception in &mut exceptions {
        let mut end = exception.message.len().min(MAX_MESSAGE);
        while !exception.message.is_char_boundary(end) {
            end -= 1;
        }
        exception.message.truncate(end);
    }
    (exceptions, u32::try_from(dropped).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
