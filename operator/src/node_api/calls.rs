//! State and limits that all calls share.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::authenticate::Authenticator;
use super::blobs::Blobs;
use super::fleet::Fleet;
use super::leader::Leader;
use super::metrics::Meter;
use super::rate_limit::RateLimit;
use super::settings::Settings;
use super::tables::Tables;
use super::tls;

/// State that all calls share.
pub(super) struct Calls {
    pub(super) settings: Settings,
    pub(super) tables: Tables,
    pub(super) fleet: Fleet,
    pub(super) tls: tls::Store,
    pub(super) authenticator: Authenticator,
    pub(super) blobs: Arc<dyn Blobs>,
    pub(super) leader: watch::Receiver<Option<Leader>>,
    pub(super) meter: Meter,
    pub(super) stop: CancellationToken,
    pub(super) openings: StreamRateLimit,
    pub(super) streams: ConcurrencyLimit,
    pub(super) blob_calls: ConcurrencyLimit,
}

/// Limits the rate of new streams, for all nodes and for each, so that a node that reconnects in a loop does not use
/// up the rate that the others need.
pub(super) struct StreamRateLimit(Mutex<Rates>);

struct Rates {
    all: RateLimit,
    each: HashMap<String, RateLimit>,
}

/// Streams that a node may open per second, and the burst in seconds of that rate.
const STREAM_RATE_PER_NODE: (u32, u32) = (1, 10);
/// Number of nodes whose rate is tracked; beyond it, dropped nodes start with a full bucket.
const MAX_TRACKED_NODES: usize = 20_000;

impl StreamRateLimit {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self(Mutex::new(Rates {
            all: RateLimit::new(per_second, 1, now),
            each: HashMap::new(),
        }))
    }

    pub(super) fn take(&self, node: &str, now: Instant) -> bool {
        let mut rates = self.0.lock();
        if rates.each.len() >= MAX_TRACKED_NODES && !rates.each.contains_key(node) {
            rates.each.clear();
        }
        let (per_second, seconds) = STREAM_RATE_PER_NODE;
        let own = rates.each.entry(node.to_owned());
        let own = own.or_insert_with(|| RateLimit::new(per_second, seconds, now));
        own.take(1, now) && rates.all.take(1, now)
    }
}

/// Limits the number of concurrent calls per identity and in total.
#[derive(Clone)]
pub(super) struct ConcurrencyLimit {
    open: Arc<Mutex<HashMap<String, usize>>>,
    each: usize,
    all: usize,
}

/// A place of an identity; dropping it releases the place.
pub(super) struct Permit {
    limit: ConcurrencyLimit,
    name: String,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitReached {
    /// The limit of the identity.
    Each,
    /// The limit of all identities together.
    All,
}

impl ConcurrencyLimit {
    pub(super) fn new(each: usize, all: usize) -> Self {
        let open = Arc::default();
        Self { open, each, all }
    }

    pub(super) fn take(&self, name: &str) -> Result<Permit, LimitReached> {
        let mut open = self.open.lock();
        if open.get(name).copied().unwrap_or(0) >= self.each {
            return Err(LimitReached::Each);
        }
        if open.values().sum::<usize>() >= self.all {
            return Err(LimitReached::All);
        }
        *open.entry(name.to_owned()).or_default() += 1;
        let (limit, name) = (self.clone(), name.to_owned());
        Ok(Permit { limit, name })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.limit.open.lock();
        if let Some(count) = open.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_reconnects_in_a_loop_does_not_exhaust_the_rate_of_others() {
        let now = Instant::now();
        let openings = StreamRateLimit::new(15, now);
        let opened = (0..1_000).filter(|_| openings.take("looping", now)).count();
        assert_eq!(opened, 10);
        let others = (0..10).filter(|n| openings.take(&format!("node-{n}"), now));
        assert_eq!(others.count(), 5, "the limit of all together, less the ten");
    }

    #[test]
    fn each_identity_has_a_limit_and_releases_its_permits() {
        let limit = ConcurrencyLimit::new(2, 3);
        let first = limit.take("a").ok();
        let second = limit.take("a").ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(limit.take("a").err(), Some(LimitReached::Each));
        let third = limit.take("b").ok();
        assert_eq!(limit.take("c").err(), Some(LimitReached::All));
        drop((first, third));
        assert!(limit.take("a").is_ok() && limit.take("c").is_ok());
    }
}
