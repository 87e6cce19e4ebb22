//! One request in one fresh instance: three clocks around it, one account of how it ended.
//!
//! **CPU**: the guest's future is polled through `Metered`, which adds up the time inside `poll`;
//! at each epoch the store's callback compares it with the budget. **Wall** (`timeout`,
//! `firstByte`): a timer beside the store, in the same task. **Queue**: not the guest's.
//! Whatever ends a guest early goes one way: a reason is set, the callback traps at the next epoch,
//! and only a guest that does not run wasm by then is dropped.

mod call;
mod classify;
mod clocks;
mod control;
mod limiter;
mod metered;
mod running;
mod state;
mod task;

pub(crate) use call::GuestCall;
pub(crate) use control::{GuestControl, GuestEnd};
pub(crate) use running::RunningGuest;
pub(crate) use state::GuestState;
