//! Classification of wasmtime errors as failure reasons.

use node_shim_core::failure_reason::FailureReason;
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;

use super::control::Stopped;

/// Returns why a call failed. `refused` is why the guest was refused memory before.
pub(super) fn failure(error: &wasmtime::Error, refused: Option<FailureReason>) -> FailureReason {
    if let Some(Stopped(reason)) = error.downcast_ref() {
        return *reason;
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return FailureReason::Pool;
    }
    if error.downcast_ref::<I32Exit>().is_some() {
        return FailureReason::Exit;
    }
    if let Some(reason) = refused {
        return reason;
    }
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
        return FailureReason::HostLimit;
    }
    match error.downcast_ref::<Trap>() {
        Some(_) => FailureReason::Trap,
        // not a trapping instruction: the guest exceeded a limit of a host call
        None => FailureReason::HostLimit,
    }
}

/// Returns whether the guest called `exit` with success.
pub(super) fn is_clean_exit(error: &wasmtime::Error) -> bool {
    matches!(error.downcast_ref(), Some(I32Exit(0)))
}
