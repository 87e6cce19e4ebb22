//! What the leader does beside serving nodes, for as long as it leads.

use std::sync::Arc;

use tokio::sync::watch;

use super::{SETTLE, Start};
use crate::lease::Leadership;
use crate::{edge_nodes, certificate_secret};

/// Whenever this replica leads: raise the epoch above everything that was used, then decide.
pub(super) async fn lead(start: Start) {
    let mut leadership = start.lease.leadership();
    loop {
        let epoch = leadership.borrow_and_update().epoch;
        start.reconciler.metrics.set_leading(epoch.is_some());
        if epoch.is_some() {
            start
                .fleet
                .expect(edge_nodes::serving(&start.caches.edge_nodes));
            tokio::time::sleep(SETTLE).await;
            if let Some(epoch) = start.lease.raise_above(start.highest_epoch()).await {
                tracing::info!(epoch, "deciding");
                start.dispatch.everything();
                let reconciler = &start.reconciler;
                tokio::select! {
                    () = Arc::clone(reconciler).work(epoch) => {}
                    () = Arc::clone(reconciler).sweep_claims() => {}
                    () = Arc::clone(reconciler).tell_unreadable() => {}
                    () = certificate_secret::keep(start.client.clone(), start.args_namespace.clone(), start.secrets.clone()) => {}
                    () = edge_nodes::keep(start.client.clone(), start.caches.clone(), start.fleet.clone()) => {}
                    () = lost(leadership.clone(), epoch) => tracing::warn!("no longer deciding"),
                }
            }
        }
        if leadership.changed().await.is_err() {
            // The election has ended and says why; this is no second reason.
            std::future::pending::<()>().await;
        }
    }
}

impl Start {
    /// The highest epoch that anything persisted or any node acts on.
    fn highest_epoch(&self) -> u64 {
        let persisted = self
            .caches
            .functions
            .all()
            .into_values()
            .filter_map(|function| {
                let status = function.status.as_ref()?;
                let share = status
                    .rollout
                    .as_ref()
                    .and_then(|rollout| rollout.version.as_ref())
                    .map_or(0, |pair| pair.epoch);
                let accepted = status
                    .accepted
                    .as_ref()
                    .and_then(|accepted| accepted.version.as_ref())
                    .map_or(0, |pair| pair.epoch);
                Some(share.max(accepted))
            });
        persisted
            .max()
            .unwrap_or(0)
            .max(self.fleet.max_epoch_seen())
    }
}

async fn lost(mut leadership: watch::Receiver<Leadership>, epoch: u64) {
    let _ = leadership
        .wait_for(|current| current.epoch.is_none_or(|now| now < epoch))
        .await;
}
