//! Work that only the leader does, besides serving nodes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::shared::Shared;
use super::start::Start;
use crate::dispatch::QueueAllReason;
use crate::failure_log::FailureLog;
use crate::lease::Leadership;
use crate::{certificate_secret, edge_nodes, node_liveness, reconcile};

/// Time that a new leader gives nodes to reconnect before it makes decisions about them.
const SETTLE: Duration = Duration::from_secs(1);

/// Time between two attempts to raise the epoch.
const RAISE_RETRY: Duration = Duration::from_secs(1);

/// Each time this replica becomes leader, raises the epoch above all used ones, then starts deciding.
pub(super) async fn lead(start: Start) {
    let Shared {
        client,
        caches,
        secrets,
        fleet,
        dispatch,
        metrics,
        ..
    } = &start.shared;
    let mut leadership = start.lease.leadership();
    loop {
        let epoch = leadership.borrow_and_update().epoch;
        metrics.set_leading(epoch.is_some());
        if epoch.is_some() {
            fleet.expect_nodes(edge_nodes::serving(&caches.edge_nodes));
            tokio::time::sleep(SETTLE).await;
            if let Some(epoch) = raise(&start, &leadership).await {
                tracing::info!(epoch, "deciding");
                dispatch.queue_all(&QueueAllReason::Leading);
                tokio::select! {
                    () = reconcile::run(Arc::clone(&start.reconciler), epoch) => {}
                    () = certificate_secret::maintain(client.clone(), start.namespace.clone(), secrets.clone()) => {}
                    () = edge_nodes::maintain(client.clone(), caches.clone(), fleet.clone()) => {}
                    () = node_liveness::follow(dispatch.clone(), fleet.clone()) => {}
                    () = lost(leadership.clone(), epoch) => tracing::warn!("no longer deciding"),
                }
            }
        }
        if leadership.changed().await.is_err() {
            // The election has ended and reports the reason; do not report a second one.
            std::future::pending::<()>().await;
        }
    }
}

/// Raises the epoch above all used ones. A failed write is repeated for as long as this replica leads: otherwise it would
/// renew the Lease and decide nothing. Returns `None` once it no longer leads.
async fn raise(start: &Start, leadership: &watch::Receiver<Leadership>) -> Option<u64> {
    raise_with(leadership, || {
        start.lease.raise_above(start.highest_epoch())
    })
    .await
}

async fn raise_with<F>(
    leadership: &watch::Receiver<Leadership>,
    mut raise: impl FnMut() -> F,
) -> Option<u64>
where
    F: Future<Output = Option<u64>>,
{
    let mut log = FailureLog::default();
    loop {
        if let Some(epoch) = raise().await {
            return Some(epoch);
        }
        leadership.borrow().epoch?;
        if let Some(failures) = log.failed("") {
            tracing::warn!(
                failures,
                "this replica leads and cannot decide yet: the epoch was not raised; trying again"
            );
        }
        tokio::time::sleep(RAISE_RETRY).await;
    }
}

impl Start {
    /// Highest epoch that is persisted in any object or in use by any node.
    fn highest_epoch(&self) -> u64 {
        let persisted = self
            .shared
            .caches
            .functions
            .all()
            .into_values()
            .filter_map(|function| {
                let status = function.status.as_ref()?;
                let split = status
                    .rollout
                    .as_ref()
                    .and_then(|rollout| rollout.version.as_ref())
                    .map_or(0, |token| token.epoch);
                let accepted = status
                    .accepted
                    .as_ref()
                    .and_then(|accepted| accepted.version.as_ref())
                    .map_or(0, |token| token.epoch);
                Some(split.max(accepted))
            });
        persisted
            .max()
            .unwrap_or(0)
            .max(self.shared.fleet.max_epoch_seen())
    }
}

async fn lost(mut leadership: watch::Receiver<Leadership>, epoch: u64) {
    let _ = leadership
        .wait_for(|current| current.epoch.is_none_or(|now| now < epoch))
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leading(epoch: Option<u64>) -> (watch::Sender<Leadership>, watch::Receiver<Leadership>) {
        let holder = None;
        watch::channel(Leadership { holder, epoch })
    }

    /// A leader whose first write of the Lease fails renewed it afterwards and never decided.
    #[tokio::test(start_paused = true)]
    async fn an_epoch_that_could_not_be_raised_is_raised_later() {
        let (_sender, leadership) = leading(Some(3));
        let mut answers = [None, None, Some(4)].into_iter();
        let raised = raise_with(&leadership, || std::future::ready(answers.next().flatten())).await;
        assert_eq!(raised, Some(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_no_longer_leads_stops_trying() {
        let (_sender, leadership) = leading(None);
        let raised = raise_with(&leadership, || std::future::ready(None)).await;
        assert_eq!(raised, None);
    }
}
