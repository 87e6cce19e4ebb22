//! Proves Selvage from outside, through the API server and HTTP only; owns the local cluster.
#![allow(
    clippy::indexing_slicing,
    reason = "indexing a JSON value answers null; this crate is for tests"
)]

pub mod cluster;
pub mod demo;
pub mod image;
pub mod load;
mod progress;
pub mod push;
pub mod selvage;
