//! Implementation of `wasi:keyvalue`: translates calls of components to operations on the buckets that they opened.
//!
//! The two drafts differ in three points: the cursor of `list-keys` is a number or a text, `increment` is unsigned or
//! signed, and only the second draft has compare-and-swap. What a component asks for beyond a limit is an error of the
//! interface. Only a handle that does not exist is a trap, as in every interface.

mod atomics;
mod batch;
mod types;

use std::sync::Arc;

use node_shim_core::key_value::{KeyValueError, Value};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType};

use crate::instance::GuestState;
use crate::key_value::OpenBucket;
use types::{DraftCursor, KeyResponse, StoreError};

type Store<'a> = StoreContextMut<'a, GuestState>;
/// A bucket in the table of handles. Shared, so that an operation does not borrow the table while it waits.
type Bucket = Arc<OpenBucket>;
/// What a function of the interface returns: a result, or a trap.
type Returned<T, E = StoreError> = wasmtime::Result<(Result<T, E>,)>;

/// Version of `wasi:keyvalue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Draft {
    /// The version `0.2.0-draft`.
    First,
    /// The version `0.2.0-draft2`, which adds compare-and-swap.
    Second,
}

pub(super) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    for (draft, version) in [Draft::First, Draft::Second]
        .into_iter()
        .zip(node_api::world::KEY_VALUE_VERSIONS)
    {
        let mut store = linker.instance(&format!("wasi:keyvalue/store@{version}"))?;
        add_store(&mut store, draft)?;
        let mut atomics = linker.instance(&format!("wasi:keyvalue/atomics@{version}"))?;
        atomics::add(&mut atomics, draft)?;
        let mut batch = linker.instance(&format!("wasi:keyvalue/batch@{version}"))?;
        batch::add(&mut batch)?;
    }
    Ok(())
}

fn add_store(instance: &mut LinkerInstance<'_, GuestState>, draft: Draft) -> wasmtime::Result<()> {
    instance.resource(
        "bucket",
        ResourceType::host::<Bucket>(),
        |mut store, rep| {
            let bucket = Resource::<Bucket>::new_own(rep);
            store.data_mut().table().delete(bucket)?;
            Ok(())
        },
    )?;
    instance.func_wrap("open", open)?;
    instance.func_wrap_async("[method]bucket.get", |store, args| {
        Box::new(get(store, args))
    })?;
    instance.func_wrap_async("[method]bucket.set", |store, args| {
        Box::new(set(store, args))
    })?;
    instance.func_wrap_async("[method]bucket.delete", |store, args| {
        Box::new(delete(store, args))
    })?;
    instance.func_wrap_async("[method]bucket.exists", |store, args| {
        Box::new(exists(store, args))
    })?;
    let list = "[method]bucket.list-keys";
    match draft {
        Draft::First => {
            instance.func_wrap_async(list, |store, args| Box::new(list_keys::<u64>(store, args)))
        }
        Draft::Second => instance.func_wrap_async(list, |store, args| {
            Box::new(list_keys::<String>(store, args))
        }),
    }
}

/// Returns the bucket of a handle and takes operations, but at least one, from those that the request has left.
///
/// # Errors
/// The outer error is a trap: the handle does not exist.
fn begin(
    store: &mut Store<'_>,
    bucket: &Resource<Bucket>,
    operations: usize,
) -> wasmtime::Result<Result<Bucket, KeyValueError>> {
    let state = store.data_mut();
    let bucket = state.table().get(bucket)?.clone();
    Ok(match state.charge_operations(operations.max(1)) {
        Ok(()) => Ok(bucket),
        Err(error) => {
            bucket.count_refused(error);
            Err(error)
        }
    })
}

fn open(mut store: Store<'_>, (label,): (String,)) -> Returned<Resource<Bucket>> {
    let state = store.data_mut();
    let opened = match state.open_bucket(&label) {
        Ok(Some(bucket)) => Ok(state.table().push(Arc::new(bucket))?),
        Ok(None) => Err(StoreError::NoSuchStore),
        Err(error) => Err(error.into()),
    };
    Ok((opened,))
}

async fn get(
    mut store: Store<'_>,
    (bucket, key): (Resource<Bucket>, String),
) -> Returned<Option<Value>> {
    let bucket = begin(&mut store, &bucket, 1)?;
    let result = async { bucket?.read_one(key).await };
    Ok((result.await.map_err(StoreError::from),))
}

async fn set(
    mut store: Store<'_>,
    (bucket, key, value): (Resource<Bucket>, String, Vec<u8>),
) -> Returned<()> {
    let bucket = begin(&mut store, &bucket, 1)?;
    let result = async { bucket?.write(vec![(key, value.into())]).await };
    Ok((result.await.map_err(StoreError::from),))
}

async fn delete(mut store: Store<'_>, (bucket, key): (Resource<Bucket>, String)) -> Returned<()> {
    let bucket = begin(&mut store, &bucket, 1)?;
    let result = async { bucket?.delete(&[key]).await };
    Ok((result.await.map_err(StoreError::from),))
}

async fn exists(mut store: Store<'_>, (bucket, key): (Resource<Bucket>, String)) -> Returned<bool> {
    let bucket = begin(&mut store, &bucket, 1)?;
    let result = async { bucket?.exists(&key).await };
    Ok((result.await.map_err(StoreError::from),))
}

async fn list_keys<C: DraftCursor>(
    mut store: Store<'_>,
    (bucket, cursor): (Resource<Bucket>, Option<C>),
) -> Returned<KeyResponse<C>> {
    let bucket = begin(&mut store, &bucket, 1)?;
    let result = async {
        let bucket = bucket?;
        let after = cursor.map(DraftCursor::position).transpose();
        bucket
            .list(after.inspect_err(|error| bucket.count_refused(*error))?)
            .await
    };
    let page = result.await.map(|page| KeyResponse {
        keys: page.keys,
        cursor: page.next.map(C::from_position),
    });
    Ok((page.map_err(StoreError::from),))
}
