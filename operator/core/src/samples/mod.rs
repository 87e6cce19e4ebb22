//! What the nodes counted, and what of it is new.
//!
//! A [`Snapshot`] is everything one process counted for the revisions of one function since it started, read at
//! one moment. Snapshots arrive twice, by Prometheus and in-band from the nodes; [`merge`] takes one of them per process.
//! [`Tracker`] remembers the last snapshot of each process and says what came since: [`NodeIncrement`]s, per node.
//! Only those are summed. Summing first and subtracting afterwards would mistake a restarted process for healing.
//!
//! Populations (`live`, `matched`, `synthetic`, …) are told apart by whoever reads the counters: a snapshot holds one
//! population, and preview and overridden requests never reach this module.

mod counters;
mod merge;
mod share;
mod tracker;

pub use counters::{Code, Counters, Histogram, Rejected, Tally, whole};
pub use merge::{Snapshot, merge};
pub use node_api_types::{LATENCY_BOUNDS, LATENCY_BUCKETS, Outcome};
pub use share::{LIMITED_FROM, limit_shares};
pub use tracker::{Arms, Baseline, NodeIncrement, Tracker};
