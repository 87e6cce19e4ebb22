//! Tests of the rollout state machine: one test per row of the table, whole timelines as text, and random histories.

#![allow(unreachable_pub, reason = "modules of one test binary")]
#![allow(
    clippy::too_many_lines,
    reason = "`properties::check` has one assertion for each property"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod environment;
mod kstatus;
mod ops;
mod properties;
mod rows;
mod sentences;
mod timelines;
mod world;
