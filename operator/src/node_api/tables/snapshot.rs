//! Builds what a stream sends: the opening (difference or snapshot), then batches of changes.

use std::sync::Arc;

use bytes::Bytes;
use node_api::v1::SnapshotPhase;
use tokio::time::Instant;

use super::encode::{batch, removal};
use super::queue::{Change, StreamQueue};
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
    /// its queue.
    pub(in crate::node_api) fn open(&self, node: &str, have: u64) -> Option<Opening> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if !state.synced {
            return None;
        }
        let queue = Arc::new(StreamQueue::new(node));
        let snapshot = match state.log.since(have, Instant::now()) {
            Some(missed) => {
                for one in missed {
                    let entry = state.functions.get(one.key);
                    if entry.is_some_and(|entry| entry.placement.includes(node)) {
                        queue.push(one.key, Change::Whole);
                    } else if one.was_on(node) {
                        queue.push(one.key, Change::Removal);
                    }
                }
                None
            }
            None => Some(SnapshotParts {
                version: state.version,
                keys: state.placed_on(node),
                kept: state.withheld.encode(),
                begun: false,
            }),
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
        let mut fields = Vec::new();
        let mut size = 0;
        while size < bytes
            && let Some(key) = pending.keys.pop()
        {
            if let Some(entry) = state.functions.get(&key)
                && entry.placement.includes(node)
            {
                size += entry.whole.len();
                fields.push(entry.whole.clone());
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
            fields.append(&mut pending.kept);
            *parts = None;
        }
        drop(state);
        let message = batch(version, phase, &fields);
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
        let mut fields = Vec::new();
        let mut size = 0;
        while size < bytes
            && let Some((key, change)) = queue.pop()
        {
            let field = state.field(&key, change, queue.node());
            size += field.len();
            fields.push(field);
        }
        // Read under the lock under which every change is pushed: an empty queue means that nothing is missing.
        let version = if queue.is_empty() {
            state.version.max(sent)
        } else {
            sent
        };
        drop(state);
        if fields.is_empty() && !(version_alone && version > sent) {
            return None;
        }
        let message = batch(version, SnapshotPhase::None, &fields);
        Some(ReadyBatch { message, version })
    }
}

impl State {
    pub(super) fn placed_on(&self, node: &str) -> Vec<FunctionKey> {
        let placed = self
            .functions
            .iter()
            .filter(|(_, entry)| entry.placement.includes(node));
        placed.map(|(key, _)| key.clone()).collect()
    }

    /// Encodes the newest content, whatever was queued: a function that left the node meanwhile is sent as a removal,
    /// and one that came back as a record.
    fn field(&self, key: &FunctionKey, change: Change, node: &str) -> Bytes {
        match self.functions.get(key) {
            Some(entry) if entry.placement.includes(node) => match change {
                Change::Split => entry.split.clone(),
                Change::Whole | Change::Removal => entry.whole.clone(),
            },
            Some(entry) => removal(key, entry.record.version),
            None => removal(key, self.version),
        }
    }
}
