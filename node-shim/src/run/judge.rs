//! From what wasmtime says to a reason of ours.

use node_shim_core::outcome::Reason;
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;

use super::control::Stopped;

/// Why a call failed. `refused` tells whether memory was refused before.
pub(super) fn failure(error: &wasmtime::Error, refused: bool) -> Reason {
    if let Some(Stopped(reason)) = error.downcast_ref() {
        return *reason;
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return Reason::Pool;
    }
    if error.downcast_ref::<I32Exit>().is_some() {
        return Reason::Exit;
    }
    if refused {
        return Reason::Memory;
    }
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
        return Reason::HostLimit;
    }
    match error.downcast_ref::<Trap>() {
        Some(_) => Reason::Trap,
        // not the guest's own instruction: a limit of a host call refused it
        None => Reason::HostLimit,
    }
}

/// A guest that asks to end well has ended, not failed.
pub(super) fn is_clean_exit(error: &wasmtime::Error) -> bool {
    matches!(error.downcast_ref(), Some(I32Exit(0)))
}
