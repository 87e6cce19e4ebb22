//! Reconciles all functions when the set of live nodes changes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Context;

const PERIOD: Duration = Duration::from_secs(5);

/// Follows the set of live nodes. It never returns.
///
/// A node that falls silent sends no report that would wake the functions on it, and neither does an expected node that
/// never connects.
pub(super) async fn follow(ctx: &Context) {
    let mut live = live_nodes(ctx);
    loop {
        tokio::time::sleep(PERIOD).await;
        let now = live_nodes(ctx);
        if now != live {
            live = now;
            for key in ctx.caches.functions.all().keys() {
                ctx.queue.push(key);
            }
        }
    }
}

/// Nodes that are connected, and nodes that are expected to connect.
fn live_nodes(ctx: &Context) -> BTreeSet<String> {
    let live = ctx.fleet.nodes().into_iter().filter(|node| node.live);
    live.map(|node| node.name)
        .chain(ctx.fleet.awaited())
        .collect()
}
