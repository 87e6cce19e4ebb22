//! Functions with traffic on this node in the last 24 h. They are loaded first, and readiness after a restart waits
//! for them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use node_shim_core::table::FunctionKey;

use super::node::RevisionKey;

/// Time after its last request for which a function counts as having recent traffic.
const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Functions with recent traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecentTraffic {
    /// Time of the last observed request, in ms since the Unix epoch.
    last_request_ms: BTreeMap<FunctionKey, u64>,
    /// Number of requests of each revision at the last observation.
    totals: BTreeMap<RevisionKey, u64>,
}

impl RecentTraffic {
    /// Parses the text that [`RecentTraffic::to_text`] of an earlier process wrote, ignoring invalid lines.
    pub(crate) fn from_text(text: &str, now: u64) -> Self {
        let last_request_ms = text.lines().filter_map(parse).collect();
        let mut recent_traffic = Self {
            last_request_ms,
            totals: BTreeMap::new(),
        };
        recent_traffic.remove_expired(now);
        recent_traffic
    }

    /// Formats one line per function: key and time of the last request.
    pub(crate) fn to_text(&self) -> String {
        self.last_request_ms
            .iter()
            .map(|(key, at)| format!("{key} {at}\n"))
            .collect()
    }

    /// Compares the number of requests of each revision with the last observation. Counters of revisions that left the
    /// table may be missing, so a number per function could decrease.
    pub(crate) fn observe(&mut self, totals: BTreeMap<RevisionKey, u64>, now: u64) {
        for (id, total) in &totals {
            if self.totals.get(id).copied().unwrap_or_default() < *total {
                self.last_request_ms.insert(id.0.clone(), now);
            }
        }
        self.totals = totals;
        self.remove_expired(now);
    }

    /// Returns whether the function had traffic in the last 24 h.
    pub(crate) fn contains(&self, key: &FunctionKey) -> bool {
        self.last_request_ms.contains_key(key)
    }

    /// Returns the functions with traffic within `time` before `now` (ms since the Unix epoch).
    pub(crate) fn within(&self, time: Duration, now: u64) -> BTreeSet<FunctionKey> {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let recent = self
            .last_request_ms
            .iter()
            .filter(|(_, at)| now.saturating_sub(**at) <= time);
        recent.map(|(key, _)| key.clone()).collect()
    }

    /// Returns the functions of `all` for which readiness waits: those with recent traffic, or all of them when no
    /// traffic was recorded.
    pub(crate) fn required_for_readiness<'a>(
        &self,
        all: impl Iterator<Item = &'a FunctionKey>,
    ) -> BTreeSet<FunctionKey> {
        all.filter(|key| self.last_request_ms.is_empty() || self.contains(key))
            .cloned()
            .collect()
    }

    fn remove_expired(&mut self, now: u64) {
        let kept = u64::try_from(RETENTION.as_millis()).unwrap_or(u64::MAX);
        self.last_request_ms
            .retain(|_, at| now.saturating_sub(*at) < kept);
    }
}

fn parse(line: &str) -> Option<(FunctionKey, u64)> {
    let (key, at) = line.split_once(' ')?;
    let (namespace, name) = key.split_once('/')?;
    Some((FunctionKey::new(namespace, name), at.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use node_shim_core::table::RevisionName;

    use super::*;

    fn key(name: &str) -> FunctionKey {
        FunctionKey::new("ns", name)
    }

    fn id(name: &str, revision: &str) -> RevisionKey {
        (key(name), RevisionName::new(revision).unwrap())
    }

    #[test]
    fn traffic_is_recent_for_a_day_and_survives_a_restart() {
        let day = 24 * 3600 * 1000;
        let mut recent_traffic = RecentTraffic::default();
        recent_traffic.observe(
            BTreeMap::from([(id("a", "r1"), 5), (id("b", "r1"), 0)]),
            1_000,
        );
        assert!(recent_traffic.contains(&key("a")) && !recent_traffic.contains(&key("b")));
        recent_traffic.observe(
            BTreeMap::from([(id("a", "r1"), 5), (id("b", "r1"), 1)]),
            2_000,
        );
        let mut again = RecentTraffic::from_text(&recent_traffic.to_text(), 3_000);
        assert!(again.contains(&key("a")) && again.contains(&key("b")));
        again.observe(BTreeMap::new(), 1_500 + day);
        assert!(!again.contains(&key("a")) && again.contains(&key("b")));
    }

    #[test]
    fn traffic_is_seen_although_counters_of_an_older_revision_were_dropped() {
        let mut recent_traffic = RecentTraffic::default();
        recent_traffic.observe(
            BTreeMap::from([(id("a", "r1"), 500), (id("a", "r2"), 0)]),
            0,
        );
        recent_traffic.observe(BTreeMap::from([(id("a", "r2"), 1)]), 60_000);
        let within = recent_traffic.within(Duration::from_secs(10), 60_000);
        assert_eq!(within, BTreeSet::from([key("a")]));
    }

    #[test]
    fn without_recorded_traffic_all_functions_are_required_for_readiness() {
        let all = [key("a"), key("b")];
        assert_eq!(
            RecentTraffic::default()
                .required_for_readiness(all.iter())
                .len(),
            2
        );
        let recent_traffic = RecentTraffic::from_text("ns/a 10\nnonsense\nns/x y\n", 20);
        assert_eq!(
            recent_traffic.required_for_readiness(all.iter()),
            BTreeSet::from([key("a")])
        );
    }
}
