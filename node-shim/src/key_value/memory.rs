//! Store in the memory of this process. Its operations never wait.

use std::future::ready;

use futures::FutureExt;
use futures::future::BoxFuture;
use node_shim_core::key_value::{
    BucketId, KeyPage, KeyValueError, MemoryLimits, MemoryStore, SwapError, Value, Version,
    VersionedValue,
};
use parking_lot::Mutex;

use super::KeyValueStore;

/// The memory store behind a lock that is held for one operation.
pub(super) struct SharedMemory(Mutex<MemoryStore>);

impl SharedMemory {
    pub(super) fn new(limits: MemoryLimits) -> Self {
        Self(Mutex::new(MemoryStore::new(limits)))
    }

    pub(super) fn with<T>(&self, operation: impl FnOnce(&mut MemoryStore) -> T) -> T {
        operation(&mut self.0.lock())
    }
}

impl KeyValueStore for SharedMemory {
    fn read<'a>(
        &'a self,
        bucket: &'a BucketId,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Option<Value>>, KeyValueError>> {
        let read = self.with(|store| {
            let values = keys.iter().map(|key| store.read(bucket, key));
            values.map(|read| read.map(|read| read.value)).collect()
        });
        ready(Ok(read)).boxed()
    }

    fn current<'a>(
        &'a self,
        bucket: &'a BucketId,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<VersionedValue>, KeyValueError>> {
        ready(Ok(self.with(|store| store.read(bucket, key)))).boxed()
    }

    fn exists<'a>(
        &'a self,
        bucket: &'a BucketId,
        key: &'a str,
    ) -> BoxFuture<'a, Result<bool, KeyValueError>> {
        let exists = self.with(|store| store.version(bucket, key).is_some());
        ready(Ok(exists)).boxed()
    }

    fn version<'a>(
        &'a self,
        bucket: &'a BucketId,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Version>, KeyValueError>> {
        ready(Ok(self.with(|store| store.version(bucket, key)))).boxed()
    }

    fn write<'a>(
        &'a self,
        bucket: &'a BucketId,
        entries: Vec<(String, Value)>,
    ) -> BoxFuture<'a, Result<(), KeyValueError>> {
        let written = self.with(|store| {
            let mut entries = entries.into_iter();
            entries.try_for_each(|(key, value)| store.write(bucket, &key, value))
        });
        ready(written).boxed()
    }

    fn swap<'a>(
        &'a self,
        bucket: &'a BucketId,
        key: &'a str,
        expected: Option<Version>,
        value: Value,
    ) -> BoxFuture<'a, Result<(), SwapError>> {
        ready(self.with(|store| store.swap(bucket, key, expected, value))).boxed()
    }

    fn delete<'a>(
        &'a self,
        bucket: &'a BucketId,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<(), KeyValueError>> {
        self.with(|store| keys.iter().for_each(|key| store.delete(bucket, key)));
        ready(Ok(())).boxed()
    }

    fn increment<'a>(
        &'a self,
        bucket: &'a BucketId,
        key: &'a str,
        delta: i64,
        lowest: i64,
    ) -> BoxFuture<'a, Result<i64, KeyValueError>> {
        ready(self.with(|store| store.increment(bucket, key, delta, lowest))).boxed()
    }

    fn list<'a>(
        &'a self,
        bucket: &'a BucketId,
        after: Option<u64>,
    ) -> BoxFuture<'a, Result<KeyPage, KeyValueError>> {
        ready(Ok(self.with(|store| store.list(bucket, after)))).boxed()
    }
}
