use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[allow(
    clippy::disallowed_methods,
    reason = "a test needs some instant to start from"
)]
fn origin() -> Instant {
    Instant::now()
}

fn key(name: &str) -> FunctionKey {
    FunctionKey::new("ns", name)
}

/// Returns a sample of a function with one revision that counted `count`: ten series at full detail, four
/// at brief detail.
fn seen(name: &str, count: u64, in_rollout: bool) -> RevisionSample {
    RevisionSample {
        function: key(name),
        revision: RevisionName::new("r1").unwrap(),
        in_rollout,
        values: vec![(0, count)]
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect(),
        full: 10,
        brief: 4,
    }
}

fn with(series: usize, functions: usize) -> SeriesAllocator {
    SeriesAllocator::new(SeriesBudget {
        series,
        functions,
        idle: HOUR,
    })
}

/// Returns the levels as letters: F for full, b for brief, - for aggregated.
fn levels(series: &SeriesAllocator, names: &[&str]) -> String {
    let letter = |name: &&str| match series.level(&key(name)) {
        DetailLevel::Full => 'F',
        DetailLevel::Brief => 'b',
        DetailLevel::Aggregated => '-',
    };
    names.iter().map(letter).collect()
}

fn rest(series: &SeriesAllocator) -> u64 {
    series.aggregated().map(|(_, sum)| sum).sum()
}

#[test]
fn rollouts_have_full_detail_others_brief_detail_and_the_rest_is_aggregated() {
    let mut page = with(1_000, 2);
    let all = ["a", "b", "c", "d"];
    let functions = |rolling: &str| {
        let one = |name: &&str| seen(name, 5, *name == rolling);
        all.iter().map(one).collect::<Vec<_>>()
    };
    let start = origin();
    page.update(functions("d"), start);
    assert_eq!(levels(&page, &all), "bb-F");
    assert_eq!(rest(&page), 5, "what c counted before its first page");
    page.update(functions(""), start);
    assert_eq!(
        levels(&page, &all),
        "bb--",
        "no third place after a rollout"
    );
}

#[test]
fn the_budget_of_series_bounds_rollouts_too() {
    // ten series for a, ten for b, four for c, which uses up the budget
    let mut page = with(25, 10);
    let all = ["a", "b", "c", "d", "e"];
    let functions = all.iter().map(|name| seen(name, 1, *name < "e")).collect();
    page.update(functions, origin());
    assert_eq!(levels(&page, &all), "FFb--");
}

#[test]
fn a_function_keeps_its_series_until_it_is_idle_for_an_hour_or_deleted() {
    let mut page = with(1_000, 1);
    let start = origin();
    let both = |a, b| vec![seen("a", a, false), seen("b", b, false)];
    page.update(both(0, 1), start);
    assert_eq!(levels(&page, &["a", "b"]), "b-");
    page.update(both(0, 2), start + HOUR - Duration::from_secs(1));
    assert_eq!(levels(&page, &["a", "b"]), "b-");
    page.update(both(0, 3), start + HOUR);
    assert_eq!(levels(&page, &["a", "b"]), "-b");
    // b is idle too, but no active function needs its series
    page.update(both(0, 3), start + HOUR * 3);
    assert_eq!(levels(&page, &["a", "b"]), "-b");
    page.update(vec![seen("a", 0, false)], start + HOUR * 3);
    assert_eq!(levels(&page, &["a"]), "b");
}

#[test]
fn a_change_of_level_neither_decreases_the_aggregate_nor_counts_twice() {
    let mut page = with(1_000, 0);
    let now = origin();
    page.update(vec![seen("a", 3, false)], now);
    page.update(vec![seen("a", 5, false)], now);
    assert_eq!(rest(&page), 5);
    page.update(vec![seen("a", 6, true)], now);
    assert_eq!((levels(&page, &["a"]).as_str(), rest(&page)), ("F", 6));
    page.update(vec![seen("a", 9, true)], now);
    assert_eq!(rest(&page), 6, "its own series count now");
    page.update(vec![seen("a", 10, false)], now);
    assert_eq!((levels(&page, &["a"]).as_str(), rest(&page)), ("-", 6));
    page.update(vec![seen("a", 12, false)], now);
    assert_eq!(rest(&page), 8);
    page.update(vec![], now);
    assert_eq!(rest(&page), 8, "gone, and still in the sum");
    page.update(vec![seen("a", 2, false)], now);
    assert_eq!(rest(&page), 10, "a new function of the same name");
}

#[test]
fn a_hidden_revision_uses_no_budget_and_is_not_counted_again() {
    let mut page = with(1_000, 0);
    let now = origin();
    page.update(vec![seen("a", 3, false)], now);
    let hidden = RevisionSample {
        full: 0,
        brief: 0,
        ..seen("a", 3, false)
    };
    page.update(vec![hidden], now);
    page.update(vec![seen("a", 4, false)], now);
    assert_eq!(rest(&page), 4);
}

#[derive(Clone, Debug)]
struct Turn {
    /// For each function, whether it exists, whether it is in a rollout, and its increments.
    functions: Vec<(bool, bool, u64)>,
    minutes: u64,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let function = (any::<bool>(), prop::bool::weighted(0.2), 0_u64..5);
    let turn = (prop::collection::vec(function, 12), 0_u64..50)
        .prop_map(|(functions, minutes)| Turn { functions, minutes });
    prop::collection::vec(turn, 1..30)
}

proptest! {
    /// For any sequence of changes, the page stays within its budget, the aggregate never decreases, the
    /// aggregate and the functions' own series add up to all increments, and an active function does not
    /// lose its series to a function that is not in a rollout.
    #[test]
    fn the_aggregate_never_decreases_and_the_budget_is_kept(turns in turns(), series in 0_usize..80, functions in 0_usize..6) {
        let mut page = with(series, functions);
        let mut now = origin();
        let mut counts = [0_u64; 12];
        let mut summed = 0;
        let mut before = Vec::<DetailLevel>::new();
        let mut existed = [false; 12];
        let mut quiet_before = false;
        for turn in turns {
            now += Duration::from_secs(turn.minutes * 60);
            let mut all = Vec::new();
            let mut grew = [0_u64; 12];
            for (at, (exists, rolling, more)) in turn.functions.iter().enumerate() {
                counts[at] = if *exists { counts[at] + more } else { 0 };
                grew[at] = if existed[at] { *more } else { counts[at] };
                if *exists {
                    all.push(seen(&format!("f{at:02}"), counts[at], *rolling));
                }
            }
            let earlier = rest(&page);
            page.update(all.clone(), now);
            let level = |at: usize| page.level(&key(&format!("f{at:02}")));
            let cost: usize = all.iter().map(|one| match page.level(&one.function) {
                DetailLevel::Full => one.full,
                DetailLevel::Brief => one.brief,
                DetailLevel::Aggregated => 0,
            }).sum();
            prop_assert!(cost <= series, "{cost} of {series}");
            let others = all.iter().filter(|one| !one.in_rollout && page.level(&one.function) != DetailLevel::Aggregated);
            prop_assert!(others.count() <= functions);
            prop_assert!(rest(&page) >= earlier);
            for (at, (exists, _, _)) in turn.functions.iter().enumerate() {
                let was = if existed[at] { before[at] } else { level(at) };
                if *exists && was == DetailLevel::Aggregated {
                    summed += grew[at];
                }
            }
            prop_assert_eq!(rest(&page), summed);
            let quiet = turn.functions.iter().all(|(_, rolling, _)| !rolling);
            if quiet && quiet_before {
                for (at, (exists, _, more)) in turn.functions.iter().enumerate() {
                    let kept = existed[at] && before[at] == DetailLevel::Brief && *exists && *more > 0;
                    prop_assert!(!kept || level(at) != DetailLevel::Aggregated, "f{at:02} lost its place");
                }
            }
            before = (0..12).map(level).collect();
            quiet_before = quiet;
            existed = std::array::from_fn(|at| turn.functions[at].0);
        }
    }
}

#[test]
fn counters_of_a_revision_that_was_removed_start_again_at_zero() {
    let mut page = with(0, 10);
    let revision = |name: &str, count| RevisionSample {
        revision: RevisionName::new(name).unwrap(),
        ..seen("a", count, false)
    };
    let start = origin();
    page.update(vec![revision("r1", 5), revision("r2", 1)], start);
    page.update(vec![revision("r2", 2)], start);
    assert_eq!(rest(&page), 7);
    let revisions = |page: &SeriesAllocator| page.functions[&key("a")].revisions.len();
    assert_eq!(revisions(&page), 1);
    page.update(vec![revision("r1", 6), revision("r2", 2)], start);
    assert_eq!(rest(&page), 13, "all six requests are new");
    assert_eq!(revisions(&page), 2);
}
