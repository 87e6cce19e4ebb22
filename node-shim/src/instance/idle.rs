//! Idle instances of the data plane, which wait for the next request of their revision. They give way to whatever needs
//! their slots or memory, and are dropped when their revision leaves the table, under memory pressure and at a drain.

use std::sync::Arc;
use std::time::Instant;

use node_shim_core::instance_reuse::{DropCause, IdleSet};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::reusable::ReusableInstance;
use crate::instance_budget::GiveWay;
use crate::node_counters::NodeCounters;
use crate::revision::Revision;
use crate::routing_table::RoutingTable;

/// All idle instances of the process.
pub(crate) struct IdleInstances {
    state: Mutex<State>,
    /// Notified when an instance expires earlier than the others.
    earlier: Notify,
    counters: Arc<NodeCounters>,
}

#[derive(Default)]
struct State {
    /// Instances by the address of their revision, which they keep alive.
    idle: IdleSet<usize, ReusableInstance>,
    /// The current table. Only the revisions in it have idle instances.
    table: Arc<RoutingTable>,
    /// Time at which the next instance expires as far as [`IdleInstances::run`] is concerned.
    scheduled: Option<Instant>,
    under_pressure: bool,
    draining: bool,
}

impl IdleInstances {
    pub(crate) fn new(counters: Arc<NodeCounters>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            earlier: Notify::new(),
            counters,
        })
    }

    /// Returns an idle instance of the revision, which is no longer idle.
    pub(crate) fn take(&self, revision: &Arc<Revision>) -> Option<ReusableInstance> {
        if !revision.reuses_instances() {
            return None;
        }
        loop {
            let instance = self.lock().idle.take(&address(revision))?;
            // the response can fail after the guest has ended
            if !instance.has_failed() {
                self.counters.reused();
                return Some(instance);
            }
            instance.drop_for(DropCause::Failed);
        }
    }

    /// Ends the request of an instance, and keeps the instance if it can answer another one.
    pub(super) fn keep(&self, mut instance: ReusableInstance, succeeded: bool) {
        if !instance.revision().spec.reuse.is_enabled() {
            return;
        }
        if let Some(cause) = instance.end_request(succeeded) {
            return instance.drop_for(cause);
        }
        let revision = instance.revision().clone();
        let expires = Instant::now() + revision.spec.reuse.idle_timeout;
        let mut state = self.lock();
        if let Some(cause) = state.refuses(&revision) {
            drop(state);
            return instance.drop_for(cause);
        }
        state.idle.put(address(&revision), instance, expires);
        if state.scheduled.is_none_or(|at| expires < at) {
            self.earlier.notify_one();
        }
    }

    /// Drops the instances of a revision that does not stand reuse.
    pub(super) fn forget(&self, revision: &Arc<Revision>) {
        let unsafe_revision = address(revision);
        let gone = self
            .lock()
            .idle
            .retain(|revision, _| *revision != unsafe_revision);
        drop_all(gone, DropCause::Unsafe);
    }

    /// Takes over a new table, and drops the instances of revisions that it does not contain.
    pub(crate) fn publish(&self, table: &Arc<RoutingTable>) {
        let mut state = self.lock();
        let old = std::mem::replace(&mut state.table, table.clone());
        let gone = state
            .idle
            .retain(|_, instance| table.serves(instance.revision()));
        drop(state);
        drop(old);
        drop_all(gone, DropCause::Retired);
    }

    /// Sets whether instances may be kept in spite of memory pressure.
    pub(crate) fn set_pressure(&self, under_pressure: bool) {
        let mut state = self.lock();
        state.under_pressure = under_pressure;
        let gone = if under_pressure {
            state.idle.clear()
        } else {
            Vec::new()
        };
        drop(state);
        drop_all(gone, DropCause::Pressure);
    }

    /// Drops all instances and keeps none from now on.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        let gone = state.idle.clear();
        drop(state);
        drop_all(gone, DropCause::Drain);
    }

    /// Drops all instances.
    pub(crate) fn clear(&self) {
        let gone = self.lock().idle.clear();
        drop_all(gone, DropCause::Evicted);
    }

    /// Returns the number of idle instances.
    pub(crate) fn len(&self) -> usize {
        self.lock().idle.len()
    }

    /// Drops instances when they expire. Never returns.
    pub(crate) async fn run(&self) {
        loop {
            let next = {
                let mut state = self.lock();
                state.scheduled = state.idle.next_expiry();
                state.scheduled
            };
            let Some(at) = next else {
                self.earlier.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(at.into()) => {
                    let expired = self.lock().idle.expire(Instant::now());
                    drop_all(expired, DropCause::Idle);
                }
                () = self.earlier.notified() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Returns why an instance of the revision is not kept.
    fn refuses(&self, revision: &Arc<Revision>) -> Option<DropCause> {
        // checked under the lock: `forget` follows the end of reuse, so it finds what was kept before
        if !revision.reuses_instances() {
            Some(DropCause::Unsafe)
        } else if self.draining {
            Some(DropCause::Drain)
        } else if self.under_pressure {
            Some(DropCause::Pressure)
        } else if !self.table.serves(revision) {
            Some(DropCause::Retired)
        } else {
            None
        }
    }
}

impl GiveWay for IdleInstances {
    fn give_way(&self) -> bool {
        let Some(oldest) = self.lock().idle.evict() else {
            return false;
        };
        oldest.drop_for(DropCause::Evicted);
        true
    }
}

/// Drops instances. Must be called without the lock, because a dropped instance gives its share back.
fn drop_all(instances: Vec<ReusableInstance>, cause: DropCause) {
    for instance in instances {
        instance.drop_for(cause);
    }
}

fn address(revision: &Arc<Revision>) -> usize {
    Arc::as_ptr(revision).addr()
}
