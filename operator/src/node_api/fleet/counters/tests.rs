use super::*;

const SELECTOR: CounterSelector<'static> = CounterSelector {
    latency: Latency::Head,
    population: "live",
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn key() -> FunctionKey {
    FunctionKey::new("shop", "checkout")
}

/// Frame with `ok` requests, each in bucket 3.
fn frame(boot_id: u64, sequence: u64, absolute: bool, ok: u64) -> v1::CounterFrame {
    v1::CounterFrame {
        boot_id,
        sequence,
        absolute,
        at: 0,
        revisions: vec![v1::RevisionCounters {
            function: Some((&key()).into()),
            revision: "checkout-1".to_owned(),
            population: "live".to_owned(),
            outcomes: vec![v1::OutcomeCount {
                outcome: "ok".to_owned(),
                code: "2xx".to_owned(),
                start: "warm".to_owned(),
                count: ok,
            }],
            saturated: 0,
            head: Some(v1::Histogram {
                index: vec![3],
                count: vec![ok],
                sum_seconds: 0.0,
            }),
            duration: None,
        }],
    }
}

fn held(book: &CounterTable) -> Option<u64> {
    let snapshot = book.snapshot("node-1", &key(), SELECTOR)?;
    let counters = snapshot.revisions.get("checkout-1")?;
    assert_eq!(counters.latency.count(), counters.total());
    Some(counters.total())
}

#[test]
fn increments_add_up_to_the_nodes_own_counters() {
    let mut book = CounterTable::new(7);
    assert_eq!(held(&book), None);
    assert_eq!(
        book.take(frame(7, 1, true, 100), at(0)),
        FrameResult::Applied
    );
    assert_eq!(
        book.take(frame(7, 2, false, 5), at(5)),
        FrameResult::Applied
    );
    assert_eq!(
        book.take(frame(7, 3, false, 6), at(10)),
        FrameResult::Applied
    );
    assert_eq!(held(&book), Some(111));
    let snapshot = book.snapshot("node-1", &key(), SELECTOR).unwrap();
    assert_eq!((snapshot.boot, snapshot.at), (Some(7), at(10)));
}

/// FE-3: a repeated frame counts once.
#[test]
fn a_repeated_frame_counts_once() {
    let mut book = CounterTable::new(7);
    book.take(frame(7, 1, true, 100), at(0));
    book.take(frame(7, 2, false, 5), at(5));
    assert_eq!(
        book.take(frame(7, 2, false, 5), at(6)),
        FrameResult::Duplicate
    );
    assert_eq!(
        book.take(frame(7, 1, true, 100), at(6)),
        FrameResult::Duplicate
    );
    assert_eq!(held(&book), Some(105));
}

/// FE-3: after a gap only absolute values count.
#[test]
fn after_a_gap_only_absolute_values_count() {
    let mut book = CounterTable::new(7);
    book.take(frame(7, 1, true, 100), at(0));
    assert_eq!(book.take(frame(7, 3, false, 5), at(5)), FrameResult::Gap);
    assert_eq!(book.take(frame(7, 4, false, 5), at(6)), FrameResult::Gap);
    assert_eq!(held(&book), Some(100), "certain counts stay");
    assert_eq!(
        book.take(frame(7, 5, true, 117), at(7)),
        FrameResult::Applied
    );
    assert_eq!(
        book.take(frame(7, 6, false, 1), at(8)),
        FrameResult::Applied
    );
    assert_eq!(held(&book), Some(118));
}

/// FE-3: a restarted shim starts from zero.
#[test]
fn a_restarted_node_starts_with_absolute_values() {
    let mut book = CounterTable::new(7);
    book.take(frame(7, 9, true, 100), at(0));
    assert_eq!(book.take(frame(8, 10, false, 3), at(5)), FrameResult::Gap);
    assert_eq!(book.take(frame(8, 1, true, 3), at(6)), FrameResult::Applied);
    let snapshot = book.snapshot("node-1", &key(), SELECTOR).unwrap();
    assert_eq!((snapshot.boot, held(&book)), (Some(8), Some(3)));
}

/// HK-11: a malformed frame changes nothing.
#[test]
fn a_malformed_frame_changes_nothing_and_asks_for_absolute_values() {
    let mut book = CounterTable::new(7);
    book.take(frame(7, 1, true, 100), at(0));
    let mut unknown_bucket = frame(7, 2, false, 1);
    unknown_bucket.revisions[0].head = Some(v1::Histogram {
        index: vec![33],
        count: vec![1],
        sum_seconds: 0.0,
    });
    assert_eq!(book.take(unknown_bucket, at(1)), FrameResult::Malformed);
    let mut uneven = frame(7, 3, true, 1);
    uneven.revisions[0].duration = Some(v1::Histogram {
        index: vec![1, 2],
        count: vec![1],
        sum_seconds: 0.0,
    });
    assert_eq!(book.take(uneven, at(1)), FrameResult::Malformed);
    assert_eq!(book.take(frame(7, 4, false, 1), at(2)), FrameResult::Gap);
    assert_eq!(held(&book), Some(100));
}

#[test]
fn relayed_counters_have_the_same_values() {
    let mut book = CounterTable::new(7);
    let mut first = frame(7, 1, true, 100);
    first.revisions[0].saturated = 4;
    for (outcome, code) in [
        ("trap", "none"),
        ("ok", "5xx"),
        ("ok", "4xx"),
        ("client", "4xx"),
    ] {
        first.revisions[0].outcomes.push(v1::OutcomeCount {
            outcome: outcome.to_owned(),
            code: code.to_owned(),
            start: "cold".to_owned(),
            count: 3,
        });
    }
    first.revisions[0].head = None;
    book.take(first, at(0));
    let mut relayed = CounterTable::new(7);
    let frame = book.to_frame().unwrap();
    assert_eq!(relayed.take(frame, at(0)), FrameResult::Applied);
    assert_eq!(
        relayed.snapshot("n", &key(), SELECTOR),
        book.snapshot("n", &key(), SELECTOR)
    );
}

#[test]
fn populations_and_latencies_are_kept_apart() {
    let mut book = CounterTable::new(7);
    let mut first = frame(7, 1, true, 100);
    first.revisions[0].duration = Some(v1::Histogram {
        index: vec![32],
        count: vec![100],
        sum_seconds: 0.0,
    });
    let mut other = first.revisions[0].clone();
    other.population = "preview".to_owned();
    other.outcomes[0].count = 7;
    first.revisions.push(other);
    book.take(first, at(0));
    let read = |latency, population| {
        let selector = CounterSelector {
            latency,
            population,
        };
        let snapshot = book.snapshot("n", &key(), selector)?;
        let counters = snapshot.revisions["checkout-1"];
        Some((counters.total(), counters.latency.slower_than(31)))
    };
    assert_eq!(read(Latency::Head, "live"), Some((100, 0)));
    assert_eq!(read(Latency::Duration, "live"), Some((100, 100)));
    assert_eq!(read(Latency::Head, "preview"), Some((7, 0)));
    assert_eq!(read(Latency::Head, "shadow"), None);
}
