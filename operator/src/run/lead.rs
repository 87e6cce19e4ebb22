//! Work that only the leader does, besides serving nodes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::shared::Shared;
use super::start::Start;
use crate::dispatch::QueueAllReason;
use crate::lease::Leadership;
use crate::{certificate_secret, edge_nodes, node_liveness, reconcile};

/// Time that a new leader gives nodes to reconnect before it makes decisions about them.
const SETTLE: Duration = Duration::from_secs(1);

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
            fleet.expect(edge_nodes::serving(&caches.edge_nodes));
            tokio::time::sleep(SETTLE).await;
            if let Some(epoch) = start.lease.raise_above(start.highest_epoch()).await {
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
