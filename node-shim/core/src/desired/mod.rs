//! What this node should hold: which records it takes, what it loads and retires and in which
//! order, when it tries again, and when a candidate's share ends for want of an operator.
//!
//! Everything here is a function of its arguments. Time is an argument, and so are dice in [0, 1).

mod load_order;
mod load_tracker;
mod merge;
mod retry;
mod supervision;

pub use load_order::{RevisionRole, RevisionToLoad, load_order};
pub use load_tracker::{Failure, LoadState, LoadTracker};
pub use merge::{
    CandidateSplit, MergeDecision, RecordVersions, merge_decision, removal_applies,
    survives_snapshot, weight_after_hint,
};
pub use retry::{RETRY_BASE, RETRY_CAP, reconnect_delay, retry_delay};
pub use supervision::Supervision;
