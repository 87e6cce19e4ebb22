//! All stores in Redis of a process.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use node_shim_core::key_value::BucketId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::connect::RedisNetwork;
use super::connection::Connector;
use super::store::{OpenRedisStore, ReadCounters, RedisStore};
use super::target::RedisTarget;
use crate::key_value::memory::SharedMemory;

/// Time after which a store that no request opens is dropped. All of its copies are too old by then, because
/// `localCacheTTL` is at most as long.
const UNUSED: Duration = Duration::from_secs(3_600);

/// Stores by label and target. Revisions with the same label and target share a store and its connection.
pub(in crate::key_value) struct RedisStores {
    network: Arc<RedisNetwork>,
    memory: Arc<SharedMemory>,
    reads: Arc<ReadCounters>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stores: HashMap<(BucketId, Arc<RedisTarget>), Used>,
    /// Number of stores so far, which names the buckets of their copies.
    numbers: u64,
}

struct Used {
    store: Arc<RedisStore>,
    at: Instant,
}

/// Number of reads of stores with copies by whether a copy answered them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::key_value) struct CacheReads {
    pub(in crate::key_value) hits: u64,
    pub(in crate::key_value) misses: u64,
}

impl RedisStores {
    pub(in crate::key_value) fn new(network: RedisNetwork, memory: Arc<SharedMemory>) -> Self {
        Self {
            network: Arc::new(network),
            memory,
            reads: Arc::default(),
            state: Mutex::default(),
        }
    }

    /// Opens a store. The first operation connects.
    pub(in crate::key_value) fn open(
        &self,
        bucket: &BucketId,
        target: &Arc<RedisTarget>,
        cache_ttl: Duration,
    ) -> OpenRedisStore {
        let mut state = self.state.lock();
        let now = Instant::now();
        let key = (bucket.clone(), target.clone());
        if let Some(used) = state.stores.get_mut(&key) {
            used.at = now;
            let store = used.store.clone();
            return OpenRedisStore { store, cache_ttl };
        }
        state
            .stores
            .retain(|_, used| now.duration_since(used.at) < UNUSED);
        state.numbers += 1;
        // no label of a component has this character
        let copies = BucketId {
            namespace: bucket.namespace.clone(),
            label: format!("{}#{}", bucket.label, state.numbers).into(),
        };
        let connector = Connector::new(bucket.clone(), target.clone(), self.network.clone());
        let (memory, reads) = (self.memory.clone(), self.reads.clone());
        let store = RedisStore::new(connector, target.clone(), memory, copies, reads);
        let store = Arc::new(store);
        let used = Used {
            store: store.clone(),
            at: now,
        };
        state.stores.insert(key, used);
        OpenRedisStore { store, cache_ttl }
    }

    /// Drops all stores but those of these buckets, and returns the buckets of the copies of the others.
    pub(in crate::key_value) fn retain(&self, kept: &BTreeSet<BucketId>) -> Vec<BucketId> {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.stores.retain(|(bucket, _), used| {
            kept.contains(bucket) && now.duration_since(used.at) < UNUSED
        });
        let stores = state.stores.values();
        stores.map(|used| used.store.copies()).collect()
    }

    pub(in crate::key_value) fn cache_reads(&self) -> CacheReads {
        CacheReads {
            hits: self.reads.hits.load(Ordering::Relaxed),
            misses: self.reads.misses.load(Ordering::Relaxed),
        }
    }
}
