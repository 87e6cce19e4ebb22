//! Prometheus and in-band counters give the same snapshot for the same counts.

use std::collections::BTreeMap;
use std::time::Duration;

use node_api::v1;
use operator_core::samples::LATENCY_BOUNDS;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{answer, collect, targets};
use super::{key, known, of_revision, one_node, only, series, wanted};
use crate::node_api::{CounterSelector, Fleet, Latency, Tables};

/// Counts that a node may have for one revision.
#[derive(Debug, Clone)]
struct Counted {
    outcomes: Vec<(&'static str, &'static str, &'static str, u64)>,
    saturated: u64,
    head: Vec<u64>,
}

fn counted() -> impl Strategy<Value = Counted> {
    let outcome = prop::sample::select(vec![
        "ok",
        "guest_error",
        "trap",
        "deadline",
        "oom",
        "overloaded",
        "host_error",
        "client",
    ]);
    let code = prop::sample::select(vec!["2xx", "3xx", "4xx", "5xx", "none"]);
    let start = prop::sample::select(vec!["warm", "cold"]);
    let rows = prop::collection::btree_map((outcome, code, start), 0..1_000_000_u64, 1..12);
    let head = prop::collection::vec(0..10_000_u64, LATENCY_BOUNDS.len() + 1);
    (rows, 0..1_000_u64, head).prop_map(|(rows, saturated, head)| Counted {
        outcomes: rows
            .into_iter()
            .map(|((a, b, c), n)| (a, b, c, n))
            .collect(),
        saturated,
        head,
    })
}

/// Renders the counts as the node exposes them.
fn scraped(all: &BTreeMap<String, Counted>) -> BTreeMap<&'static str, Vec<Value>> {
    let mut found = one_node();
    let at = |value: u64| json!([[1002.5, value.to_string()]]);
    for metric in [
        "selvage_requests_total",
        "selvage_saturated_total",
        "selvage_response_head_seconds_bucket",
    ] {
        let mut rows = Vec::new();
        for (revision, counted) in all {
            match metric {
                "selvage_requests_total" => {
                    for (outcome, code, start, n) in &counted.outcomes {
                        let labels = json!({"outcome": outcome, "code": code, "start": start});
                        rows.push(series(metric, of_revision(revision, labels), at(*n)));
                    }
                }
                "selvage_saturated_total" => {
                    let labels = of_revision(revision, json!({}));
                    rows.push(series(metric, labels, at(counted.saturated)));
                }
                _ => {
                    let mut below = 0;
                    let bounds = LATENCY_BOUNDS.iter().map(ToString::to_string);
                    let bounds = bounds.chain(["+Inf".to_owned()]);
                    for (le, n) in bounds.zip(&counted.head) {
                        below += n;
                        let labels = of_revision(revision, json!({ "le": le }));
                        rows.push(series(metric, labels, at(below)));
                    }
                }
            }
        }
        found.insert(metric, rows);
    }
    found
}

/// Encodes the counts as the node reports them: first a part, absolute, then the rest as increments.
fn reported(all: &BTreeMap<String, Counted>, split: u64) -> [v1::CounterFrame; 2] {
    let part = |n: u64, first: bool| if first { n / split } else { n - n / split };
    [true, false].map(|first| v1::CounterFrame {
        boot_id: 900_250,
        sequence: if first { 4 } else { 5 },
        absolute: first,
        at: 0,
        revisions: all
            .iter()
            .map(|(revision, counted)| v1::RevisionCounters {
                function: Some((&key()).into()),
                revision: revision.clone(),
                population: "live".to_owned(),
                outcomes: counted
                    .outcomes
                    .iter()
                    .map(|(outcome, code, start, n)| v1::OutcomeCount {
                        outcome: (*outcome).to_owned(),
                        code: (*code).to_owned(),
                        start: (*start).to_owned(),
                        count: part(*n, first),
                    })
                    .collect(),
                saturated: part(counted.saturated, first),
                head: Some(v1::Histogram {
                    index: (0..33).collect(),
                    count: counted.head.iter().map(|n| part(*n, first)).collect(),
                    sum_seconds: 0.0,
                }),
                duration: None,
            })
            .collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_transports_give_the_same_snapshot(
        stable in counted(),
        candidate in counted(),
        split in 1..5_u64,
    ) {
        let all = BTreeMap::from([
            ("checkout-1".to_owned(), stable),
            ("checkout-2".to_owned(), candidate),
        ]);
        let by_scrape: BTreeMap<_, Vec<answer::Series>> = scraped(&all)
            .into_iter()
            .map(|(metric, series)| (metric, serde_json::from_value(json!(series)).unwrap()))
            .collect();
        let of = |metric| by_scrape.get(metric).cloned().unwrap_or_default();
        let mut claims = targets::Claims::default();
        of("selvage_node_info").iter().for_each(|series| claims.node(series));
        of("process_start_time_seconds").iter().for_each(|series| claims.start(series));
        let newest = collect::Moments::Newest;
        let targets = claims.verify(&known(), newest);
        let wanted = [wanted()];
        let mut collector = collect::Collector::new(&targets, &wanted);
        of("selvage_requests_total").iter().for_each(|series| collector.requests(series));
        of("selvage_saturated_total").iter().for_each(|series| collector.saturated(series));
        let buckets = of("selvage_response_head_seconds_bucket");
        buckets.iter().for_each(|series| collector.bucket(series));
        let by_scrape = collector.finish(newest);
        let scrape = only(&by_scrape).clone();

        let fleet = Fleet::new(Tables::new(), Duration::from_secs(10), Duration::from_secs(600));
        let frames = reported(&all, split);
        fleet.counters_from("node-1", 900_250, frames);
        let selector = CounterSelector { latency: Latency::Head, population: "live" };
        let mut in_band = fleet.counters(&key(), selector);
        prop_assert_eq!(in_band.len(), 1);
        let mut in_band = in_band.remove(0);
        in_band.at = scrape.at;
        prop_assert_eq!(in_band, scrape);
    }
}
