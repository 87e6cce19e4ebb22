//! Change notifications: sets of names that accumulate between two reads. A slow subscriber misses nothing, and costs
//! no more memory than the names.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::FunctionKey;

/// Changes since the last read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetChanges {
    /// Functions with a change: a node loaded, failed, acknowledged or lost a revision, or reported new exceptions.
    pub functions: BTreeSet<FunctionKey>,
    /// Nodes that joined, left, became silent, or reported another condition of themselves.
    pub nodes: BTreeSet<String>,
}

#[derive(Default)]
struct Mailbox {
    changed: Mutex<FleetChanges>,
    filled: Notify,
}

/// A subscription; dropping it ends it.
pub struct FleetSubscription(Arc<Mailbox>);

impl FleetSubscription {
    /// Waits until there are changes, and returns all changes since the last call.
    pub async fn next(&mut self) -> FleetChanges {
        loop {
            let taken = {
                let mut changed = self.0.changed.lock();
                std::mem::take(&mut *changed)
            };
            if taken != FleetChanges::default() {
                return taken;
            }
            self.0.filled.notified().await;
        }
    }
}

#[derive(Default)]
pub(super) struct Subscribers(Mutex<Vec<Weak<Mailbox>>>);

impl Subscribers {
    pub(super) fn subscribe(&self) -> FleetSubscription {
        let mailbox = Arc::new(Mailbox::default());
        let mut all = self.0.lock();
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&mailbox));
        FleetSubscription(mailbox)
    }

    pub(super) fn publish(&self, news: &FleetChanges) {
        if *news == FleetChanges::default() {
            return;
        }
        let all = self.0.lock();
        for mailbox in all.iter().filter_map(Weak::upgrade) {
            let mut changed = mailbox.changed.lock();
            changed.functions.extend(news.functions.iter().cloned());
            changed.nodes.extend(news.nodes.iter().cloned());
            drop(changed);
            mailbox.filled.notify_one();
        }
    }
}
