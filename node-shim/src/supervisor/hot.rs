//! Functions with traffic on this node in the last 24 h: the order of loading, and what readiness
//! after a restart waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use node_shim_core::table::FunctionKey;

const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Who had traffic when, ms since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hot {
    seen: BTreeMap<FunctionKey, u64>,
    totals: BTreeMap<FunctionKey, u64>,
}

impl Hot {
    /// What an earlier process wrote.
    pub(crate) fn read(text: &str, now: u64) -> Self {
        let seen = text.lines().filter_map(parse).collect();
        let mut hot = Self {
            seen,
            totals: BTreeMap::new(),
        };
        hot.forget_old(now);
        hot
    }

    /// One function a line.
    pub(crate) fn write(&self) -> String {
        self.seen
            .iter()
            .map(|(key, at)| format!("{key} {at}\n"))
            .collect()
    }

    /// Takes the number of requests of each function since the start of the process.
    pub(crate) fn observe(&mut self, totals: BTreeMap<FunctionKey, u64>, now: u64) {
        for (key, total) in &totals {
            if self.totals.get(key).copied().unwrap_or_default() < *total {
                self.seen.insert(key.clone(), now);
            }
        }
        self.totals = totals;
        self.forget_old(now);
    }

    pub(crate) fn contains(&self, key: &FunctionKey) -> bool {
        self.seen.contains_key(key)
    }

    /// Those with traffic within this time.
    pub(crate) fn within(&self, time: Duration, now: u64) -> BTreeSet<FunctionKey> {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let recent = self
            .seen
            .iter()
            .filter(|(_, at)| now.saturating_sub(**at) <= time);
        recent.map(|(key, _)| key.clone()).collect()
    }

    /// Of the functions given, those to wait for: all when nothing is known.
    pub(crate) fn awaited<'a>(
        &self,
        all: impl Iterator<Item = &'a FunctionKey>,
    ) -> BTreeSet<FunctionKey> {
        all.filter(|key| self.seen.is_empty() || self.contains(key))
            .cloned()
            .collect()
    }

    fn forget_old(&mut self, now: u64) {
        let kept = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
        self.seen.retain(|_, at| now.saturating_sub(*at) < kept);
    }
}

fn parse(line: &str) -> Option<(FunctionKey, u64)> {
    let (key, at) = line.split_once(' ')?;
    let (namespace, name) = key.split_once('/')?;
    Some((FunctionKey::new(namespace, name), at.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> FunctionKey {
        FunctionKey::new("ns", name)
    }

    #[test]
    fn traffic_makes_hot_for_a_day_and_survives_a_restart() {
        let day = 24 * 3600 * 1000;
        let mut hot = Hot::default();
        hot.observe(BTreeMap::from([(key("a"), 5), (key("b"), 0)]), 1_000);
        assert!(hot.contains(&key("a")) && !hot.contains(&key("b")));
        hot.observe(BTreeMap::from([(key("a"), 5), (key("b"), 1)]), 2_000);
        let mut again = Hot::read(&hot.write(), 3_000);
        assert!(again.contains(&key("a")) && again.contains(&key("b")));
        again.observe(BTreeMap::new(), 1_500 + day);
        assert!(!again.contains(&key("a")) && again.contains(&key("b")));
    }

    #[test]
    fn without_knowledge_all_are_awaited() {
        let all = [key("a"), key("b")];
        assert_eq!(Hot::default().awaited(all.iter()).len(), 2);
        let hot = Hot::read("ns/a 10\nnonsense\nns/x y\n", 20);
        assert_eq!(hot.awaited(all.iter()), BTreeSet::from([key("a")]));
    }
}
