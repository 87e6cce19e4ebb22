//! What the nodes should have.
//!
//! One record per function, encoded once when it changes; streams share the bytes. A stream's queue
//! holds only the keys of what changed, so the newest content wins by construction and the queue is
//! bounded by functions, whatever happens in between.

mod compare;
mod encode;
mod hint;
mod queue;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use node_api::{FencingToken, v1};
use tokio::time::Instant;

use super::FunctionKey;
use super::change_log::ChangeLog;
use super::placement::Placement;
pub use hint::HintRefused;
use queue::Change;
pub(super) use queue::StreamQueue;
pub(super) use snapshot::{Opening, ReadyBatch, SnapshotParts};

/// A record larger than this cannot travel beside others, bytes.
const RECORD_BYTES: usize = 2 * 1024 * 1024;

/// Why a record did not enter the tables.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordRefused {
    /// It has no key or no share.
    #[error("the record has no {0}")]
    Incomplete(&'static str),
    /// Its encoding is above the limit; the function keeps its former record.
    #[error("{bytes} bytes; a record may have {limit}")]
    TooLarge {
        /// Encoded size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// The tables of one replica; clones share them. Every replica feeds its own from its caches.
#[derive(Clone, Default)]
pub struct Tables(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    synced: bool,
    version: u64,
    functions: HashMap<FunctionKey, Entry>,
    by_digest: HashMap<String, BTreeSet<FunctionKey>>,
    labels: HashMap<String, BTreeMap<String, String>>,
    log: ChangeLog,
    streams: BTreeMap<u64, Arc<StreamQueue>>,
    next_stream: u64,
}

struct Entry {
    record: v1::FunctionRecord,
    placement: Placement,
    /// As field `functions` of a batch.
    whole: Bytes,
    /// As field `shares` of a batch.
    share: Bytes,
}

impl Tables {
    /// Empty tables that serve nobody before [`Tables::synced`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a record, new or changed; a call that changes nothing reaches no node. A share with a
    /// smaller pair than the one held (a hint burned it) is ignored, the rest of the record is taken.
    ///
    /// # Errors
    /// The record is incomplete or too large; the former one stays.
    pub fn upsert(
        &self,
        record: v1::FunctionRecord,
        placement: Placement,
    ) -> Result<(), RecordRefused> {
        self.lock().upsert(record, placement, Instant::now())
    }

    /// Takes a function away. `version` is the resourceVersion of its deletion, or 0 when a list no
    /// longer had it.
    pub fn remove(&self, key: &FunctionKey, version: u64) {
        self.lock().remove(key, version, Instant::now());
    }

    /// The caches are complete, as of `list_version`: the resourceVersion of a list made *after* the
    /// caches were filled. Deletions before it are not known here, so nodes with less get a snapshot.
    pub fn synced(&self, list_version: u64) {
        let mut state = self.lock();
        state.version = state.version.max(list_version);
        state.synced = true;
        let floor = state.version;
        state.log.restart(floor);
    }

    /// Whether [`Tables::synced`] was called.
    pub fn is_synced(&self) -> bool {
        self.lock().synced
    }

    /// The labels of a node, told to it when it connects.
    pub fn set_node(&self, node: &str, labels: BTreeMap<String, String>) {
        self.lock().labels.insert(node.to_owned(), labels);
    }

    /// The node is gone.
    pub fn remove_node(&self, node: &str) {
        self.lock().labels.remove(node);
    }

    /// The highest resourceVersion seen, and a little more for changes without one.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// How many functions there are.
    pub fn len(&self) -> usize {
        self.lock().functions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The functions placed on `node` that refer to the component `digest`.
    pub(super) fn referring(&self, node: &str, digest: &str) -> Vec<FunctionKey> {
        let state = self.lock();
        let Some(keys) = state.by_digest.get(digest) else {
            return Vec::new();
        };
        let placed = |key: &&FunctionKey| {
            let entry = state.functions.get(*key);
            entry.is_some_and(|entry| entry.placement.includes(node))
        };
        keys.iter().filter(placed).cloned().collect()
    }

    pub(super) fn node_labels(&self, node: &str) -> BTreeMap<String, String> {
        self.lock().labels.get(node).cloned().unwrap_or_default()
    }

    /// A panic while the lock was held cannot leave the maps half-changed in a way that matters more
    /// than serving nobody, so the poison is ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn upsert(
        &mut self,
        mut record: v1::FunctionRecord,
        placement: Placement,
        now: Instant,
    ) -> Result<(), RecordRefused> {
        let key = record
            .key
            .as_ref()
            .map(FunctionKey::from)
            .ok_or(RecordRefused::Incomplete("key"))?;
        let pair = token_of(&record).ok_or(RecordRefused::Incomplete("share with a pair"))?;
        let old = self.functions.get(&key);
        if let Some(old) = old
            && old.record.uid == record.uid
            && token_of(&old.record).is_some_and(|held| held > pair)
        {
            keep_newer(&mut record, &old.record);
        }
        let version = record.version;
        let (change, left) = match old {
            None => (Some(Change::Whole), Placement::nowhere()),
            Some(old) => {
                record.version = record.version.max(old.record.version);
                let left = lost(&old.placement, &placement);
                (change_between(old, &record, &placement), left)
            }
        };
        let Some(change) = change else {
            // the write that a hint ran ahead of: who missed the hint has to hear of it by this version
            self.log.raise(&key, version);
            self.version = self.version.max(version);
            return Ok(());
        };
        let placement_changed = old.is_some_and(|old| old.placement != placement);
        let entry = Entry::new(record, placement)?;
        self.forget_digests(&key);
        for definition in &entry.record.definitions {
            let keys = self.by_digest.entry(definition.digest.clone());
            keys.or_default().insert(key.clone());
        }
        for stream in self.streams.values() {
            if entry.placement.includes(stream.node()) {
                let had = old_includes(self.functions.get(&key), stream.node());
                stream.push(&key, if had { change } else { Change::Whole });
            } else if left.includes(stream.node()) {
                stream.push(&key, Change::Removal);
            }
        }
        let version = self.advance(version);
        self.log.note(&key, version, left, placement_changed, now);
        self.functions.insert(key, entry);
        Ok(())
    }

    /// The version of the tables with a change that came by an object of `version`. What has no newer
    /// object behind it (another placement, a hint, an object that came late) takes a number of its own:
    /// a node that was away must not look as if it had it.
    fn advance(&mut self, version: u64) -> u64 {
        self.version = version.max(self.version.saturating_add(1));
        self.version
    }

    fn remove(&mut self, key: &FunctionKey, version: u64, now: Instant) {
        self.forget_digests(key);
        let Some(old) = self.functions.remove(key) else {
            self.version = self.version.max(version);
            return;
        };
        for stream in self.streams.values() {
            if old.placement.includes(stream.node()) {
                stream.push(key, Change::Removal);
            }
        }
        let version = self.advance(version);
        self.log.note(key, version, old.placement, true, now);
    }

    fn forget_digests(&mut self, key: &FunctionKey) {
        let Some(old) = self.functions.get(key) else {
            return;
        };
        for definition in &old.record.definitions {
            if let Some(keys) = self.by_digest.get_mut(&definition.digest) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_digest.remove(&definition.digest);
                }
            }
        }
    }
}

fn old_includes(old: Option<&Entry>, node: &str) -> bool {
    old.is_some_and(|old| old.placement.includes(node))
}

/// The nodes of `old` that are not in `new`.
fn lost(old: &Placement, new: &Placement) -> Placement {
    match (old, new) {
        (_, Placement::All) => Placement::nowhere(),
        // who else had it is not known by name, and whoever has it now is served by its placement
        (Placement::All, Placement::Nodes(_)) => Placement::All,
        (Placement::Nodes(old), Placement::Nodes(new)) => {
            Placement::Nodes(Arc::new(old.difference(new).cloned().collect()))
        }
    }
}

/// None when nothing that a node could notice differs.
fn change_between(
    old: &Entry,
    record: &v1::FunctionRecord,
    placement: &Placement,
) -> Option<Change> {
    let held = &old.record;
    let same_frame = held.uid == record.uid
        && held.created == record.created
        && held.accepted == record.accepted
        && held.routes == record.routes
        && held.suspended == record.suspended
        && held.definitions == record.definitions;
    if !same_frame || old.placement != *placement {
        Some(Change::Whole)
    } else if held.share != record.share {
        Some(Change::Share)
    } else {
        None
    }
}

/// The share that is held is newer than what came: it stays, with all that it names, and so do routes that were
/// accepted later. The rest of what came need not be older: a hint runs ahead of its write.
fn keep_newer(record: &mut v1::FunctionRecord, held: &v1::FunctionRecord) {
    record.share.clone_from(&held.share);
    for definition in &held.definitions {
        let is_it = |other: &v1::Definition| other.revision == definition.revision;
        if !record.definitions.iter().any(is_it) {
            record.definitions.push(definition.clone());
        }
    }
    record
        .definitions
        .sort_by(|a, b| a.revision.cmp(&b.revision));
    let token = |accepted: Option<v1::Pair>| accepted.map(FencingToken::from);
    if token(held.accepted) > token(record.accepted) {
        record.accepted = held.accepted;
        record.routes.clone_from(&held.routes);
        record.suspended = held.suspended;
    }
}

/// Token of the record's share.
fn token_of(record: &v1::FunctionRecord) -> Option<FencingToken> {
    record.share.as_ref()?.pair.map(FencingToken::from)
}

#[cfg(test)]
impl Tables {
    /// What every node with this function placed on it is told.
    pub(crate) fn told_for_test(&self, key: &FunctionKey) -> Option<v1::FunctionRecord> {
        let state = self.lock();
        state.functions.get(key).map(|entry| entry.record.clone())
    }
}

#[cfg(test)]
mod histories;
