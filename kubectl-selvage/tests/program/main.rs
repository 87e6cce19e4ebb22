//! The program as a person or a pipeline runs it, against an API server of a few lines.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod actions;
mod cluster;
mod completion;
mod fake;
mod following;
mod invoke;
mod node;
mod publish;
mod reading;
mod registry;
mod replay;
mod terminal;
mod waiting;
