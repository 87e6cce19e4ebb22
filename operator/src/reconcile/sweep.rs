//! Gives back claims on hosts that no function of their namespace names any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::rollout::State;
use tokio::time::Instant;

use super::{Reconciler, claims};
use crate::watch::ObjectKey;

/// A host that was given up for a moment is not lost at once.
const GRACE: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_secs(5);

impl Reconciler {
    /// Sweeps for ever; run it on the leader.
    pub async fn sweep_claims(self: Arc<Self>) {
        let mut unnamed: BTreeMap<ObjectKey, Instant> = BTreeMap::new();
        let mut live = self.live_nodes();
        loop {
            tokio::time::sleep(PERIOD).await;
            let named = self.named_hosts();
            self.count_rollouts();
            let now_live = self.live_nodes();
            if now_live != live {
                // Nothing else tells a function that a node fell silent, or was awaited in vain, which never spoke of it.
                live = now_live;
                for key in self.caches.functions.all().keys() {
                    self.queue.push(key);
                }
            }
            let now = Instant::now();
            let claims = self.caches.claims.all();
            unnamed.retain(|key, _| claims.contains_key(key));
            // Nobody knows what a function names that cannot be read.
            let unread = self.caches.functions.unreadable();
            let unread: BTreeSet<&str> = unread.keys().map(|key| &*key.namespace).collect();
            // Nor what a claim says now of which only an older version could be read.
            let unread_claims = self.caches.claims.unreadable();
            for (key, claim) in claims {
                if unread_claims.contains_key(&key)
                    || unread.contains(&*claim.spec.namespace)
                    || named.contains(&(claim.spec.namespace.clone(), claim.spec.host.clone()))
                {
                    unnamed.remove(&key);
                    continue;
                }
                let since = *unnamed.entry(key.clone()).or_insert(now);
                if now.duration_since(since) < GRACE {
                    continue;
                }
                match claims::release(&self.client, &claim).await {
                    Ok(()) => tracing::info!(
                        host = claim.spec.host,
                        namespace = claim.spec.namespace,
                        "gave a host back"
                    ),
                    Err(error) => {
                        tracing::warn!(host = claim.spec.host, %error, "a host could not be given back")
                    }
                }
            }
        }
    }

    fn live_nodes(&self) -> BTreeSet<String> {
        let live = self.fleet.nodes().into_iter().filter(|node| node.live);
        live.map(|node| node.name)
            .chain(self.fleet.awaited())
            .collect()
    }

    /// How many functions are in each state, as persisted.
    fn count_rollouts(&self) {
        let mut counts: BTreeMap<&str, usize> =
            State::ALL.iter().map(|state| (state.as_str(), 0)).collect();
        for function in self.caches.functions.all().into_values() {
            let status = function.status.as_ref();
            let state = status
                .and_then(|status| status.rollout.as_ref())
                .and_then(|rollout| rollout.state);
            if let Some(count) = state.and_then(|state| counts.get_mut(state.as_str())) {
                *count += 1;
            }
        }
        for (state, count) in counts {
            self.metrics.set_rollouts(state, count);
        }
    }

    /// (namespace, host) of everything that is wished or still served.
    fn named_hosts(&self) -> BTreeSet<(String, String)> {
        let mut named = BTreeSet::new();
        for (key, function) in self.caches.functions.all() {
            let accepted = function
                .status
                .as_ref()
                .and_then(|status| status.accepted.as_ref());
            let served = accepted
                .map(|accepted| accepted.routes.as_slice())
                .unwrap_or_default();
            for host in function
                .spec
                .routes
                .iter()
                .chain(served)
                .flat_map(|route| &route.hosts)
            {
                named.insert((key.namespace.to_string(), host.clone()));
            }
        }
        named
    }
}
