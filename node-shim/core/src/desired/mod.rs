//! The desired state of a node: which received records it applies, which components it loads and
//! unloads in which order, when it retries, and when a candidate loses its traffic because no operator
//! supervises it.
//!
//! Everything here is a function of its arguments; the current time and random numbers in [0, 1) are
//! among them.

mod load_failure;
mod load_order;
mod load_tracker;
mod merge;
mod retry;
mod supervision;

pub use load_failure::{Failure, LoadFailure};
pub use load_order::{QueuedLoad, RevisionRole, RevisionToLoad, load_order};
pub use load_tracker::{LoadLimits, LoadState, LoadTracker};
pub use merge::{
    CandidateSplit, MergeDecision, RecordVersions, merge_decision, removal_applies,
    survives_snapshot, weight_after_hint,
};
pub use retry::{RETRY_CAP, reconnect_delay, retry_delay};
pub use supervision::Supervision;
