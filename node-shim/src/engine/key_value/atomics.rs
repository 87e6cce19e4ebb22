//! `wasi:keyvalue/atomics`: increments and compare-and-swap.

use std::sync::Arc;

use node_shim_core::key_value::{KeyValueError, SwapError, Value};
use wasmtime::component::{LinkerInstance, Resource, ResourceType};

use super::types::{CasError, StoreError};
use super::{Bucket, Draft, Returned, Store, begin};
use crate::instance::GuestState;
use crate::key_value::Cas;

pub(super) fn add(
    instance: &mut LinkerInstance<'_, GuestState>,
    draft: Draft,
) -> wasmtime::Result<()> {
    match draft {
        Draft::First => instance.func_wrap_async("increment", |store, args| {
            Box::new(increment_unsigned(store, args))
        }),
        Draft::Second => {
            instance.resource("cas", ResourceType::host::<Cas>(), |mut store, rep| {
                let cas = Resource::<Cas>::new_own(rep);
                store.data_mut().table().delete(cas)?;
                Ok(())
            })?;
            instance
                .func_wrap_async("[static]cas.new", |store, args| Box::new(new(store, args)))?;
            instance.func_wrap_async("[method]cas.current", |store, args| {
                Box::new(current(store, args))
            })?;
            instance.func_wrap_async("swap", |store, args| Box::new(swap(store, args)))?;
            instance.func_wrap_async("increment", |store, args| Box::new(increment(store, args)))
        }
    }
}

async fn increment(
    mut store: Store<'_>,
    (bucket, key, delta): (Resource<Bucket>, String, i64),
) -> Returned<i64> {
    let bucket = begin(&mut store, &bucket, 1)?;
    let result = async { bucket?.increment(&key, delta, i64::MIN).await };
    Ok((result.await.map_err(StoreError::from),))
}

/// Numbers are the same in both drafts. The first one has no negative sums.
async fn increment_unsigned(
    mut store: Store<'_>,
    (bucket, key, delta): (Resource<Bucket>, String, u64),
) -> Returned<u64> {
    let bucket = begin(&mut store, &bucket, 1)?;
    let result = async {
        let bucket = bucket?;
        let Ok(delta) = i64::try_from(delta) else {
            bucket.count_refused(KeyValueError::OutOfRange);
            return Err(KeyValueError::OutOfRange);
        };
        bucket.increment(&key, delta, 0).await
    };
    let sum = result.await.map(i64::unsigned_abs);
    Ok((sum.map_err(StoreError::from),))
}

/// Begins at the version that the entry has now.
async fn new(
    mut store: Store<'_>,
    (bucket, key): (Resource<Bucket>, String),
) -> Returned<Resource<Cas>> {
    let bucket = begin(&mut store, &bucket, 1)?;
    let result = async {
        let bucket = bucket?;
        let version = bucket.version(&key).await?;
        Ok::<_, KeyValueError>(Cas {
            bucket,
            key,
            version,
        })
    };
    Ok((match result.await {
        Ok(cas) => Ok(store.data_mut().table().push(cas)?),
        Err(error) => Err(StoreError::from(error)),
    },))
}

/// Reads the entry. A swap then succeeds only if the entry does not change after this.
async fn current(mut store: Store<'_>, (handle,): (Resource<Cas>,)) -> Returned<Option<Value>> {
    let state = store.data_mut();
    let cas = state.table().get(&handle)?;
    let (bucket, key) = (Arc::clone(&cas.bucket), cas.key.clone());
    if let Err(error) = state.charge_operations(1) {
        bucket.count_refused(error);
        return Ok((Err(error.into()),));
    }
    let read = match bucket.current(&key).await {
        Ok(read) => read,
        Err(error) => return Ok((Err(error.into()),)),
    };
    let cas = store.data_mut().table().get_mut(&handle)?;
    cas.version = read.as_ref().map(|read| read.version);
    Ok((Ok(read.map(|read| read.value)),))
}

async fn swap(
    mut store: Store<'_>,
    (handle, value): (Resource<Cas>, Vec<u8>),
) -> Returned<(), CasError> {
    let state = store.data_mut();
    let cas = state.table().delete(handle)?;
    if let Err(error) = state.charge_operations(1) {
        cas.bucket.count_refused(error);
        return Ok((Err(CasError::Store(error.into())),));
    }
    Ok((match cas.swap(value.into()).await {
        Ok(()) => Ok(()),
        Err(SwapError::Changed(version)) => {
            let next = Cas { version, ..cas };
            let handle = store.data_mut().table().push(next)?;
            Err(CasError::Failed(handle))
        }
        Err(SwapError::Failed(error)) => Err(CasError::Store(error.into())),
    },))
}
