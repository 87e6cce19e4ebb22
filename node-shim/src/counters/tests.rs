use super::*;

fn names() -> (FunctionKey, RevisionName) {
    (
        FunctionKey::new("ns", "f"),
        RevisionName::new("r1").unwrap(),
    )
}

fn finished(outcome: Outcome, reason: Option<FailureReason>) -> FinishedRequest {
    FinishedRequest {
        population: Population::Live,
        outcome,
        reason,
        code: StatusClass::C5xx,
        start: StartKind::Warm,
        head: None,
        duration: Duration::from_millis(2),
    }
}

#[test]
fn a_request_is_counted_once() {
    let (function, revision) = names();
    let counters = CounterTable::new();
    let one = counters.revision(&function, &revision);
    one.record(&finished(Outcome::Trap, Some(FailureReason::Trap)));
    one.record(&finished(Outcome::Overloaded, Some(FailureReason::Queue)));

    let all = counters.snapshot(|_| true);
    let live = &all[0].populations[0];
    assert_eq!(live.requests.iter().map(|r| r.count).sum::<u64>(), 2);
    assert_eq!(live.saturated, 1);
    // 2 ms is a bound, and upper bounds are inclusive
    assert_eq!(live.duration.counts[5], 1);
    assert_eq!(live.duration.counts.iter().sum::<u64>(), 1);
    assert!(
        one.failures().all(|(reason, n)| n
            == u64::from(matches!(reason, FailureReason::Trap | FailureReason::Queue)))
    );
}

#[test]
fn a_revision_that_is_loaded_again_keeps_its_counters() {
    let (function, revision) = names();
    let counters = CounterTable::new();
    counters
        .revision(&function, &revision)
        .record(&finished(Outcome::Ok, None));
    counters.hide(&function, &revision);
    assert!(counters.shown().is_empty());
    let again = counters.revision(&function, &revision);
    assert_eq!(again.snapshot().populations[0].requests[0].count, 1);
    assert_eq!(counters.shown().len(), 1);
}

#[test]
fn a_late_request_does_not_bring_a_deleted_function_back() {
    let (function, revision) = names();
    let other = FunctionKey::new("ns", "g");
    let counters = CounterTable::new();
    let account = |there: bool| counters.for_request(&function, &revision, || there);
    assert!(account(false).is_none(), "nothing to resurrect");
    let held = account(true).unwrap();
    held.record(&finished(Outcome::Ok, None));
    counters.revision(&other, &revision);
    let shown = || {
        let shown = counters.shown();
        shown.iter().map(|c| c.function.clone()).collect::<Vec<_>>()
    };
    assert_eq!(shown(), [function.clone(), other.clone()]);
    counters.hide_functions(|key| *key == function);
    // a late request still updates the hidden counters
    account(false).unwrap().record(&finished(Outcome::Ok, None));
    assert_eq!(shown(), std::slice::from_ref(&other));
    assert_eq!(
        held.snapshot().populations[0].requests[0].count,
        2,
        "the same counters"
    );
    counters.forget(&BTreeSet::from([function.clone()]));
    held.record(&finished(Outcome::Ok, None));
    assert!(account(false).is_none());
    assert_eq!(counters.all().len(), 1);
    // created again
    let again = account(true).unwrap();
    assert!(again.snapshot().populations[0].requests.is_empty());
    assert_eq!(shown(), [function.clone(), other.clone()]);
}
