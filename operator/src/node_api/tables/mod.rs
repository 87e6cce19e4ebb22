//! Tables: the desired state of the nodes.
//!
//! Each function has one record, encoded once when it changes; streams share the bytes. A stream's queue holds only
//! the keys of changes, so that the newest content always wins and the queue is bounded by the number of functions.

mod compare;
mod encode;
mod hint;
mod queue;
mod remote;
mod snapshot;
mod withheld;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use node_api::{FencingToken, v1};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::FunctionKey;
use super::change_log::ChangeLog;
use super::placement::Placement;
pub use hint::HintRefused;
use queue::Change;
pub(super) use queue::StreamQueue;
use remote::{NodeAddresses, NodeSets, Remote};
pub(super) use snapshot::{Opening, ReadyBatch, SnapshotParts};
use withheld::Withheld;

/// Size limit of a record, in bytes; larger records do not fit into a batch with others.
const RECORD_BYTES: usize = 2 * 1024 * 1024;

/// Why a record was not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordRefused {
    /// The record has no key or no traffic split.
    #[error("the record has no {0}")]
    Incomplete(&'static str),
    /// The encoded record exceeds the limit; the function keeps its previous record.
    #[error("the record has {bytes} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Encoded size, in bytes.
        bytes: usize,
        /// Size limit, in bytes.
        limit: usize,
    },
}

/// The tables of one replica, filled from its own caches. Clones share the content.
#[derive(Clone, Default)]
pub struct Tables(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    synced: bool,
    version: u64,
    functions: HashMap<FunctionKey, Entry>,
    by_digest: HashMap<String, BTreeSet<FunctionKey>>,
    /// Functions without a record. None of them is in `functions`.
    withheld: Withheld,
    labels: HashMap<String, BTreeMap<String, String>>,
    /// Nodes that no longer exist and whose node-shim still runs: it receives requests until its pod is deleted.
    departed: BTreeSet<String>,
    log: ChangeLog,
    streams: BTreeMap<u64, Arc<StreamQueue>>,
    next_stream: u64,
    node_sets: NodeSets,
    addresses: NodeAddresses,
    /// Number of functions that nodes outside of their placement receive too.
    restricted: usize,
}

struct Entry {
    record: v1::FunctionRecord,
    placement: Placement,
    /// Encoded as field `functions` of a batch.
    whole: Bytes,
    /// Encoded as field `shares` of a batch.
    split: Bytes,
    /// What nodes outside of the placement receive. `None` if they receive nothing.
    remote: Option<Remote>,
}

impl Tables {
    /// Creates empty tables, which serve no node before [`Tables::synced`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores a new or changed record; a call that changes nothing reaches no node. If the traffic split has a lower
    /// fencing token than the stored one (used up by a hint), only the rest of the record is stored.
    ///
    /// # Errors
    /// The record is incomplete or too large; the previous one stays.
    pub fn upsert(
        &self,
        record: v1::FunctionRecord,
        placement: Placement,
    ) -> Result<(), RecordRefused> {
        self.lock().upsert(record, placement, false, Instant::now())
    }

    /// Like [`Tables::upsert`], for a function that is not placed on every node with a node-shim: the other nodes receive where it
    /// is, if they can forward requests.
    ///
    /// # Errors
    /// As for [`Tables::upsert`].
    pub fn upsert_restricted(
        &self,
        record: v1::FunctionRecord,
        placement: Placement,
    ) -> Result<(), RecordRefused> {
        self.lock().upsert(record, placement, true, Instant::now())
    }

    /// Removes a function. `version` is the resourceVersion of its deletion, or 0 when a list no longer had it.
    pub fn remove(&self, key: &FunctionKey, version: u64) {
        self.lock().remove(key, version, Instant::now());
    }

    /// Marks the caches as complete as of `list_version`, the resourceVersion of a list made *after* the caches were
    /// filled. Earlier deletions are not recorded here, so nodes with a lower version receive a snapshot.
    pub fn synced(&self, list_version: u64) {
        let mut state = self.lock();
        state.version = state.version.max(list_version);
        state.synced = true;
        let floor = state.version;
        state.log.restart(floor);
    }

    /// Sets the labels of a node, which it receives when it connects.
    pub fn set_node(&self, node: &str, labels: BTreeMap<String, String>) {
        let mut state = self.lock();
        state.departed.remove(node);
        state.labels.insert(node.to_owned(), labels);
    }

    /// Removes a node. As long as it has an address, functions that are stored are like those of [`Tables::upsert_restricted`]: the
    /// node passes their requests on.
    pub fn remove_node(&self, node: &str) {
        let mut state = self.lock();
        if state.labels.remove(node).is_some() && state.has_address(node) {
            state.departed.insert(node.to_owned());
        }
    }

    /// Highest resourceVersion seen, plus an increment for changes without one.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// Number of functions.
    pub fn len(&self) -> usize {
        self.lock().functions.len()
    }

    /// Whether there are no functions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the functions placed on `node` that refer to the component `digest`.
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

    /// A panic while the lock was held cannot leave the maps in a state that is worse than serving no node, so
    /// poisoning is ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn upsert(
        &mut self,
        mut record: v1::FunctionRecord,
        placement: Placement,
        restricted: bool,
        now: Instant,
    ) -> Result<(), RecordRefused> {
        let key = record
            .key
            .as_ref()
            .map(FunctionKey::from)
            .ok_or(RecordRefused::Incomplete("key"))?;
        let token = token_of(&record).ok_or(RecordRefused::Incomplete(
            "traffic split with a fencing token",
        ))?;
        let restricted = restricted || !self.departed.is_empty();
        let old = self.functions.get(&key);
        if let Some(old) = old
            && old.record.uid == record.uid
            && token_of(&old.record).is_some_and(|held| held > token)
        {
            keep_newer(&mut record, &old.record);
        }
        let version = record.version;
        let (change, left) = match old {
            None => (Some(Change::Whole), Placement::nowhere()),
            Some(old) => {
                record.version = record.version.max(old.record.version);
                keep_certificates(&mut record, &old.record);
                let left = lost(&old.placement, &placement);
                (change_between(&old.record, &record), left)
            }
        };
        let was_restricted = old.is_some_and(|old| old.remote.is_some());
        let entry = Entry::new(record, placement)?;
        let entry = self.with_remote(entry, restricted);
        let restricted = entry.remote.is_some();
        let old = self.functions.get(&key);
        let placement_changed =
            restricted != was_restricted || old.is_some_and(|old| old.placement != entry.placement);
        if change.is_none() && !placement_changed {
            // The write that a hint preceded: nodes that missed the hint must receive the split by this version.
            self.log.raise(&key, version);
            self.version = self.version.max(version);
            return Ok(());
        }
        for stream in self.streams.values() {
            if let Some(change) = change_for(stream, old, &entry, change) {
                stream.push(&key, change);
            }
        }
        self.withheld.remove(&key);
        self.forget_digests(&key);
        for definition in &entry.record.definitions {
            let keys = self.by_digest.entry(definition.digest.clone());
            keys.or_default().insert(key.clone());
        }
        let version = self.advance(version);
        self.log.note(&key, version, left, placement_changed, now);
        if was_restricted && !restricted {
            self.log.note_left_elsewhere(&key);
        }
        self.functions.insert(key, entry);
        self.count_restricted(was_restricted, restricted, now);
        Ok(())
    }

    /// Version of the tables after a change caused by an object of `version`. A change without a newer object
    /// (another placement, a hint, an object that arrived late) gets a new number: a node that was away must not
    /// appear to have it.
    fn advance(&mut self, version: u64) -> u64 {
        self.version = version.max(self.version.saturating_add(1));
        self.version
    }

    fn remove(&mut self, key: &FunctionKey, version: u64, now: Instant) {
        self.forget_digests(key);
        let Some(old) = self.functions.remove(key) else {
            if !self.remove_withheld(key, version, now) {
                self.version = self.version.max(version);
            }
            return;
        };
        for stream in self.streams.values() {
            if old.reaches(stream) {
                stream.push(key, Change::Removal);
            }
        }
        let version = self.advance(version);
        let restricted = old.remote.is_some();
        self.log.note(key, version, old.placement, true, now);
        if restricted {
            self.log.note_left_elsewhere(key);
        }
        self.count_restricted(restricted, false, now);
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

impl Entry {
    /// Whether the node of the stream has the function, or has received where it is.
    fn reaches(&self, stream: &StreamQueue) -> bool {
        self.placement.includes(stream.node()) || (stream.takes_remote() && self.remote.is_some())
    }
}

/// Returns what a stream has to send when `old` becomes `new`; `change` is the difference for nodes that have the function.
fn change_for(
    stream: &StreamQueue,
    old: Option<&Entry>,
    new: &Entry,
    change: Option<Change>,
) -> Option<Change> {
    let had = old.filter(|old| old.placement.includes(stream.node()));
    if new.placement.includes(stream.node()) {
        return if had.is_some() {
            change
        } else {
            Some(Change::Whole)
        };
    }
    if new.reaches(stream) {
        let differs = had.is_some() || old.is_none_or(|old| new.differs_elsewhere(old));
        return differs.then_some(Change::Whole);
    }
    old.is_some_and(|old| old.reaches(stream))
        .then_some(Change::Removal)
}

/// Returns the nodes of `old` that are not in `new`.
fn lost(old: &Placement, new: &Placement) -> Placement {
    match (old, new) {
        (_, Placement::All) => Placement::nowhere(),
        // The other nodes that had it are not known by name, and those that have it now receive it through their
        // placement.
        (Placement::All, Placement::Nodes(_)) => Placement::All,
        (Placement::Nodes(old), Placement::Nodes(new)) => {
            Placement::Nodes(Arc::new(old.difference(new).cloned().collect()))
        }
    }
}

/// Returns what changed for nodes that have the function and keep it; `None` if there is no visible difference.
fn change_between(held: &v1::FunctionRecord, record: &v1::FunctionRecord) -> Option<Change> {
    let same_frame = held.uid == record.uid
        && held.created == record.created
        && held.accepted == record.accepted
        && held.routes == record.routes
        && held.suspended == record.suspended
        && held.callers == record.callers
        && held.certificates == record.certificates
        && held.definitions == record.definitions;
    if !same_frame {
        Some(Change::Whole)
    } else if held.split != record.split {
        Some(Change::Split)
    } else {
        None
    }
}

/// Keeps the stored traffic split, which is newer than the received one, with the revisions it names and with routes
/// that were accepted later. The rest of the received record need not be older, because a hint precedes its write.
fn keep_newer(record: &mut v1::FunctionRecord, held: &v1::FunctionRecord) {
    record.split.clone_from(&held.split);
    for definition in &held.definitions {
        let is_it = |other: &v1::Definition| other.revision == definition.revision;
        if !record.definitions.iter().any(is_it) {
            record.definitions.push(definition.clone());
        }
    }
    record
        .definitions
        .sort_by(|a, b| a.revision.cmp(&b.revision));
    let token = |accepted: Option<v1::FencingToken>| accepted.map(FencingToken::from);
    if token(held.accepted) > token(record.accepted) {
        record.accepted = held.accepted;
        record.routes.clone_from(&held.routes);
        record.certificates.clone_from(&held.certificates);
        record.suspended = held.suspended;
        record.callers.clone_from(&held.callers);
    }
}

/// Keeps the pairs of certificates whose Secrets hold no usable one at present, as nodes do: a node that starts meanwhile must receive
/// what the others have.
fn keep_certificates(record: &mut v1::FunctionRecord, held: &v1::FunctionRecord) {
    if record.uid != held.uid {
        return;
    }
    for certificate in record
        .certificates
        .iter_mut()
        .filter(|one| one.pair.is_none())
    {
        let same = held.certificates.iter();
        let same = same.filter(|held| held.secret == certificate.secret);
        certificate.pair = same.filter_map(|held| held.pair.clone()).next();
    }
}

/// Returns the fencing token of the record's traffic split.
fn token_of(record: &v1::FunctionRecord) -> Option<FencingToken> {
    record.split.as_ref()?.token.map(FencingToken::from)
}

#[cfg(test)]
impl Tables {
    /// The record that nodes with this function receive.
    pub(crate) fn newest_record(&self, key: &FunctionKey) -> Option<v1::FunctionRecord> {
        let state = self.lock();
        state.functions.get(key).map(|entry| entry.record.clone())
    }

    /// The names of the nodes with this function, which is not placed on all.
    pub(crate) fn newest_placement(&self, key: &FunctionKey) -> Vec<String> {
        let state = self.lock();
        match state.functions.get(key).map(|entry| &entry.placement) {
            Some(Placement::Nodes(names)) => names.iter().cloned().collect(),
            Some(Placement::All) | None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
