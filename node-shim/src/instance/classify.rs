//! Classification of wasmtime errors as failure reasons.

use node_shim_core::failure_reason::FailureReason;
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;

use super::control::Stopped;
use crate::resource_exhaustion::is_resource_exhaustion;

/// Returns why a call failed. `refusal` is the reason for which the guest was refused memory before, if it was.
pub(super) fn failure(error: &wasmtime::Error, refusal: Option<FailureReason>) -> FailureReason {
    if let Some(Stopped(reason)) = error.downcast_ref() {
        return *reason;
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return FailureReason::Pool;
    }
    if error.downcast_ref::<I32Exit>().is_some() {
        return FailureReason::Exit;
    }
    // the instance could not be created
    if error.chain().any(is_resource_exhaustion) {
        return FailureReason::HostMemory;
    }
    if let Some(reason) = refusal {
        return reason;
    }
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
        return FailureReason::HostLimit;
    }
    match error.downcast_ref::<Trap>() {
        // a task of WASI 0.3 ended without a response
        Some(Trap::NoAsyncResult) => FailureReason::NoResponse,
        Some(_) => FailureReason::Trap,
        // not a trapping instruction: the guest exceeded a limit of a host call
        None => FailureReason::HostLimit,
    }
}

/// Returns whether the guest called `exit` with success.
pub(super) fn is_clean_exit(error: &wasmtime::Error) -> bool {
    matches!(error.downcast_ref(), Some(I32Exit(0)))
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;
    use wasmtime::Error;

    use super::*;

    #[test]
    fn a_lack_of_memory_on_the_node_is_not_a_fault_of_the_guest() {
        let mapping = || Error::from(Errno::NOMEM).context("mmap failed to allocate");
        assert_eq!(failure(&mapping(), None), FailureReason::HostMemory);
        let trap = || Error::from(Trap::UnreachableCodeReached);
        for (error, refusal, reason) in [
            (trap(), None, FailureReason::Trap),
            (trap(), Some(FailureReason::Memory), FailureReason::Memory),
            (
                trap(),
                Some(FailureReason::HostMemory),
                FailureReason::HostMemory,
            ),
            (Error::msg("too long"), None, FailureReason::HostLimit),
        ] {
            assert_eq!(failure(&error, refusal), reason, "{error}");
        }
    }
}
