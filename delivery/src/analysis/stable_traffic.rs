//! Stable's traffic from the counters that nodes keep while a function rests.
//!
//! Nodes report counters during a rollout only, so without Prometheus the history begins seconds before the candidate gets
//! its first requests. The counters themselves go back further: to the start of the node, at no cost.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::rollout::Traffic;
use crate::samples::Snapshot;

/// Minimum time in seconds that the counters of a node must cover.
const MIN_SECONDS: f64 = 60.0;
/// Minimum time in seconds between two snapshots for the present rate.
const MIN_GAP: f64 = 4.0;
/// Minimum number of requests, as for a history.
const MIN_REQUESTS: u64 = 100;

/// Returns stable's traffic, given snapshots of its nodes since the rollout began: the average since `since`, when
/// it became stable, or the present rate if that is larger. The larger one gives the smaller first weight, also when traffic
/// rose a moment ago after a quiet month. `None` until there are two snapshots of a node; the rate is unknown with too few
/// requests.
#[must_use]
pub fn stable_traffic(snapshots: &[Snapshot], stable: &str, since: Timestamp) -> Option<Traffic> {
    let mut nodes: BTreeMap<&str, Vec<(f64, f64, u64)>> = BTreeMap::new();
    for snapshot in snapshots {
        let (Some(boot), Some(counters)) = (snapshot.boot, snapshot.revisions.get(stable)) else {
            continue;
        };
        let at = seconds(snapshot.at.as_millisecond());
        let boot = seconds(i64::try_from(boot).unwrap_or(i64::MAX));
        let rows = nodes.entry(snapshot.process.as_str()).or_default();
        rows.push((at, boot, counters.tally().requests));
    }
    let (mut average, mut present, mut requests) = (0.0, 0.0, 0);
    let mut compared = false;
    for rows in nodes.values_mut() {
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            continue;
        };
        requests += last.2;
        let covered = last.0 - last.1.max(seconds(since.as_millisecond()));
        if covered >= MIN_SECONDS {
            average += last.2 as f64 / covered;
        }
        let gap = last.0 - first.0;
        if gap >= MIN_GAP && first.1 == last.1 {
            compared = true;
            present += last.2.saturating_sub(first.2) as f64 / gap;
        }
    }
    let rate = (requests >= MIN_REQUESTS).then_some(f64::max(average, present));
    compared.then_some(Traffic {
        requests_per_second: rate,
    })
}

fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Counters, Outcome, StatusClass};

    const STARTED: i64 = 1_800_000_000;

    fn snapshot(node: &str, second: i64, requests: u64) -> Snapshot {
        let mut counters = Counters::default();
        counters.add(Outcome::Ok, StatusClass::Other, requests);
        Snapshot {
            process: node.into(),
            boot: u64::try_from(STARTED * 1000).ok(),
            at: Timestamp::from_second(STARTED + second).unwrap(),
            revisions: [("old".to_owned(), counters)].into(),
        }
    }

    fn rate(snapshots: &[Snapshot], since: i64) -> Option<f64> {
        let since = Timestamp::from_second(STARTED + since).unwrap();
        stable_traffic(snapshots, "old", since)?.requests_per_second
    }

    /// One request a second for an hour on two nodes together.
    #[test]
    fn the_average_since_the_node_started_is_known_after_two_reports() {
        let hour = [("a", 1800), ("b", 1800)];
        let first = hour.map(|(node, requests)| snapshot(node, 3600, requests));
        assert_eq!(rate(&first, -500), None);
        let second = hour.map(|(node, requests)| snapshot(node, 3605, requests + 2));
        let all = [first, second].concat();
        assert!((rate(&all, -500).unwrap() - 1.0).abs() < 0.01);
    }

    #[test]
    fn the_present_rate_counts_if_it_is_larger() {
        let all = [snapshot("a", 86_400, 1_000), snapshot("a", 86_405, 6_000)];
        assert_eq!(rate(&all, -500), Some(1000.0));
    }

    /// What it was before it became stable is no traffic of a stable revision.
    #[test]
    fn a_revision_that_became_stable_a_moment_ago_has_its_present_rate() {
        let all = [snapshot("a", 3600, 5_000), snapshot("a", 3610, 5_050)];
        assert_eq!(rate(&all, 3590), Some(5.0));
    }

    #[test]
    fn few_requests_are_no_rate() {
        let all = [snapshot("a", 3600, 40), snapshot("a", 3605, 41)];
        let unknown = Some(Traffic {
            requests_per_second: None,
        });
        let since = Timestamp::from_second(STARTED).unwrap();
        assert_eq!(stable_traffic(&all, "old", since), unknown);
        assert_eq!(stable_traffic(&all[..1], "old", since), None);
    }
}
