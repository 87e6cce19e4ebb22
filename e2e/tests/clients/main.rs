//! `node-shim serve` and `node-shim dev` as users run them, with clients that others wrote: the test suite h2spec, curl, grpcurl and
//! ghz, and Chromium.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise, and indexing a JSON value answers null"
)]

mod browser;
mod curl;
mod dev;
mod grpc;
mod h2spec;
mod server;
