//! `node-shim serve` and `node-shim dev` as users run them, with clients that others wrote: the test suite h2spec, curl, grpcurl and
//! ghz.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod curl;
mod dev;
mod grpc;
mod h2spec;
mod server;
