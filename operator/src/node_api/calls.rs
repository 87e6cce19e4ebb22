//! State and limits that all calls share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::authenticate::Authenticator;
use super::blobs::Blobs;
use super::budget::Budget;
use super::fleet::Fleet;
use super::leader::Leader;
use super::meter::Meter;
use super::settings::Settings;
use super::tables::Tables;

/// State that all calls share.
pub(super) struct Calls {
    pub(super) settings: Settings,
    pub(super) tables: Tables,
    pub(super) fleet: Fleet,
    pub(super) authenticator: Authenticator,
    pub(super) blobs: Arc<dyn Blobs>,
    pub(super) leader: watch::Receiver<Option<Leader>>,
    pub(super) meter: Meter,
    pub(super) stop: CancellationToken,
    pub(super) openings: Openings,
    pub(super) streams: Shares,
    pub(super) blob_calls: Shares,
}

/// Limits the rate of new streams, for all nodes and for each, so that a node that reconnects in a loop does not use
/// up the rate that the others need.
pub(super) struct Openings(Mutex<Rates>);

struct Rates {
    all: Budget,
    each: HashMap<String, Budget>,
}

/// Streams that a node may open per second, and the burst in seconds of that rate.
const OPENINGS_EACH: (u32, u32) = (1, 10);
/// Number of nodes whose rate is tracked; beyond it, dropped nodes start with a full bucket.
const RATES: usize = 20_000;

impl Openings {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self(Mutex::new(Rates {
            all: Budget::new(per_second, 1, now),
            each: HashMap::new(),
        }))
    }

    pub(super) fn take(&self, node: &str, now: Instant) -> bool {
        let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.each.len() >= RATES && !rates.each.contains_key(node) {
            rates.each.clear();
        }
        let (per_second, seconds) = OPENINGS_EACH;
        let own = rates.each.entry(node.to_owned());
        let own = own.or_insert_with(|| Budget::new(per_second, seconds, now));
        own.take(1, now) && rates.all.take(1, now)
    }
}

/// Limits the number of concurrent calls per identity and in total.
#[derive(Clone)]
pub(super) struct Shares {
    open: Arc<Mutex<HashMap<String, usize>>>,
    each: usize,
    all: usize,
}

/// A place of an identity; dropping it releases the place.
pub(super) struct Held {
    shares: Shares,
    name: String,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The limit of the identity.
    Each,
    /// The limit of all identities together.
    All,
}

impl Shares {
    pub(super) fn new(each: usize, all: usize) -> Self {
        let open = Arc::default();
        Self { open, each, all }
    }

    pub(super) fn take(&self, name: &str) -> Result<Held, Full> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(name).copied().unwrap_or(0) >= self.each {
            return Err(Full::Each);
        }
        if open.values().sum::<usize>() >= self.all {
            return Err(Full::All);
        }
        *open.entry(name.to_owned()).or_default() += 1;
        let (shares, name) = (self.clone(), name.to_owned());
        Ok(Held { shares, name })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut open = self
            .shares
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
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
    fn one_that_loops_does_not_use_up_what_others_need() {
        let now = Instant::now();
        let openings = Openings::new(15, now);
        let opened = (0..1_000).filter(|_| openings.take("looping", now)).count();
        assert_eq!(opened, 10);
        let others = (0..10).filter(|n| openings.take(&format!("node-{n}"), now));
        assert_eq!(others.count(), 5, "the limit of all together, less the ten");
    }

    #[test]
    fn each_has_its_share_and_gives_it_back() {
        let shares = Shares::new(2, 3);
        let first = shares.take("a").ok();
        let second = shares.take("a").ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(shares.take("a").err(), Some(Full::Each));
        let third = shares.take("b").ok();
        assert_eq!(shares.take("c").err(), Some(Full::All));
        drop((first, third));
        assert!(shares.take("a").is_ok() && shares.take("c").is_ok());
    }
}
