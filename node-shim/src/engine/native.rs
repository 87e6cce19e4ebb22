//! Mapping of native code, the only unsafe code of this program.

#![allow(
    unsafe_code,
    reason = "wasmtime cannot check native code; the cache authenticates each file before it is mapped"
)]

use std::path::Path;

use wasmtime::component::Component;

/// Maps a file that `Compiler::precompile` wrote. wasmtime rejects code of other versions, settings and CPUs,
/// but it cannot detect modified code.
pub(super) fn map(engine: &wasmtime::Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: callers pass only files of the native cache. Their HMAC, under a key that guests cannot
    // read, was verified, and no other user can write to them.
    unsafe { Component::deserialize_file(engine, path) }
}
