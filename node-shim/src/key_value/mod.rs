//! Key-value stores that components open by label (`wasi:keyvalue`).
//!
//! The stores belong to the data plane: they survive revisions and changes of functions, and end with the process. A
//! node removes the entries of a label that no revision has any longer. `redis` keeps entries in a server of the
//! namespace, with copies in the memory store.
//! `KeyValueStore` is the interface that a kind of store implements, `OpenBucket` what a component opened, and
//! `KeyValueSession` what one request used so far. `engine` translates the calls of components.

mod bucket;
mod counters;
mod memory;
mod redis;
mod session;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use node_shim_core::key_value::{
    BucketId, KeyPage, KeyValueError, MemoryLimits, SwapError, Value, Version, VersionedValue,
};

pub(crate) use self::redis::RedisNetwork;
use self::redis::{CacheReads, RedisStores};
pub use self::redis::{InvalidRedisUrl, RedisTarget};
pub(crate) use bucket::{Cas, OpenBucket};
use counters::OperationCounters;
pub use counters::OperationOutcome;
use memory::SharedMemory;
pub(crate) use session::KeyValueSession;

/// Where the entries of a key-value store are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// Memory of this process.
    Memory,
    /// A Redis server.
    Redis {
        /// The server, and the prefix of the keys.
        target: Arc<RedisTarget>,
        /// Time for which reads are answered from copies in memory. Zero means never.
        cache_ttl: Duration,
    },
}

/// Kind of a key-value store, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreLabel {
    Memory,
    Redis,
}

/// A store that the components of a revision open by its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSpec {
    /// Label of the store. Functions of one namespace with the same label share its entries.
    pub label: Arc<str>,
    /// Where the entries are.
    pub kind: StoreKind,
}

/// A kind of key-value store. Lengths of keys and values, and the time of an operation, are limited by the caller.
pub(crate) trait KeyValueStore: Send + Sync {
    /// Returns the values of entries, in the order of the keys.
    fn read<'a>(
        &'a self,
        bucket: &'a BucketId,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Option<Value>>, KeyValueError>>;

    /// Returns the newest value of an entry with its version.
    fn current<'a>(
        &'a self,
        bucket: &'a BucketId,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<VersionedValue>, KeyValueError>>;

    /// Returns whether an entry exists.
    fn exists<'a>(
        &'a self,
        bucket: &'a BucketId,
        key: &'a str,
    ) -> BoxFuture<'a, Result<bool, KeyValueError>>;

    /// Returns the newest version of an entry.
    fn version<'a>(
        &'a self,
        bucket: &'a BucketId,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Version>, KeyValueError>>;

    /// Creates or replaces entries. After an error, some of them may be written.
    fn write<'a>(
        &'a self,
        bucket: &'a BucketId,
        entries: Vec<(String, Value)>,
    ) -> BoxFuture<'a, Result<(), KeyValueError>>;

    /// Replaces an entry if it still has the version `expected`; with `None`, creates it if it does not exist.
    fn swap<'a>(
        &'a self,
        bucket: &'a BucketId,
        key: &'a str,
        expected: Option<Version>,
        value: Value,
    ) -> BoxFuture<'a, Result<(), SwapError>>;

    /// Removes the entries that exist.
    fn delete<'a>(
        &'a self,
        bucket: &'a BucketId,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<(), KeyValueError>>;

    /// Adds `delta` to the number in an entry, unless the sum is below `lowest`, and returns the sum. `lowest` is
    /// `i64::MIN`, or 0 for a `delta` that is not negative.
    fn increment<'a>(
        &'a self,
        bucket: &'a BucketId,
        key: &'a str,
        delta: i64,
        lowest: i64,
    ) -> BoxFuture<'a, Result<i64, KeyValueError>>;

    /// Returns the keys after a position that an earlier page ended with.
    fn list<'a>(
        &'a self,
        bucket: &'a BucketId,
        after: Option<u64>,
    ) -> BoxFuture<'a, Result<KeyPage, KeyValueError>>;
}

/// All stores of a process and the counters of their operations.
pub(crate) struct KeyValueStores {
    memory: Arc<SharedMemory>,
    redis: RedisStores,
    counters: Arc<OperationCounters>,
}

/// What the stores of a process contain and did, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValueUsage {
    /// Size in bytes for which the entries in memory are charged.
    pub memory: u64,
    /// Limit of that size in bytes.
    pub memory_limit: u64,
    /// Number of entries in memory.
    pub entries: u64,
    /// Number of entries that were evicted, by the value of the label `reason`.
    pub evictions: [(&'static str, u64); 2],
    /// Number of operations by the values of the labels `store` and `outcome`.
    pub operations: Vec<(&'static str, OperationOutcome, u64)>,
    /// Number of reads of stores with copies in memory, by the value of the label `result`.
    pub cache_reads: [(&'static str, u64); 2],
}

impl StoreLabel {
    /// All kinds, in the order of their metrics.
    pub(crate) const ALL: [Self; 2] = [Self::Memory, Self::Redis];

    /// Returns the value of the label `store` in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
        }
    }
}

impl KeyValueStores {
    pub(crate) fn new(limits: MemoryLimits, network: RedisNetwork) -> Self {
        let memory = Arc::new(SharedMemory::new(limits));
        Self {
            redis: RedisStores::new(network, memory.clone()),
            memory,
            counters: Arc::default(),
        }
    }

    /// Opens the bucket of a namespace in a store.
    fn open(&self, namespace: &Arc<str>, spec: &StoreSpec) -> OpenBucket {
        let id = BucketId {
            namespace: namespace.clone(),
            label: spec.label.clone(),
        };
        let (store, label): (Arc<dyn KeyValueStore>, _) = match &spec.kind {
            StoreKind::Memory => (self.memory.clone(), StoreLabel::Memory),
            StoreKind::Redis { target, cache_ttl } => {
                let store = self.redis.open(&id, target, *cache_ttl);
                (Arc::new(store), StoreLabel::Redis)
            }
        };
        OpenBucket::new(store, label, id, self.counters.clone())
    }

    /// Removes the entries of all buckets in memory but these, and the copies and connections of all other stores.
    pub(crate) fn retain(&self, kept: &BTreeSet<BucketId>) {
        let copies = self.redis.retain(kept);
        let kept = kept.iter().cloned().chain(copies).collect();
        self.memory.with(|memory| memory.retain(&kept));
    }

    pub(crate) fn usage(&self) -> KeyValueUsage {
        let CacheReads { hits, misses } = self.redis.cache_reads();
        self.memory.with(|memory| KeyValueUsage {
            memory: memory.used(),
            memory_limit: memory.limits().total,
            entries: memory.entries() as u64,
            evictions: [
                ("namespace", memory.evictions().namespace),
                ("node", memory.evictions().node),
            ],
            operations: self.counters.read(),
            cache_reads: [("hit", hits), ("miss", misses)],
        })
    }
}
