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

    fn at(&mut self, seconds: u64, status: &NodeStatus, ok: u64) -> Option<Report> {
        let now = Now {
            at: self.start + Duration::from_secs(seconds),
            wall: seconds * 1000,
        };
        self.reporter
            .next(status, counters(ok), &mut self.sequence, now)
    }
}

#[test]
fn the_first_report_is_complete_and_later_ones_contain_changes() {
    let mut stream = Stream::new();
    let mut status = NodeStatus {
        revisions: vec![
            state("r1", LoadState::Loaded),
            state("r2", LoadState::Loading),
        ],
        ..NodeStatus::default()
    };
    let first = stream.at(0, &status, 1).unwrap();
    assert!(first.revisions_complete && first.revisions.len() == 2);
    assert_eq!(stream.at(1, &status, 1), None);
    status.revisions[1] = state("r2", LoadState::Loaded);
    let second = stream.at(2, &status, 1).unwrap();
    assert!(!second.revisions_complete);
    assert_eq!(second.revisions, [state("r2", LoadState::Loaded)]);
    status.revisions.remove(0);
    let third = stream.at(3, &status, 1).unwrap();
    assert!(
        third.revisions_complete,
        "the removal of a revision requires the complete list"
    );
    assert_eq!(third.revisions.len(), 1);
}

#[test]
fn a_node_without_changes_reports_every_interval() {
    let mut stream = Stream::new();
    let status = NodeStatus::default();
    let report = |stream: &mut Stream, seconds| {
        let now = Now {
            at: stream.start + Duration::from_secs(seconds),
            wall: 0,
        };
        let sequence = &mut stream.sequence;
        stream.reporter.next(&status, Vec::new(), sequence, now)
    };
    assert!(report(&mut stream, 0).is_some());
    assert_eq!(report(&mut stream, 4), None);
    let idle = report(&mut stream, 5).unwrap();
    assert!(idle.counters.is_none() && !idle.revisions_complete);
    assert_eq!(report(&mut stream, 9), None);
    assert!(report(&mut stream, 10).is_some());
}

#[test]
fn the_acknowledged_version_never_exceeds_the_offered_one() {
    let mut stream = Stream::new();
    let mut status = NodeStatus {
        applied: 900,
        ..NodeStatus::default()
    };
    assert_eq!(stream.at(0, &status, 0).unwrap().applied_version, 0);
    stream.reporter.offered(850);
    status.ready = true;
    assert_eq!(stream.at(1, &status, 0).unwrap().applied_version, 850);
}

#[test]
fn counters_are_absolute_first_and_then_increments_by_interval_or_by_number_of_requests() {
    let mut stream = Stream::new();
    let status = NodeStatus::default();
    let frame = |report: Option<Report>| report.and_then(|report| report.counters);
    let first = frame(stream.at(0, &status, 10)).unwrap();
    assert!(first.absolute);
    assert_eq!(
        (first.sequence, first.revisions[0].outcomes[0].count),
        (1, 10)
    );
    assert_eq!(
        frame(stream.at(2, &status, 30)),
        None,
        "the interval has not passed and the requests are few"
    );
    let due = frame(stream.at(5, &status, 40)).unwrap();
    assert!(!due.absolute);
    assert_eq!((due.sequence, due.revisions[0].outcomes[0].count), (2, 30));
    assert_eq!(due.revisions[0].duration.as_ref().unwrap().count, [30]);
    let eager = frame(stream.at(6, &status, 90)).unwrap();
    assert_eq!(
        (eager.sequence, eager.revisions[0].outcomes[0].count),
        (3, 50)
    );
    stream.reporter.request_absolute();
    let again = frame(stream.at(7, &status, 91)).unwrap();
    assert!(again.absolute);
    assert_eq!(
        (again.sequence, again.revisions[0].outcomes[0].count),
        (4, 91)
    );
}

/// The counters that an operator holds of a function that is deleted and created again never decrease; they only
/// disappear. The operator adds increments to the values of the last absolute frame.
#[test]
fn dropped_counters_disappear_at_the_operator_before_they_start_again() {
    let mut stream = Stream::new();
    let mut status = NodeStatus::default();
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
    assert_eq!(take(stream.at(0, &status, 100)), Some(100));
    assert_eq!(take(stream.at(5, &status, 103)), Some(103));
    let (sequence, start) = (&mut stream.sequence, stream.start);
    status.counter_generation = 1;
    let at = |seconds| Now {
        at: start + Duration::from_secs(seconds),
        wall: seconds * 1000,
    };
    let dropped = stream.reporter.next(&status, vec![], sequence, at(6));
    assert_eq!(take(dropped), None, "the operator drops the counters too");
    assert_eq!(
        take(stream.at(11, &status, 7)),
        Some(7),
        "counting starts again at 0"
    );
    assert_eq!(take(stream.at(16, &status, 9)), Some(9));
}

#[test]
fn reports_are_at_least_a_second_apart() {
    let mut stream = Stream::new();
    let mut status = NodeStatus::default();
    assert!(stream.at(0, &status, 0).is_some());
    status.ready = true;
    assert_eq!(stream.at(0, &status, 0), None);
    assert!(stream.at(1, &status, 0).is_some());
}

#[test]
fn exceptions_are_limited_in_number_and_length() {
    let exception = |since| NodeException {
        since,
        message: "é".repeat(200),
        ..NodeException::default()
    };
    let (kept, dropped) = limit_exceptions((0..100).map(exception).collect());
    assert_eq!((kept.len(), dropped), (64, 36));
    assert!(kept.iter().all(|one| one.message.len() <= 256));
}
