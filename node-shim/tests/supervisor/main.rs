//! Tests of a complete node against a scripted operator and registry, with the real wasmtime, compile processes, files
//! and loopback sockets. Test comments name the ids of the faults that they cover.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails"
)]

mod bombs;
mod calls;
mod certificates;
mod code_cache;
#[path = "../support/component.rs"]
mod component;
mod connection;
mod deleted;
#[path = "../support/descriptors.rs"]
mod descriptors;
mod faults;
mod function_cache;
mod key_value;
#[path = "../support/key_value.rs"]
mod key_value_guest;
mod node;
mod operator;
#[allow(dead_code, reason = "another test program uses the rest")]
#[path = "../support/outbound.rs"]
mod outbound;
mod process;
mod registry;
mod removed_images;
mod restarts;
mod reuse;
mod secrets;
mod table;
#[allow(dead_code, reason = "another test program uses the rest")]
#[path = "../support/tls.rs"]
mod tls_client;
mod tokens;
