//! Runs one request in a fresh instance, within its time limits.
//!
//! **CPU time**: the guest's future is polled through [`metered`], which measures the time inside `poll`; at
//! each epoch the store's callback compares it with the limit. **Wall-clock time** (`timeout`, `firstByte`):
//! a timer in the same task. Time in the queue does not count. A guest is always stopped in the same way: the
//! reason is set, the callback traps at the next epoch, and a guest that executes no WebAssembly by then is
//! dropped.

mod call;
mod classify;
mod clocks;
mod control;
mod initial_memory;
mod limiter;
mod metered;
mod running;
mod state;
mod task;

pub(crate) use call::GuestCall;
pub(crate) use control::{GuestControl, GuestEnd};
pub(crate) use initial_memory::initial_memory;
pub(crate) use running::RunningGuest;
pub(crate) use state::GuestState;
