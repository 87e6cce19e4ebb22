//! `wasi:keyvalue/batch`: operations on several keys. Each key counts as an operation.

use node_shim_core::key_value::Value;
use wasmtime::component::{LinkerInstance, Resource};

use super::types::StoreError;
use super::{Bucket, Returned, Store, begin};
use crate::instance::GuestState;

pub(super) fn add(instance: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    instance.func_wrap_async("get-many", |store, args| Box::new(get_many(store, args)))?;
    instance.func_wrap_async("set-many", |store, args| Box::new(set_many(store, args)))?;
    instance.func_wrap_async("delete-many", |store, args| {
        Box::new(delete_many(store, args))
    })
}

async fn get_many(
    mut store: Store<'_>,
    (bucket, keys): (Resource<Bucket>, Vec<String>),
) -> Returned<Vec<Option<(String, Value)>>> {
    let bucket = begin(&mut store, &bucket, keys.len())?;
    let result = async { bucket?.read(&keys).await };
    let pairs = result.await.map(|values| {
        let pairs = keys.into_iter().zip(values);
        let pair = |(key, value): (String, Option<Value>)| Some((key, value?));
        pairs.map(pair).collect()
    });
    Ok((pairs.map_err(StoreError::from),))
}

async fn set_many(
    mut store: Store<'_>,
    (bucket, entries): (Resource<Bucket>, Vec<(String, Vec<u8>)>),
) -> Returned<()> {
    let bucket = begin(&mut store, &bucket, entries.len())?;
    let entries = entries.into_iter();
    let entries = entries.map(|(key, value)| (key, Value::from(value)));
    let result = async { bucket?.write(entries.collect()).await };
    Ok((result.await.map_err(StoreError::from),))
}

async fn delete_many(
    mut store: Store<'_>,
    (bucket, keys): (Resource<Bucket>, Vec<String>),
) -> Returned<()> {
    let bucket = begin(&mut store, &bucket, keys.len())?;
    let result = async { bucket?.delete(&keys).await };
    Ok((result.await.map_err(StoreError::from),))
}
