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

#[path = "supervisor/bombs.rs"]
mod bombs;
#[path = "supervisor/code_cache.rs"]
mod code_cache;
#[path = "support/component.rs"]
mod component;
#[path = "supervisor/connection.rs"]
mod connection;
#[path = "supervisor/deleted.rs"]
mod deleted;
#[path = "supervisor/faults.rs"]
mod faults;
#[path = "supervisor/node.rs"]
mod node;
#[path = "supervisor/operator.rs"]
mod operator;
#[path = "supervisor/process.rs"]
mod process;
#[path = "supervisor/registry.rs"]
mod registry;
#[path = "supervisor/restarts.rs"]
mod restarts;
#[path = "supervisor/secrets.rs"]
mod secrets;
#[path = "supervisor/table.rs"]
mod table;
#[path = "supervisor/tokens.rs"]
mod tokens;
