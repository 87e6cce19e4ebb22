//! Memory that the host keeps for a guest of WASI 0.3. See [`host_memory`](super::host_memory), which does the same for
//! WASI 0.2. Bodies are not counted: a stream of the guest holds nothing in the host until its request or response is sent,
//! and then one chunk, and the number of requests that are sent at the same time is bounded.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource};
use wasmtime_wasi::TrappableError;
use wasmtime_wasi_http::p3::Request;
use wasmtime_wasi_http::p3::bindings::http::types::{
    HeaderError, HostFields, HostRequest, Method, Scheme,
};
use wasmtime_wasi_http::{FieldMap, WasiHttpView};

use super::host_memory::{field, length, size_of};
use super::wasi_context::GuestState;

/// Name under which wasmtime-wasi-http links the interface.
const HTTP_TYPES: &str = "wasi:http/types@0.3.0";

type Store<'a> = StoreContextMut<'a, GuestState>;
type Fields = Resource<FieldMap>;

/// Replaces the functions that keep data of the guest. Must be called after the functions of wasmtime are added.
pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(HTTP_TYPES)?;
    add_fields(&mut types)?;
    add_requests(&mut types)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn add_fields(types: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    types.func_wrap(
        "[static]fields.from-list",
        |mut store: Store<'_>, (entries,): (Vec<(String, Vec<u8>)>,)| {
            let sizes = entries.iter().map(|(name, value)| field(name, value));
            store.data_mut().hold(sizes.sum())?;
            let created = HostFields::from_list(&mut store.data_mut().http(), entries);
            Ok((header_result(created)?,))
        },
    )?;
    types.func_wrap(
        "[method]fields.set",
        |mut store: Store<'_>, (fields, name, values): (Fields, String, Vec<Vec<u8>>)| {
            let sizes = values.iter().map(|value| field(&name, value));
            store.data_mut().hold(sizes.sum())?;
            let set = HostFields::set(&mut store.data_mut().http(), fields, name, values);
            Ok((header_result(set)?,))
        },
    )?;
    types.func_wrap(
        "[method]fields.append",
        |mut store: Store<'_>, (fields, name, value): (Fields, String, Vec<u8>)| {
            store.data_mut().hold(field(&name, &value))?;
            let appended = HostFields::append(&mut store.data_mut().http(), fields, name, value);
            Ok((header_result(appended)?,))
        },
    )?;
    types.func_wrap(
        "[method]fields.clone",
        |mut store: Store<'_>, (fields,): (Fields,)| {
            // both share their content until one of them is changed
            let size = size_of(store.data_mut().table().get(&fields)?);
            store.data_mut().hold(size)?;
            let copy = HostFields::clone(&mut store.data_mut().http(), fields)?;
            Ok((copy,))
        },
    )
}

fn add_requests(types: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    types.func_wrap(
        "[method]request.set-method",
        |mut store: Store<'_>, (request, method): (Resource<Request>, Method)| {
            if let Method::Other(name) = &method {
                store.data_mut().hold(name.len() as u64)?;
            }
            let set = HostRequest::set_method(&mut store.data_mut().http(), request, method)?;
            Ok((set,))
        },
    )?;
    types.func_wrap(
        "[method]request.set-path-with-query",
        |mut store: Store<'_>, (request, path): (Resource<Request>, Option<String>)| {
            store.data_mut().hold(length(path.as_deref()))?;
            let set =
                HostRequest::set_path_with_query(&mut store.data_mut().http(), request, path)?;
            Ok((set,))
        },
    )?;
    types.func_wrap(
        "[method]request.set-scheme",
        |mut store: Store<'_>, (request, scheme): (Resource<Request>, Option<Scheme>)| {
            if let Some(Scheme::Other(name)) = &scheme {
                store.data_mut().hold(name.len() as u64)?;
            }
            let set = HostRequest::set_scheme(&mut store.data_mut().http(), request, scheme)?;
            Ok((set,))
        },
    )?;
    types.func_wrap(
        "[method]request.set-authority",
        |mut store: Store<'_>, (request, authority): (Resource<Request>, Option<String>)| {
            store.data_mut().hold(length(authority.as_deref()))?;
            let set = HostRequest::set_authority(&mut store.data_mut().http(), request, authority)?;
            Ok((set,))
        },
    )
}

/// Separates errors that the guest sees from those that end it.
fn header_result<T>(
    result: Result<T, TrappableError<HeaderError>>,
) -> wasmtime::Result<Result<T, HeaderError>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => Ok(Err(error.downcast()?)),
    }
}
