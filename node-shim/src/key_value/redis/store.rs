//! A store in Redis: commands of its operations, and copies of entries that its reads are answered from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use node_shim_core::key_value::redis as rules;
use node_shim_core::key_value::{
    BucketId, KeyPage, KeyValueError, MAX_KEY, MAX_RESULT, MAX_VALUE, PAGE_KEYS, ReadCache,
    SwapError, Value, Version, VersionedValue,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::connection::Connector;
use super::failure;
use super::script::{self, Outcome};
use super::target::RedisTarget;
use crate::key_value::KeyValueStore;
use crate::key_value::memory::SharedMemory;

/// Maximum size in bytes of the keys of a page: the keys that a server looks at for it may be more than it was asked to.
const PAGE_SIZE: usize = 4 << 20;

/// The entries of one label in one server.
pub(super) struct RedisStore {
    connector: Arc<Connector>,
    target: Arc<RedisTarget>,
    memory: Arc<SharedMemory>,
    cache: Mutex<ReadCache>,
    reads: Arc<ReadCounters>,
    started: Instant,
}

/// Number of reads by whether a copy answered them.
#[derive(Debug, Default)]
pub(super) struct ReadCounters {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
}

/// A store as one revision uses it.
pub(in crate::key_value) struct OpenRedisStore {
    pub(super) store: Arc<RedisStore>,
    /// Time for which reads are answered from copies. Zero means never.
    pub(super) cache_ttl: Duration,
}

/// Writes that have not finished. Dropping this finishes them, also when the request ends before the reply.
struct Writing<'a> {
    store: &'a RedisStore,
    keys: Vec<&'a str>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut cache = self.store.cache.lock();
        self.keys.iter().for_each(|key| cache.finish_write(key));
    }
}

impl RedisStore {
    /// Returns a store without a connection. `copies` is the bucket of the copies in memory.
    pub(super) fn new(
        connector: Arc<Connector>,
        target: Arc<RedisTarget>,
        memory: Arc<SharedMemory>,
        copies: BucketId,
        reads: Arc<ReadCounters>,
    ) -> Self {
        Self {
            connector,
            target,
            memory,
            cache: Mutex::new(ReadCache::new(copies)),
            reads,
            started: Instant::now(),
        }
    }

    /// Returns the bucket of the copies.
    pub(super) fn copies(&self) -> BucketId {
        self.cache.lock().bucket().clone()
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.target.prefix())
    }

    fn writing<'a>(&'a self, keys: Vec<&'a str>) -> Writing<'a> {
        self.memory.with(|memory| {
            let mut cache = self.cache.lock();
            keys.iter().for_each(|key| cache.start_write(memory, key));
        });
        Writing { store: self, keys }
    }

    /// Reads entries from the server.
    async fn fetch(&self, keys: &[&str]) -> Result<Vec<Option<Value>>, KeyValueError> {
        let mut exchange = self.connector.begin(rules::values_size(keys.len())).await?;
        let mut read = script::READ.prepare_invoke();
        for key in keys {
            read.key(self.key(key));
        }
        read.arg(MAX_VALUE).arg(MAX_RESULT);
        let reply = read.invoke_async(&mut exchange.connection).await;
        let values = script::values(exchange.end(reply)?)?.into_iter();
        let values: Vec<Option<Value>> = values
            .map(|element| script::value(Some(element)))
            .collect::<Result<_, _>>()?;
        if values.len() != keys.len() {
            return Err(failure::INVALID);
        }
        Ok(values)
    }

    /// Reads entries from copies and the others from the server.
    async fn fetch_cached(
        &self,
        keys: &[String],
        ttl: Duration,
    ) -> Result<Vec<Option<Value>>, KeyValueError> {
        let now = self.started.elapsed();
        let (mut values, missing) = self.memory.with(|memory| {
            let cache = self.cache.lock();
            let copies = keys.iter().map(|key| cache.get(memory, key, ttl, now));
            let copies: Vec<Option<Value>> = copies.collect();
            let missing = keys.iter().zip(&copies).filter(|(_, copy)| copy.is_none());
            let missing: Vec<_> = missing
                .map(|(key, _)| (key.as_str(), cache.start_read(key, now)))
                .collect();
            (copies, missing)
        });
        let (reads, misses) = (keys.len() as u64, missing.len() as u64);
        self.reads.hits.fetch_add(reads - misses, Ordering::Relaxed);
        self.reads.misses.fetch_add(misses, Ordering::Relaxed);
        if missing.is_empty() {
            return Ok(values);
        }
        let names: Vec<&str> = missing.iter().map(|(key, _)| *key).collect();
        let fetched = self.fetch(&names).await?;
        self.memory.with(|memory| {
            let cache = self.cache.lock();
            for ((key, start), value) in missing.into_iter().zip(&fetched) {
                if let Some(value) = value {
                    cache.finish_read(memory, key, value.clone(), start);
                }
            }
        });
        let mut fetched = fetched.into_iter();
        for value in values.iter_mut().filter(|value| value.is_none()) {
            *value = fetched.next().flatten();
        }
        Ok(values)
    }

    async fn current(&self, key: &str) -> Result<Option<VersionedValue>, KeyValueError> {
        let mut exchange = self.connector.begin(MAX_VALUE).await?;
        let mut current = script::CURRENT.key(self.key(key));
        current.arg(MAX_VALUE);
        let reply = current.invoke_async(&mut exchange.connection).await;
        let mut elements = script::values(exchange.end(reply)?)?.into_iter();
        let Some(version) = script::digest(elements.next())? else {
            return Ok(None);
        };
        let value = script::value(elements.next())?.ok_or(failure::INVALID)?;
        Ok(Some(VersionedValue { value, version }))
    }

    async fn exists(&self, key: &str, ttl: Duration) -> Result<bool, KeyValueError> {
        if !ttl.is_zero() {
            let now = self.started.elapsed();
            let copy = self
                .memory
                .with(|memory| self.cache.lock().get(memory, key, ttl, now));
            if copy.is_some() {
                self.reads.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(true);
            }
            self.reads.misses.fetch_add(1, Ordering::Relaxed);
        }
        let mut exchange = self.connector.begin(0).await?;
        let mut exists = redis::cmd("EXISTS");
        exists.arg(self.key(key));
        let reply = exists.query_async(&mut exchange.connection).await;
        exchange.end(reply)
    }

    async fn version(&self, key: &str) -> Result<Option<Version>, KeyValueError> {
        let mut exchange = self.connector.begin(0).await?;
        let mut version = script::VERSION.key(self.key(key));
        version.arg(MAX_VALUE);
        let reply = version.invoke_async(&mut exchange.connection).await;
        let mut elements = script::values(exchange.end(reply)?)?.into_iter();
        script::digest(elements.next())
    }

    async fn write(&self, entries: &[(String, Value)]) -> Result<(), KeyValueError> {
        let size = entries.iter().map(|(key, value)| key.len() + value.len());
        let mut exchange = self.connector.begin(size.sum()).await?;
        let mut set = redis::cmd("MSET");
        for (key, value) in entries {
            set.arg(self.key(key)).arg(&**value);
        }
        let reply = set.query_async(&mut exchange.connection).await;
        exchange.end(script::nothing(reply))
    }

    async fn swap(
        &self,
        key: &str,
        expected: Option<Version>,
        value: &[u8],
    ) -> Result<(), SwapError> {
        let mut exchange = self.connector.begin(value.len()).await?;
        let mut swap = script::SWAP.key(self.key(key));
        swap.arg(MAX_VALUE)
            .arg(script::digest_text(expected))
            .arg(value);
        let reply = swap.invoke_async(&mut exchange.connection).await;
        match script::outcome(exchange.end(reply)?)? {
            Outcome::Ok(_) => Ok(()),
            Outcome::Changed(present) => Err(SwapError::Changed(present)),
        }
    }

    async fn delete(&self, keys: &[String]) -> Result<(), KeyValueError> {
        let size = keys.iter().map(String::len);
        let mut exchange = self.connector.begin(size.sum()).await?;
        let mut unlink = redis::cmd("UNLINK");
        for key in keys {
            unlink.arg(self.key(key));
        }
        let reply = unlink.query_async(&mut exchange.connection).await;
        exchange.end(script::nothing(reply))
    }

    async fn increment(&self, key: &str, delta: i64, lowest: i64) -> Result<i64, KeyValueError> {
        let mut exchange = self.connector.begin(0).await?;
        if lowest == i64::MIN {
            let mut increment = redis::cmd("INCRBY");
            increment.arg(self.key(key)).arg(delta);
            let reply = increment.query_async(&mut exchange.connection).await;
            return exchange.end(reply);
        }
        let mut increment = script::INCREMENT_UNSIGNED.key(self.key(key));
        increment.arg(delta);
        let reply = increment.invoke_async(&mut exchange.connection).await;
        let mut elements = script::values(exchange.end(reply)?)?.into_iter();
        let sum = script::bytes(elements.next())?.unwrap_or_default();
        let sum = std::str::from_utf8(&sum).ok();
        sum.and_then(|sum| sum.parse().ok()).ok_or(failure::INVALID)
    }

    async fn list(&self, after: Option<u64>) -> Result<KeyPage, KeyValueError> {
        let prefix = self.target.prefix();
        let mut exchange = self.connector.begin(PAGE_SIZE).await?;
        let (keys, rounds) = rules::SCAN;
        let mut list = script::LIST.prepare_invoke();
        list.arg(after.unwrap_or_default())
            .arg(rules::pattern(prefix))
            .arg(prefix.len() + MAX_KEY)
            .arg(keys)
            .arg(rounds);
        let reply = list.invoke_async(&mut exchange.connection).await;
        let mut elements = script::elements(exchange.end(reply)?)?.into_iter();
        let cursor = script::bytes(elements.next())?.ok_or(failure::INVALID)?;
        let cursor = std::str::from_utf8(&cursor).ok();
        let cursor: Option<u64> = cursor.and_then(|cursor| cursor.parse().ok());
        let mut page = KeyPage {
            keys: Vec::with_capacity(elements.len().min(PAGE_KEYS)),
            next: Some(cursor.ok_or(failure::INVALID)?).filter(|cursor| *cursor != 0),
        };
        for element in elements {
            let key = script::bytes(Some(element))?.unwrap_or_default();
            let key = rules::component_key(&key, prefix);
            page.keys.extend(key.map(Into::into));
        }
        Ok(page)
    }
}

impl KeyValueStore for OpenRedisStore {
    fn read<'a>(
        &'a self,
        _: &'a BucketId,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Option<Value>>, KeyValueError>> {
        async move {
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            if !self.cache_ttl.is_zero() {
                return self.store.fetch_cached(keys, self.cache_ttl).await;
            }
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            self.store.fetch(&keys).await
        }
        .boxed()
    }

    fn current<'a>(
        &'a self,
        _: &'a BucketId,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<VersionedValue>, KeyValueError>> {
        self.store.current(key).boxed()
    }

    fn exists<'a>(
        &'a self,
        _: &'a BucketId,
        key: &'a str,
    ) -> BoxFuture<'a, Result<bool, KeyValueError>> {
        self.store.exists(key, self.cache_ttl).boxed()
    }

    fn version<'a>(
        &'a self,
        _: &'a BucketId,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Version>, KeyValueError>> {
        self.store.version(key).boxed()
    }

    fn write<'a>(
        &'a self,
        _: &'a BucketId,
        entries: Vec<(String, Value)>,
    ) -> BoxFuture<'a, Result<(), KeyValueError>> {
        async move {
            if entries.is_empty() {
                return Ok(());
            }
            let keys = entries.iter().map(|(key, _)| key.as_str()).collect();
            let _writing = self.store.writing(keys);
            self.store.write(&entries).await
        }
        .boxed()
    }

    fn swap<'a>(
        &'a self,
        _: &'a BucketId,
        key: &'a str,
        expected: Option<Version>,
        value: Value,
    ) -> BoxFuture<'a, Result<(), SwapError>> {
        async move {
            let _writing = self.store.writing(vec![key]);
            self.store.swap(key, expected, &value).await
        }
        .boxed()
    }

    fn delete<'a>(
        &'a self,
        _: &'a BucketId,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<(), KeyValueError>> {
        async move {
            if keys.is_empty() {
                return Ok(());
            }
            let _writing = self
                .store
                .writing(keys.iter().map(String::as_str).collect());
            self.store.delete(keys).await
        }
        .boxed()
    }

    fn increment<'a>(
        &'a self,
        _: &'a BucketId,
        key: &'a str,
        delta: i64,
        lowest: i64,
    ) -> BoxFuture<'a, Result<i64, KeyValueError>> {
        async move {
            let _writing = self.store.writing(vec![key]);
            self.store.increment(key, delta, lowest).await
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        _: &'a BucketId,
        after: Option<u64>,
    ) -> BoxFuture<'a, Result<KeyPage, KeyValueError>> {
        self.store.list(after).boxed()
    }
}
