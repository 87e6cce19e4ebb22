//! Mapping native code: the one place of this program where unsafe code is allowed.

#![allow(
    unsafe_code,
    reason = "wasmtime cannot check native code; the cache authenticates each file before it is mapped"
)]

use std::path::Path;

use wasmtime::component::Component;

/// Maps a file that `Compiler::precompile` wrote. wasmtime itself refuses code of other versions,
/// settings and processors; it cannot detect code that was tampered with.
pub(super) fn map(engine: &wasmtime::Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: callers pass only files of the native cache, whose MAC under a key that guests never
    // see was verified, and which nobody else can write to.
    unsafe { Component::deserialize_file(engine, path) }
}
