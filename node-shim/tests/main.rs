//! The data path against real wasmtime: one guest per behaviour, raw sockets on the other side.
//! Tests carry the ids of the hostile inputs they play.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and so do its helpers"
)]

mod answers;
mod config;
mod crowded;
mod guests;
mod h2_in;
mod hostile;
mod http_in;
mod http_out;
mod isolation;
mod lifecycle;
mod limits;
mod memory;
mod metrics;
mod parsing;
mod program;
mod refused;
mod support;
mod trailers;
