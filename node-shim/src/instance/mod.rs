//! Runs one request in a fresh instance, or in one that has answered others, within its time limits.
//!
//! **CPU time**: the guest's future is polled through [`metered`], which measures the time inside `poll`; at
//! each epoch the store's callback compares it with the limit. **Wall-clock time** (`timeout`, `firstByte`):
//! a timer in the same task. Time in the queue does not count. A guest is always stopped in the same way: the
//! reason is set, the callback traps at the next epoch, and a guest that executes no WebAssembly by then is
//! dropped. **Turns**: after an epoch a guest waits in [`preempted`], so that guests that compute do not delay all others.

mod call;
mod classify;
mod clocks;
mod control;
mod host_memory;
mod host_memory_p3;
mod idle;
mod initial_memory;
mod limiter;
mod metered;
mod outbound;
mod preempted;
mod retained;
mod reusable;
mod running;
mod service;
mod task;
mod wasi_context;

pub(crate) use call::{Deadline, GuestCall, GuestHead, InstanceSource};
pub(crate) use control::{GuestControl, GuestEnd, LAST_TURNS};
pub(crate) use host_memory::add_to_linker as add_host_memory;
pub(crate) use host_memory_p3::add_to_linker as add_host_memory_p3;
pub(crate) use idle::IdleInstances;
pub(crate) use initial_memory::initial_memory;
pub(crate) use preempted::PreemptedGuests;
pub(crate) use reusable::InstanceParts;
pub(crate) use running::RunningGuest;
pub(crate) use wasi_context::GuestState;
