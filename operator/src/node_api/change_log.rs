//! Log of recent changes, so that a node that reconnects receives only the difference.
//!
//! The log is bounded by functions and by time: one entry per function, the newest, for [`KEEP`]. An entry names the
//! nodes that lost the function meanwhile, because they must receive the removal although the function is no longer
//! placed there.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::FunctionKey;
use super::placement::Placement;

/// How long changes are kept.
pub(super) const KEEP: Duration = Duration::from_secs(600);

/// Replicas fill their caches in different orders, so a node may have a high version and still lack an object with a
/// lower one. Changes logged this recently are sent again; fencing tokens make that harmless.
const OVERLAP: Duration = Duration::from_secs(60);

struct Logged {
    sequence: u64,
    version: u64,
    at: Instant,
    left: Placement,
    /// Whether nodes that can forward, and had it as a function of other nodes, no longer have it.
    left_elsewhere: bool,
    placement_changed: bool,
}

/// Log of recent changes, one entry per function.
#[derive(Default)]
pub(super) struct ChangeLog {
    by_key: HashMap<FunctionKey, Logged>,
    order: BTreeMap<u64, FunctionKey>,
    next: u64,
    floor: u64,
}

/// A change that a reconnecting node has missed.
pub(super) struct Missed<'a> {
    pub(super) key: &'a FunctionKey,
    left: &'a Placement,
    left_elsewhere: bool,
}

impl Missed<'_> {
    /// Whether `node` had the function within the period of the log.
    pub(super) fn was_on(&self, node: &str) -> bool {
        self.left.includes(node)
    }

    /// Whether nodes that can forward had it as a function of other nodes within the period of the log.
    pub(super) const fn was_elsewhere(&self) -> bool {
        self.left_elsewhere
    }
}

impl ChangeLog {
    /// Clears the log; differences are available from `version` on.
    pub(super) fn restart(&mut self, version: u64) {
        *self = Self {
            floor: version,
            ..Self::default()
        };
    }

    /// Records a change of `key`; `left` are the nodes that had it before and do not have it now.
    pub(super) fn note(
        &mut self,
        key: &FunctionKey,
        version: u64,
        left: Placement,
        placement_changed: bool,
        now: Instant,
    ) {
        self.evict(now);
        let sequence = self.next;
        self.next += 1;
        let mut entry = Logged {
            sequence,
            version,
            at: now,
            left,
            left_elsewhere: false,
            placement_changed,
        };
        if let Some(old) = self.by_key.remove(key) {
            self.order.remove(&old.sequence);
            entry.version = entry.version.max(old.version);
            entry.left = entry.left.union(&old.left);
            entry.left_elsewhere = old.left_elsewhere;
            entry.placement_changed |= old.placement_changed;
        }
        self.order.insert(sequence, key.clone());
        self.by_key.insert(key.clone(), entry);
    }

    /// Records, after a change of `key`, that nodes outside of its placement no longer have it as a function of other nodes.
    pub(super) fn note_left_elsewhere(&mut self, key: &FunctionKey) {
        if let Some(entry) = self.by_key.get_mut(key) {
            entry.left_elsewhere = true;
        }
    }

    /// Raises the version of a recorded change to that of the object that also contains it.
    pub(super) fn raise(&mut self, key: &FunctionKey, version: u64) {
        if let Some(entry) = self.by_key.get_mut(key) {
            entry.version = entry.version.max(version);
        }
    }

    /// Returns the changes since version `have`, or `None` when the log does not reach that far back.
    pub(super) fn since(&mut self, have: u64, now: Instant) -> Option<Vec<Missed<'_>>> {
        self.evict(now);
        if have < self.floor || have == 0 {
            return None;
        }
        let missed = |entry: &Logged| {
            entry.version >= have || entry.placement_changed || entry.at + OVERLAP >= now
        };
        let mut found = Vec::new();
        for key in self.order.values() {
            if let Some((key, entry)) = self.by_key.get_key_value(key)
                && missed(entry)
            {
                found.push(Missed {
                    key,
                    left: &entry.left,
                    left_elsewhere: entry.left_elsewhere,
                });
            }
        }
        Some(found)
    }

    fn evict(&mut self, now: Instant) {
        while let Some(first) = self.order.first_entry() {
            match self.by_key.get(first.get()) {
                Some(entry) if entry.at + KEEP >= now => break,
                Some(entry) => {
                    self.floor = self.floor.max(entry.version);
                    let key = first.remove();
                    self.by_key.remove(&key);
                }
                None => {
                    first.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(log: &mut ChangeLog, have: u64, now: Instant) -> Option<Vec<String>> {
        log.since(have, now)
            .map(|missed| missed.iter().map(|m| m.key.name.to_string()).collect())
    }

    #[test]
    fn an_old_change_is_sent_only_to_nodes_that_lack_it() {
        let mut log = ChangeLog::default();
        log.restart(10);
        let start = Instant::now();
        let (a, b) = (FunctionKey::new("n", "a"), FunctionKey::new("n", "b"));
        log.note(&a, 11, Placement::nowhere(), false, start);
        log.note(&b, 12, Placement::nowhere(), false, start);
        let later = start + OVERLAP + Duration::from_secs(1);
        assert_eq!(keys(&mut log, 12, later), Some(vec!["b".to_owned()]));
        assert_eq!(keys(&mut log, 13, later), Some(vec![]));
        assert_eq!(keys(&mut log, 13, start).map(|all| all.len()), Some(2));
        assert_eq!(keys(&mut log, 9, later), None, "before the log began");
        assert_eq!(keys(&mut log, 0, later), None, "a node with nothing");
    }

    #[test]
    fn evicted_changes_raise_the_floor() {
        let mut log = ChangeLog::default();
        log.restart(10);
        let start = Instant::now();
        log.note(
            &FunctionKey::new("n", "a"),
            15,
            Placement::nowhere(),
            false,
            start,
        );
        let later = start + KEEP + Duration::from_secs(1);
        assert_eq!(keys(&mut log, 14, later), None);
        assert_eq!(keys(&mut log, 15, later), Some(vec![]));
    }

    #[test]
    fn a_change_of_placement_is_sent_at_any_version_of_the_node() {
        let mut log = ChangeLog::default();
        log.restart(10);
        let start = Instant::now();
        let key = FunctionKey::new("n", "a");
        log.note(&key, 11, Placement::nodes(["node-1"]), true, start);
        let later = start + OVERLAP + Duration::from_secs(1);
        let missed = log.since(500, later).unwrap();
        assert_eq!(missed.len(), 1);
        assert!(missed[0].was_on("node-1") && !missed[0].was_on("node-2"));
    }
}
