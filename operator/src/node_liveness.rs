//! Reconciles all functions when the set of live nodes changes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::dispatch::{Dispatch, QueueAllReason};
use crate::node_api::Fleet;

const PERIOD: Duration = Duration::from_secs(5);

/// Follows the set of live nodes. It never returns.
///
/// A node that falls silent sends no report that would wake the functions on it, and neither does an expected node that
/// never connects.
pub(crate) async fn follow(dispatch: Dispatch, fleet: Fleet) {
    let mut live = live_nodes(&fleet);
    loop {
        tokio::time::sleep(PERIOD).await;
        let now = live_nodes(&fleet);
        if now != live {
            dispatch.queue_all(&QueueAllReason::LiveNodes {
                joined: now.difference(&live).cloned().collect(),
                left: live.difference(&now).cloned().collect(),
            });
            live = now;
        }
    }
}

/// Nodes that are connected, and nodes that are expected to connect.
fn live_nodes(fleet: &Fleet) -> BTreeSet<String> {
    let live = fleet.nodes().into_iter().filter(|node| node.live);
    live.map(|node| node.name)
        .chain(fleet.expected_nodes())
        .collect()
}
