//! What goes up in one report: everything after a connect, then what changed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use node_api::v1::{
    CounterFrame, Histogram, NodeException, OutcomeCount, Report, RevisionCounters, RevisionState,
};

use super::Outlook;

/// Reports on change are at least this far apart.
pub(super) const MIN_GAP: Duration = Duration::from_secs(1);
/// This many requests since the last frame are worth one before its time.
const EAGER_REQUESTS: u64 = 50;

type RevisionId = (String, String, String);
type CounterId = (RevisionId, String);

/// What the operator at the other end of one stream knows.
pub(super) struct Reporter {
    boot_id: u64,
    interval: Duration,
    /// Highest version this stream offered; an acknowledgement never exceeds it.
    offered: u64,
    sent: Option<Sent>,
    frames: Frames,
}

struct Sent {
    at: Instant,
    outlook: Outlook,
    revisions: BTreeMap<RevisionId, RevisionState>,
}

struct Frames {
    /// `None` until the first, absolute frame of this stream.
    base: Option<BTreeMap<CounterId, RevisionCounters>>,
    last: Instant,
    /// [`Outlook::forgotten`] of the base.
    forgotten: u64,
}

impl Reporter {
    /// For a new stream; `resumed_at` is what the node had when the operator agreed to go on from there.
    pub(super) fn new(boot_id: u64, interval: Duration, resumed_at: u64, now: Instant) -> Self {
        Self {
            boot_id,
            interval: interval.max(MIN_GAP),
            offered: resumed_at,
            sent: None,
            frames: Frames {
                base: None,
                last: now,
                forgotten: 0,
            },
        }
    }

    /// The operator offered a table of this version.
    pub(super) fn offered(&mut self, version: u64) {
        self.offered = self.offered.max(version);
    }

    /// The operator lost a frame: the next one is absolute.
    pub(super) fn start_over(&mut self) {
        self.frames.base = None;
    }

    /// The report to send now, if there is anything to say. `sequence` counts frames within a boot.
    pub(super) fn next(
        &mut self,
        outlook: &Outlook,
        counters: Vec<RevisionCounters>,
        sequence: &mut u64,
        (now, wall): (Instant, u64),
    ) -> Option<Report> {
        let too_soon = self
            .sent
            .as_ref()
            .is_some_and(|sent| now.duration_since(sent.at) < MIN_GAP);
        if too_soon {
            return None;
        }
        if self.frames.forgotten != outlook.forgotten {
            // what was dropped may come again from 0: an absolute frame makes the operator drop it
            // too, so that nothing it holds ever falls
            self.frames.forgotten = outlook.forgotten;
            self.start_over();
        }
        let frame = self.frame(counters, now).map(|(absolute, revisions)| {
            *sequence += 1;
            CounterFrame {
                boot_id: self.boot_id,
                sequence: *sequence,
                absolute,
                at: wall,
                revisions,
            }
        });
        let unchanged = self
            .sent
            .as_ref()
            .is_some_and(|sent| sent.outlook == *outlook);
        // a node that says nothing for 10 s counts as absent, however healthy its stream
        let silent = self
            .sent
            .as_ref()
            .is_some_and(|sent| now.duration_since(sent.at) >= self.interval);
        if frame.is_none() && unchanged && !silent {
            return None;
        }
        let (revisions, complete) = self.revisions(outlook);
        let report = Report {
            applied_version: outlook.applied.min(self.offered),
            revisions,
            revisions_complete: complete,
            exceptions: outlook.exceptions.clone(),
            exceptions_dropped: outlook.exceptions_dropped,
            counters: frame,
            functions_desired: outlook.functions_desired,
            functions_loaded: outlook.functions_loaded,
            functions_failed: outlook.functions_failed,
            ready: outlook.ready,
        };
        let revisions = outlook
            .revisions
            .iter()
            .map(|state| (id(state), state.clone()))
            .collect();
        self.sent = Some(Sent {
            at: now,
            outlook: outlook.clone(),
            revisions,
        });
        Some(report)
    }

    /// Changes since the last report; the whole list when there is none, or when a revision went,
    /// which a change cannot express.
    fn revisions(&self, outlook: &Outlook) -> (Vec<RevisionState>, bool) {
        let Some(sent) = &self.sent else {
            return (outlook.revisions.clone(), true);
        };
        let mut still_there = 0;
        let mut changed = Vec::new();
        for state in &outlook.revisions {
            let before = sent.revisions.get(&id(state));
            still_there += usize::from(before.is_some());
            if before != Some(state) {
                changed.push(state.clone());
            }
        }
        if still_there < sent.revisions.len() {
            (outlook.revisions.clone(), true)
        } else {
            (changed, false)
        }
    }

    /// Counters when they are due: absolute first, then what was added since the last frame.
    fn frame(
        &mut self,
        counters: Vec<RevisionCounters>,
        now: Instant,
    ) -> Option<(bool, Vec<RevisionCounters>)> {
        let Some(base) = &mut self.frames.base else {
            self.frames.base = Some(
                counters
                    .iter()
                    .map(|one| (counter_id(one), one.clone()))
                    .collect(),
            );
            self.frames.last = now;
            return Some((true, counters));
        };
        let due = now.duration_since(self.frames.last) >= self.interval;
        let empty = RevisionCounters::default();
        let added: Vec<RevisionCounters> = counters
            .iter()
            .map(|one| added(base.get(&counter_id(one)).unwrap_or(&empty), one))
            .collect();
        let requests: u64 = added
            .iter()
            .flat_map(|one| &one.outcomes)
            .map(|outcome| outcome.count)
            .sum();
        if counters.is_empty() || !(due || requests >= EAGER_REQUESTS) {
            return None;
        }
        // what is not reported now keeps its base: it may be reported again later
        base.extend(counters.iter().map(|one| (counter_id(one), one.clone())));
        self.frames.last = now;
        Some((false, added))
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

/// `after` − `before`, both absolute.
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

/// At most this many exceptions travel; the rest is a number.
const MAX_EXCEPTIONS: usize = 64;
const MAX_MESSAGE: usize = 256;

/// Bounds a set of exceptions: number, and length of each message.
pub(crate) fn bounded(mut exceptions: Vec<NodeException>) -> (Vec<NodeException>, u32) {
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
mod tests {
    use node_api::v1::{FunctionKey, LoadState};

    use super::*;

    fn state(revision: &str, state: LoadState) -> RevisionState {
        RevisionState {
            function: Some(FunctionKey {
                namespace: "a".into(),
                name: "f".into(),
            }),
            revision: revision.into(),
            state: state.into(),
            ..RevisionState::default()
        }
    }

    fn counters(ok: u64) -> Vec<RevisionCounters> {
        vec![RevisionCounters {
            function: Some(FunctionKey {
                namespace: "a".into(),
                name: "f".into(),
            }),
            revision: "r1".into(),
            population: "live".into(),
            outcomes: vec![OutcomeCount {
                outcome: "ok".into(),
                code: "2xx".into(),
                start: "warm".into(),
                count: ok,
            }],
            duration: Some(Histogram {
                index: vec![3],
                count: vec![ok],
                sum_seconds: ok as f64,
            }),
            ..RevisionCounters::default()
        }]
    }

    struct Stream {
        reporter: Reporter,
        sequence: u64,
        start: Instant,
    }

    impl Stream {
        fn new() -> Self {
            let start = Instant::now();
            Self {
                reporter: Reporter::new(7, Duration::from_secs(5), 0, start),
                sequence: 0,
                start,
            }
        }

        fn at(&mut self, seconds: u64, outlook: &Outlook, ok: u64) -> Option<Report> {
            let now = self.start + Duration::from_secs(seconds);
            self.reporter.next(
                outlook,
                counters(ok),
                &mut self.sequence,
                (now, seconds * 1000),
            )
        }
    }

    #[test]
    fn everything_first_then_changes_and_silence_when_nothing_changed() {
        let mut stream = Stream::new();
        let mut outlook = Outlook {
            revisions: vec![
                state("r1", LoadState::Loaded),
                state("r2", LoadState::Loading),
            ],
            ..Outlook::default()
        };
        let first = stream.at(0, &outlook, 1).unwrap();
        assert!(first.revisions_complete && first.revisions.len() == 2);
        assert_eq!(stream.at(1, &outlook, 1), None);
        outlook.revisions[1] = state("r2", LoadState::Loaded);
        let second = stream.at(2, &outlook, 1).unwrap();
        assert!(!second.revisions_complete);
        assert_eq!(second.revisions, [state("r2", LoadState::Loaded)]);
        outlook.revisions.remove(0);
        let third = stream.at(3, &outlook, 1).unwrap();
        assert!(
            third.revisions_complete,
            "a revision that went needs the whole list"
        );
        assert_eq!(third.revisions.len(), 1);
    }

    #[test]
    fn a_node_with_nothing_to_say_says_so_every_interval() {
        let mut stream = Stream::new();
        let outlook = Outlook::default();
        let report = |stream: &mut Stream, seconds| {
            let now = (stream.start + Duration::from_secs(seconds), 0);
            let sequence = &mut stream.sequence;
            stream.reporter.next(&outlook, Vec::new(), sequence, now)
        };
        assert!(report(&mut stream, 0).is_some());
        assert_eq!(report(&mut stream, 4), None);
        let idle = report(&mut stream, 5).unwrap();
        assert!(idle.counters.is_none() && !idle.revisions_complete);
        assert_eq!(report(&mut stream, 9), None);
        assert!(report(&mut stream, 10).is_some());
    }

    #[test]
    fn an_acknowledgement_never_exceeds_what_was_offered() {
        let mut stream = Stream::new();
        let mut outlook = Outlook {
            applied: 900,
            ..Outlook::default()
        };
        assert_eq!(stream.at(0, &outlook, 0).unwrap().applied_version, 0);
        stream.reporter.offered(850);
        outlook.ready = true;
        assert_eq!(stream.at(1, &outlook, 0).unwrap().applied_version, 850);
    }

    #[test]
    fn counters_are_absolute_once_then_increments_by_interval_or_by_number() {
        let mut stream = Stream::new();
        let outlook = Outlook::default();
        let frame = |report: Option<Report>| report.and_then(|report| report.counters);
        let first = frame(stream.at(0, &outlook, 10)).unwrap();
        assert!(first.absolute);
        assert_eq!(
            (first.sequence, first.revisions[0].outcomes[0].count),
            (1, 10)
        );
        assert_eq!(
            frame(stream.at(2, &outlook, 30)),
            None,
            "neither due nor many"
        );
        let due = frame(stream.at(5, &outlook, 40)).unwrap();
        assert!(!due.absolute);
        assert_eq!((due.sequence, due.revisions[0].outcomes[0].count), (2, 30));
        assert_eq!(due.revisions[0].duration.as_ref().unwrap().count, [30]);
        let eager = frame(stream.at(6, &outlook, 90)).unwrap();
        assert_eq!(
            (eager.sequence, eager.revisions[0].outcomes[0].count),
            (3, 50)
        );
        stream.reporter.start_over();
        let again = frame(stream.at(7, &outlook, 91)).unwrap();
        assert!(again.absolute);
        assert_eq!(
            (again.sequence, again.revisions[0].outcomes[0].count),
            (4, 91)
        );
    }

    /// What an operator holds of a function that is deleted, dropped and made again never falls but
    /// by leaving: it adds increments to what an absolute frame began.
    #[test]
    fn counters_that_were_dropped_leave_the_operator_before_they_come_again() {
        let mut stream = Stream::new();
        let mut outlook = Outlook::default();
        let mut held: Option<u64> = None;
        let mut take = |report: Option<Report>| {
            let frame = report.and_then(|report| report.counters).unwrap();
            let row = frame.revisions.first();
            let count = row.map(|row| row.outcomes.iter().map(|one| one.count).sum::<u64>());
            held = match (frame.absolute, count) {
                (true, count) => count,
                (false, count) => Some(held.unwrap_or(0) + count.unwrap_or(0)),
            };
            held
        };
        assert_eq!(take(stream.at(0, &outlook, 100)), Some(100));
        assert_eq!(take(stream.at(5, &outlook, 103)), Some(103));
        let (sequence, start) = (&mut stream.sequence, stream.start);
        outlook.forgotten = 1;
        let at = |seconds| (start + Duration::from_secs(seconds), seconds * 1000);
        let dropped = stream.reporter.next(&outlook, vec![], sequence, at(6));
        assert_eq!(take(dropped), None, "the operator drops it too");
        assert_eq!(
            take(stream.at(11, &outlook, 7)),
            Some(7),
            "all of it is new"
        );
        assert_eq!(take(stream.at(16, &outlook, 9)), Some(9));
    }

    #[test]
    fn reports_are_a_second_apart() {
        let mut stream = Stream::new();
        let mut outlook = Outlook::default();
        assert!(stream.at(0, &outlook, 0).is_some());
        outlook.ready = true;
        assert_eq!(stream.at(0, &outlook, 0), None);
        assert!(stream.at(1, &outlook, 0).is_some());
    }

    #[test]
    fn exceptions_are_bounded_in_number_and_length() {
        let exception = |since| NodeException {
            since,
            message: "é".repeat(200),
            ..NodeException::default()
        };
        let (kept, dropped) = bounded((0..100).map(exception).collect());
        assert_eq!((kept.len(), dropped), (64, 36));
        assert!(kept.iter().all(|one| one.message.len() <= 256));
    }
}
