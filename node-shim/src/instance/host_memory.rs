//! Memory that the host keeps for a guest: header fields, parts of outbound requests, bodies that wait for their readers.
//!
//! It counts towards `limits.memory` and towards the share of the namespace, because a guest of a few pages could otherwise
//! make the node hold gigabytes: wasmtime bounds one `fields` resource and the number of handles, but not their sum. The
//! functions in this module replace those functions of wasmtime that keep what a guest passes. They count it and call the
//! original. What was counted stays counted until the request ends, like linear memory, which never shrinks either.

use std::any::Any;

use http::HeaderMap;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource};
use wasmtime_wasi_http::p2::HeaderResult;
use wasmtime_wasi_http::p2::bindings::http::types::{
    HeaderError, HostFields, HostOutgoingRequest as RequestHost,
    HostOutgoingResponse as ResponseHost, Method,
};
use wasmtime_wasi_http::p2::body::{HostOutgoingBody, StreamContext};
use wasmtime_wasi_http::p2::types::{HostOutgoingRequest, HostOutgoingResponse};
use wasmtime_wasi_http::{FieldMap, WasiHttpView};

use super::outbound::CHUNK;
use super::wasi_context::GuestState;

const HTTP_TYPES: &str = "wasi:http/types@0.2.12";

/// Size in bytes that one header field counts as, in addition to its name and value: a `HeaderMap` holds about this much
/// for a field whose name occurs once, when the map has just grown.
const FIELD: u64 = 256;
/// Size in bytes that a body counts as which waits for its reader: its queue holds two chunks.
pub(super) const BODY: u64 = 2 * CHUNK as u64;

type Store<'a> = StoreContextMut<'a, GuestState>;
type Fields = Resource<FieldMap>;

/// Replaces the functions that keep data of the guest. Must be called after the functions of wasmtime are added.
pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(HTTP_TYPES)?;
    add_fields(&mut types)?;
    add_requests(&mut types)?;
    add_bodies(&mut types)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn add_fields(types: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    types.func_wrap(
        "[static]fields.from-list",
        |mut store: Store<'_>, (entries,): (Vec<(String, Vec<u8>)>,)| {
            let sizes = entries.iter().map(|(name, value)| field(name, value));
            store.data_mut().hold(sizes.sum())?;
            let created = store.data_mut().http().from_list(entries);
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
            let appended = store.data_mut().http().append(fields, name, value);
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
    type Request = Resource<HostOutgoingRequest>;
    types.func_wrap(
        "[method]outgoing-request.set-method",
        |mut store: Store<'_>, (request, method): (Request, Method)| {
            if let Method::Other(name) = &method {
                store.data_mut().hold(name.len() as u64)?;
            }
            let set = store.data_mut().http().set_method(request, method)?;
            Ok((set,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-path-with-query",
        |mut store: Store<'_>, (request, path): (Request, Option<String>)| {
            store.data_mut().hold(length(path.as_deref()))?;
            let set = store.data_mut().http().set_path_with_query(request, path)?;
            Ok((set,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-authority",
        |mut store: Store<'_>, (request, authority): (Request, Option<String>)| {
            store.data_mut().hold(length(authority.as_deref()))?;
            let set = store.data_mut().http().set_authority(request, authority)?;
            Ok((set,))
        },
    )
}

fn add_bodies(types: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    types.func_wrap(
        "[method]outgoing-request.body",
        |mut store: Store<'_>, (request,): (Resource<HostOutgoingRequest>,)| {
            let body = RequestHost::body(&mut store.data_mut().http(), request)?;
            count_bodies(store.data_mut())?;
            Ok((body,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-response.body",
        |mut store: Store<'_>, (response,): (Resource<HostOutgoingResponse>,)| {
            let state = store.data_mut();
            let number = response.rep();
            let body = ResponseHost::body(&mut state.http(), response)?;
            if let Ok(body) = &body {
                forget_length(state, &Resource::new_borrow(number), body)?;
            }
            count_bodies(state)?;
            Ok((body,))
        },
    )
}

/// Replaces the body of a response that has none by one whose length is not compared with `content-length`: that is the
/// length of another response. Frameworks answer HEAD so, and fail when the end of their empty body is refused.
fn forget_length(
    state: &mut GuestState,
    response: &Resource<HostOutgoingResponse>,
    body: &Resource<HostOutgoingBody>,
) -> wasmtime::Result<()> {
    let status = state.table().get(response)?.status;
    if !state.is_bodiless(status) {
        return Ok(());
    }
    let chunks = state.http().hooks.p2_outgoing_body_buffer_chunks();
    let (writer, reader) = HostOutgoingBody::new(StreamContext::Response, None, chunks, CHUNK);
    *state.table().get_mut(body)? = writer;
    state.table().get_mut(response)?.body = Some(reader);
    Ok(())
}

/// Counts the bodies that were created and whose request or response the guest has not sent yet.
fn count_bodies(state: &mut GuestState) -> wasmtime::Result<()> {
    let bodies = state.table().iter_mut().filter(|entry| {
        let entry: &dyn Any = &**entry;
        let request = entry.downcast_ref::<HostOutgoingRequest>();
        let response = entry.downcast_ref::<HostOutgoingResponse>();
        request.is_some_and(|request| request.body.is_some())
            || response.is_some_and(|response| response.body.is_some())
    });
    let count = bodies.count() as u64;
    Ok(state.hold_bodies(count)?)
}

/// Separates errors that the guest sees from those that end it.
fn header_result<T>(result: HeaderResult<T>) -> wasmtime::Result<Result<T, HeaderError>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => Ok(Err(error.downcast()?)),
    }
}

pub(super) fn field(name: &str, value: &[u8]) -> u64 {
    (name.len() + value.len()) as u64 + FIELD
}

pub(super) fn size_of(fields: &HeaderMap) -> u64 {
    let sizes = fields
        .iter()
        .map(|(name, value)| field(name.as_str(), value.as_bytes()));
    sizes.sum()
}

pub(super) fn length(text: Option<&str>) -> u64 {
    text.map_or(0, str::len) as u64
}
