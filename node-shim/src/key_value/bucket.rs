//! A bucket that a component has opened: checks lengths, limits the time of each operation, and counts it.

use std::sync::Arc;

use node_shim_core::key_value::{
    BucketId, KeyPage, KeyValueError, MAX_RESULT, SwapError, TIMEOUT, Value, Version,
    VersionedValue, check_key, check_value,
};
use tokio::time::timeout;

use super::counters::{OperationCounters, OperationOutcome};
use super::{KeyValueStore, StoreLabel};

/// A bucket and its store.
pub(crate) struct OpenBucket {
    store: Arc<dyn KeyValueStore>,
    kind: StoreLabel,
    id: BucketId,
    counters: Arc<OperationCounters>,
}

/// A compare-and-swap operation that a component has begun.
pub(crate) struct Cas {
    /// Bucket of the entry.
    pub(crate) bucket: Arc<OpenBucket>,
    /// Key of the entry.
    pub(crate) key: String,
    /// Version that the entry must still have; `None` when it must not exist.
    pub(crate) version: Option<Version>,
}

impl OpenBucket {
    pub(super) fn new(
        store: Arc<dyn KeyValueStore>,
        kind: StoreLabel,
        id: BucketId,
        counters: Arc<OperationCounters>,
    ) -> Self {
        Self {
            store,
            kind,
            id,
            counters,
        }
    }

    /// Counts operations that were refused before they started.
    pub(crate) fn count_refused(&self, error: KeyValueError) {
        self.counters
            .add(self.kind, OperationOutcome::Failed(error), 1);
    }

    /// Returns the values of entries, in the order of the keys.
    ///
    /// # Errors
    /// Fails when a key is too long, or when the values have more than 16 MiB together.
    pub(crate) async fn read(&self, keys: &[String]) -> Result<Vec<Option<Value>>, KeyValueError> {
        let result = async {
            keys.iter().try_for_each(|key| check_key(key))?;
            let values = limited(self.store.read(&self.id, keys)).await?;
            let sizes = values.iter().flatten().map(|value| value.len());
            if sizes.sum::<usize>() > MAX_RESULT {
                return Err(KeyValueError::ResultTooLarge);
            }
            Ok(values)
        };
        self.counted(keys.len(), result.await)
    }

    /// Returns the value of one entry.
    ///
    /// # Errors
    /// Fails when the key is too long.
    pub(crate) async fn read_one(&self, key: String) -> Result<Option<Value>, KeyValueError> {
        let read = self.read(&[key]).await?;
        Ok(read.into_iter().flatten().next())
    }

    /// Returns the newest value of one entry with its version.
    ///
    /// # Errors
    /// Fails when the key is too long.
    pub(crate) async fn current(&self, key: &str) -> Result<Option<VersionedValue>, KeyValueError> {
        let result = async {
            check_key(key)?;
            limited(self.store.current(&self.id, key)).await
        };
        self.counted(1, result.await)
    }

    /// Returns whether an entry exists.
    ///
    /// # Errors
    /// Fails when the key is too long.
    pub(crate) async fn exists(&self, key: &str) -> Result<bool, KeyValueError> {
        let result = async {
            check_key(key)?;
            limited(self.store.exists(&self.id, key)).await
        };
        self.counted(1, result.await)
    }

    /// Returns the version of an entry, or `None` when there is no entry.
    ///
    /// # Errors
    /// Fails when the key is too long.
    pub(crate) async fn version(&self, key: &str) -> Result<Option<Version>, KeyValueError> {
        let result = async {
            check_key(key)?;
            limited(self.store.version(&self.id, key)).await
        };
        self.counted(1, result.await)
    }

    /// Creates or replaces entries.
    ///
    /// # Errors
    /// Fails before the first entry when a key or a value is too long. Some entries may be written when one of them
    /// has no room.
    pub(crate) async fn write(&self, entries: Vec<(String, Value)>) -> Result<(), KeyValueError> {
        let operations = entries.len();
        let result = async {
            for (key, value) in &entries {
                check_key(key)?;
                check_value(value)?;
            }
            limited(self.store.write(&self.id, entries)).await
        };
        self.counted(operations, result.await)
    }

    /// Removes the entries that exist.
    ///
    /// # Errors
    /// Fails before the first entry when a key is too long.
    pub(crate) async fn delete(&self, keys: &[String]) -> Result<(), KeyValueError> {
        let result = async {
            keys.iter().try_for_each(|key| check_key(key))?;
            limited(self.store.delete(&self.id, keys)).await
        };
        self.counted(keys.len(), result.await)
    }

    /// Adds `delta` to the number in an entry and returns the sum. An absent entry counts as 0.
    ///
    /// # Errors
    /// Fails when the entry holds no number, or when the sum is below `lowest` or too large.
    pub(crate) async fn increment(
        &self,
        key: &str,
        delta: i64,
        lowest: i64,
    ) -> Result<i64, KeyValueError> {
        let result = async {
            check_key(key)?;
            limited(self.store.increment(&self.id, key, delta, lowest)).await
        };
        self.counted(1, result.await)
    }

    /// Returns the keys after a position that an earlier page ended with.
    ///
    /// # Errors
    /// Fails when the store does not answer in time.
    pub(crate) async fn list(&self, after: Option<u64>) -> Result<KeyPage, KeyValueError> {
        self.counted(1, limited(self.store.list(&self.id, after)).await)
    }

    fn counted<T>(
        &self,
        operations: usize,
        result: Result<T, KeyValueError>,
    ) -> Result<T, KeyValueError> {
        let outcome = OperationOutcome::from(&result);
        self.counters.add(self.kind, outcome, operations as u64);
        result
    }
}

impl Cas {
    /// Replaces the entry if it has not changed.
    ///
    /// # Errors
    /// Fails when the entry has changed, when the value is too long, and when it has no room.
    pub(crate) async fn swap(&self, value: Value) -> Result<(), SwapError> {
        let bucket = &self.bucket;
        let result = async {
            check_value(&value)?;
            let swap = bucket
                .store
                .swap(&bucket.id, &self.key, self.version, value);
            let Ok(result) = timeout(TIMEOUT, swap).await else {
                return Err(KeyValueError::TimedOut.into());
            };
            result
        };
        let result = result.await;
        let outcome = OperationOutcome::from(&result);
        bucket.counters.add(bucket.kind, outcome, 1);
        result
    }
}

/// Waits for an operation, but not for longer than an operation may take.
async fn limited<T>(
    operation: impl Future<Output = Result<T, KeyValueError>>,
) -> Result<T, KeyValueError> {
    let result = timeout(TIMEOUT, operation).await;
    result.unwrap_or(Err(KeyValueError::TimedOut))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::{BoxFuture, pending};
    use node_shim_core::key_value::MemoryLimits;

    use super::*;
    use crate::key_value::memory::SharedMemory;

    /// A store that never answers.
    struct Silent;

    type Answer<'a, T, E = KeyValueError> = BoxFuture<'a, Result<T, E>>;

    impl KeyValueStore for Silent {
        fn read<'a>(&'a self, _: &'a BucketId, _: &'a [String]) -> Answer<'a, Vec<Option<Value>>> {
            pending().boxed()
        }

        fn current<'a>(
            &'a self,
            _: &'a BucketId,
            _: &'a str,
        ) -> Answer<'a, Option<VersionedValue>> {
            pending().boxed()
        }

        fn exists<'a>(&'a self, _: &'a BucketId, _: &'a str) -> Answer<'a, bool> {
            pending().boxed()
        }

        fn version<'a>(&'a self, _: &'a BucketId, _: &'a str) -> Answer<'a, Option<Version>> {
            pending().boxed()
        }

        fn write<'a>(&'a self, _: &'a BucketId, _: Vec<(String, Value)>) -> Answer<'a, ()> {
            pending().boxed()
        }

        fn swap<'a>(
            &'a self,
            _: &'a BucketId,
            _: &'a str,
            _: Option<Version>,
            _: Value,
        ) -> Answer<'a, (), SwapError> {
            pending().boxed()
        }

        fn delete<'a>(&'a self, _: &'a BucketId, _: &'a [String]) -> Answer<'a, ()> {
            pending().boxed()
        }

        fn increment<'a>(&'a self, _: &'a BucketId, _: &'a str, _: i64, _: i64) -> Answer<'a, i64> {
            pending().boxed()
        }

        fn list<'a>(&'a self, _: &'a BucketId, _: Option<u64>) -> Answer<'a, KeyPage> {
            pending().boxed()
        }
    }

    fn open(store: impl KeyValueStore + 'static) -> Arc<OpenBucket> {
        let id = BucketId {
            namespace: "ns".into(),
            label: "l".into(),
        };
        let (store, counters) = (Arc::new(store), Arc::default());
        Arc::new(OpenBucket::new(store, StoreLabel::Memory, id, counters))
    }

    fn count(bucket: &OpenBucket, outcome: &str) -> u64 {
        let counted = bucket.counters.read();
        let mut counted = counted.iter().filter(|(_, one, _)| one.label() == outcome);
        counted.next().unwrap().2
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_an_error_and_no_wait() {
        let bucket = open(Silent);
        let keys = ["a".to_owned(), "b".to_owned()];
        let value: Value = b"v".as_slice().into();
        let late = KeyValueError::TimedOut;
        assert_eq!(bucket.read(&keys).await.err(), Some(late));
        assert_eq!(bucket.current("a").await.err(), Some(late));
        assert_eq!(bucket.exists("a").await, Err(late));
        assert_eq!(bucket.version("a").await, Err(late));
        let entries = vec![("a".to_owned(), value.clone())];
        assert_eq!(bucket.write(entries).await, Err(late));
        assert_eq!(bucket.delete(&keys).await, Err(late));
        assert_eq!(bucket.increment("a", 1, 0).await, Err(late));
        assert_eq!(bucket.list(None).await, Err(late));
        let cas = Cas {
            bucket: bucket.clone(),
            key: "a".to_owned(),
            version: None,
        };
        assert_eq!(cas.swap(value).await, Err(SwapError::Failed(late)));
        assert_eq!(count(&bucket, "timeout"), 11, "one for each key");
    }

    #[tokio::test]
    async fn lengths_are_checked_before_anything_is_written() {
        let bucket = open(SharedMemory::new(MemoryLimits::default()));
        let entry = |key: &str, length: usize| (key.to_owned(), Value::from(vec![0; length]));
        let long = "k".repeat(1_025);
        let written = bucket.write(vec![entry("a", 1), entry(&long, 1)]).await;
        assert_eq!(written, Err(KeyValueError::KeyTooLong(1_025)));
        let size = (1 << 20) + 1;
        let written = bucket.write(vec![entry("a", 1), entry("b", size)]).await;
        assert_eq!(written, Err(KeyValueError::ValueTooLong(size)));
        assert_eq!(bucket.version("a").await, Ok(None));
        for error in [
            bucket.read(std::slice::from_ref(&long)).await.err(),
            bucket.version(&long).await.err(),
            bucket.current(&long).await.err(),
            bucket.exists(&long).await.err(),
            bucket.delete(std::slice::from_ref(&long)).await.err(),
            bucket.increment(&long, 1, 0).await.err(),
        ] {
            assert_eq!(error, Some(KeyValueError::KeyTooLong(1_025)));
        }
        assert_eq!(count(&bucket, "too_large"), 10);
    }

    #[tokio::test]
    async fn the_values_of_one_result_have_a_limit_together() {
        let bucket = open(SharedMemory::new(MemoryLimits::default()));
        let large = Value::from(vec![0; 1 << 20]);
        bucket.write(vec![("a".to_owned(), large)]).await.unwrap();
        let keys = vec!["a".to_owned(); 17];
        assert_eq!(bucket.read(&keys[..16]).await.unwrap().len(), 16);
        let refused = bucket.read(&keys).await.err();
        assert_eq!(refused, Some(KeyValueError::ResultTooLarge));
    }
}
