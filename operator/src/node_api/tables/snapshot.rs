//! Builds what a stream sends: the opening (difference or snapshot), then batches of changes.

use std::sync::Arc;

use bytes::Bytes;
use node_api::v1::SnapshotPhase;
use tokio::time::Instant;

use super::encode::{batch, removal};
use super::queue::{Change, StreamQueue};
use super::remote::Fields;
use super::{FunctionKey, State, Tables};

/// A registered stream: its queue and, when the log did not reach back far enough, a snapshot to send first.
pub(in crate::node_api) struct Opening {
    pub(in crate::node_api) id: u64,
    pub(in crate::node_api) queue: Arc<StreamQueue>,
    pub(in crate::node_api) snapshot: Option<SnapshotParts>,
}

/// Remaining keys of a snapshot. Content is read when a part is sent, so that what changes meanwhile may be sent
/// twice, but is never lost.
pub(in crate::node_api) struct SnapshotParts {
    version: u64,
    keys: Vec<FunctionKey>,
    /// Functions without a record, encoded for the last part. Their records, if they can be built meanwhile, are in the queue.
    kept: Vec<Bytes>,
    /// Whether the node receives functions of other nodes, and addresses.
    remote: bool,
    begun: bool,
}

/// An encoded batch.
pub(in crate::node_api) struct ReadyBatch {
    pub(in crate::node_api) message: Bytes,
    /// Table version that a node has after applying the batch.
    pub(in crate::node_api) version: u64,
}

impl Tables {
    /// Registers a stream of `node`, or returns `None` while the caches are not complete. Every later change reaches
    /// its queue. `remote` nodes also receive functions that are placed on other nodes only.
    pub(in crate::node_api) fn open(&self, node: &str, have: u64, remote: bool) -> Option<Opening> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if !state.synced {
            return None;
        }
        let queue = Arc::new(StreamQueue::new(node, remote));
        let now = Instant::now();
        if state.may_lack_addresses(have, now) {
            queue.push_all_addresses();
        }
        let snapshot = match state.log.since(have, now) {
            Some(missed) => {
                for one in missed {
                    let entry = state.functions.get(one.key);
                    if entry.is_some_and(|entry| entry.reaches(&queue)) {
                        queue.push(one.key, Change::Whole);
                    } else if one.was_on(node) || (remote && one.was_elsewhere()) {
                        queue.push(one.key, Change::Removal);
                    }
                }
                None
            }
            None => {
                // its last part has all addresses
                let _ = queue.take_addresses();
                let reached = state.functions.iter();
                let reached = reached.filter(|(_, entry)| entry.reaches(&queue));
                Some(SnapshotParts {
                    version: state.version,
                    keys: reached.map(|(key, _)| key.clone()).collect(),
                    kept: state.withheld.encode(),
                    remote,
                    begun: false,
                })
            }
        };
        let id = state.next_stream;
        state.next_stream += 1;
        state.streams.insert(id, Arc::clone(&queue));
        Some(Opening {
            id,
            queue,
            snapshot,
        })
    }

    /// Unregisters a stream that has ended.
    pub(in crate::node_api) fn close(&self, id: u64) {
        self.lock().streams.remove(&id);
    }

    /// Builds the next part of a snapshot, of about `bytes` bytes; `parts` is empty after the last one.
    pub(in crate::node_api) fn next_part(
        &self,
        node: &str,
        parts: &mut Option<SnapshotParts>,
        bytes: usize,
    ) -> Option<ReadyBatch> {
        let state = self.lock();
        let pending = parts.as_mut()?;
        let mut fields = Fields::default();
        while fields.bytes < bytes
            && let Some(key) = pending.keys.pop()
        {
            let Some(entry) = state.functions.get(&key) else {
                continue;
            };
            match &entry.remote {
                _ if entry.placement.includes(node) => fields.push(entry.whole.clone()),
                Some(remote) if pending.remote => fields.push_remote(remote),
                _ => {}
            }
        }
        let last = pending.keys.is_empty();
        let phase = match (pending.begun, last) {
            (false, true) => SnapshotPhase::Whole,
            (false, false) => SnapshotPhase::Begin,
            (true, false) => SnapshotPhase::Continue,
            (true, true) => SnapshotPhase::End,
        };
        pending.begun = true;
        let version = pending.version;
        if last {
            fields.list.append(&mut pending.kept);
            if pending.remote {
                state.all_addresses(&mut fields);
            }
            *parts = None;
        }
        drop(state);
        let message = batch(version, phase, &fields.list);
        Some(ReadyBatch { message, version })
    }

    /// Builds a batch of about `bytes` bytes from `queue`. While more is pending, the version stays at `sent`.
    /// Returns `None` when nothing is pending, unless `version_alone` is set and the version has changed.
    pub(in crate::node_api) fn next_batch(
        &self,
        queue: &StreamQueue,
        sent: u64,
        bytes: usize,
        version_alone: bool,
    ) -> Option<ReadyBatch> {
        let state = self.lock();
        let mut fields = Fields::default();
        state.changed_addresses(queue, &mut fields);
        while fields.bytes < bytes
            && let Some((key, change)) = queue.pop()
        {
            state.add(&key, change, queue, &mut fields);
        }
        // Read under the lock under which every change is pushed: an empty queue means that nothing is missing.
        let version = if queue.is_empty() {
            state.version.max(sent)
        } else {
            sent
        };
        drop(state);
        if fields.list.is_empty() && !(version_alone && version > sent) {
            return None;
        }
        let message = batch(version, SnapshotPhase::None, &fields.list);
        Some(ReadyBatch { message, version })
    }
}

impl State {
    /// Adds the newest content, whatever was queued: a function that left the node meanwhile is sent as one of other nodes or as a
    /// removal, and one that came back as a record.
    fn add(&self, key: &FunctionKey, change: Change, queue: &StreamQueue, fields: &mut Fields) {
        let Some(entry) = self.functions.get(key) else {
            return fields.push(removal(key, self.version));
        };
        match &entry.remote {
            _ if entry.placement.includes(queue.node()) => fields.push(match change {
                Change::Split => entry.split.clone(),
                Change::Whole | Change::Removal => entry.whole.clone(),
            }),
            Some(remote) if queue.takes_remote() => fields.push_remote(remote),
            _ => fields.push(removal(key, entry.record.version)),
        }
    }
}
