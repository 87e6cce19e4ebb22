//! Counters of the nodes, and their growth between evaluations.
//!
//! A [`Snapshot`] contains all counters of one process for the revisions of one function, read at one time. Snapshots
//! arrive from Prometheus and in-band from the nodes; [`merge`] takes one of them per process. [`Tracker`] keeps the last
//! snapshot of each process and computes the growth since then, a [`NodeIncrement`] per node. Only increments are summed:
//! the difference of two sums would fall when a process restarts.
//!
//! The reader of the counters separates the populations (`live`, `matched`, `synthetic`, …): a snapshot contains one
//! population, and preview and overridden requests never reach this module.

mod counters;
mod merge;
mod node_limit;
mod tracker;

pub use counters::{Counters, Histogram, InvalidSnapshot, StatusClass, Tally, whole};
pub use merge::{Snapshot, merge};
pub use node_api_types::{LATENCY_BOUNDS, LATENCY_BUCKETS, Outcome};
pub use node_limit::{LIMITED_FROM, limit_shares};
pub use tracker::{Baseline, NodeIncrement, RevisionTallies, Tracker};
