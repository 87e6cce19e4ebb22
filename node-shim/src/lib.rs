//! The node shim: pulls, verifies and compiles components, and serves them.
//!
//! One request goes `accept → gate → route → pick → admit → run → judge → count`: modules `accept`
//! and `conn` (sockets), `exchange` (the sentence from gate to run), `run` (the guest and its
//! clocks), `body` (what streams), `observer` and `counters` (what is left of it). `plane` is the
//! handle of all that; `table` is what it is fed with.
//!
//! What it is fed with comes by way of `supervisor`: `node_api` hears operators, `pull`, `verify`,
//! `compile`, `cache` and `load` bring a component to where it can run, `disk` keeps all that over
//! restarts, `admin` and `drain` are for whoever runs the node, `cli` starts a role.

pub mod admin;
mod body;
pub mod cli;
pub mod code_cache;
pub mod compile;
mod concurrency_limit;
pub mod config_value;
mod connection;
pub mod counters;
pub mod data_plane;
pub mod disk;
pub mod drain;
pub mod engine;
pub mod guest_log;
mod handler;
mod instance;
mod listener;
pub mod load;
mod memory_pressure;
pub mod metrics;
pub mod native_cache;
pub mod node_api;
pub mod node_counters;
mod observer;
pub mod pull;
mod resource_exhaustion;
pub mod revision;
pub mod routing_table;
pub mod serve;
mod shim_response;
pub mod supervisor;
pub mod verify;

pub use connection::ConnectionLimits;

/// The engine's version, for the operator and for people.
pub const WASMTIME_VERSION: &str = "48.0.8";
