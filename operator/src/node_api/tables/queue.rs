//! What one stream still has to be told: keys and kinds of change, never content.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use node_api::v1;
use tokio::sync::Notify;

use super::FunctionKey;

/// The greatest wins when two meet, but a removal and a record replace each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node_api) enum Change {
    Share,
    Whole,
    Removal,
}

#[derive(Default)]
struct Waiting {
    changes: BTreeMap<FunctionKey, Change>,
    hints: BTreeMap<FunctionKey, v1::ShareUpdate>,
}

/// See the module's text.
pub(in crate::node_api) struct StreamQueue {
    node: String,
    waiting: Mutex<Waiting>,
    changed: Notify,
    hinted: Notify,
}

impl StreamQueue {
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            waiting: Mutex::default(),
            changed: Notify::new(),
            hinted: Notify::new(),
        }
    }

    pub(in crate::node_api) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn push(&self, key: &FunctionKey, change: Change) {
        let mut waiting = self.lock();
        match waiting.changes.get_mut(key) {
            // the node still lacks what the earlier change brings
            Some(Change::Whole) if change == Change::Share => {}
            Some(earlier) => {
                *earlier = match (*earlier, change) {
                    (Change::Removal, Change::Share) => Change::Whole,
                    (_, newer) => newer,
                }
            }
            None => {
                waiting.changes.insert(key.clone(), change);
            }
        }
        drop(waiting);
        self.changed.notify_one();
    }

    pub(super) fn push_hint(&self, key: &FunctionKey, hint: v1::ShareUpdate) {
        self.lock().hints.insert(key.clone(), hint);
        self.hinted.notify_one();
    }

    pub(in crate::node_api) fn take_hints(&self) -> Vec<v1::ShareUpdate> {
        std::mem::take(&mut self.lock().hints)
            .into_values()
            .collect()
    }

    /// The first change that waits, taken out.
    pub(in crate::node_api) fn pop(&self) -> Option<(FunctionKey, Change)> {
        self.lock().changes.pop_first()
    }

    pub(in crate::node_api) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.changes.is_empty() && waiting.hints.is_empty()
    }

    /// Completes when something was pushed since the last time it completed.
    pub(in crate::node_api) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The same for hints.
    pub(in crate::node_api) async fn hinted(&self) {
        self.hinted.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
