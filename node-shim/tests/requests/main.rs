//! Tests of the data plane with real wasmtime: one guest per behaviour, raw sockets as clients. Test names
//! start with the id of the hostile input that they reproduce.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and so do its helpers"
)]

mod access_log;
mod backtraces;
mod client_variety;
mod computing;
mod config;
mod connection_limits;
mod content_length;
mod dev;
mod early_responses;
mod egress;
mod forward;
mod function_certificates;
mod grpc;
mod guests;
mod h2_in;
mod h2_streams;
mod half_close;
mod hoards;
mod hostile;
mod http_in;
mod http_out;
mod interfaces;
mod isolation;
mod key_value;
mod lifecycle;
mod limits;
mod memory;
mod metrics;
mod program;
mod rejected_components;
mod request_parsing;
mod reuse;
mod services;
mod streaming;
#[path = "../support/mod.rs"]
mod support;
mod tenants;
mod threads;
mod tls;
mod traces;
mod trailers;
mod unparsable;
