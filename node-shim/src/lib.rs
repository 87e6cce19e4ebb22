//! The node shim: pulls, verifies and compiles components, and serves them.
//!
//! One request goes `accept → gate → route → pick → admit → run → judge → count`: modules `accept`
//! and `conn` (sockets), `exchange` (the sentence from gate to run), `run` (the guest and its
//! clocks), `body` (what streams), `observer` and `counters` (what is left of it). `plane` is the
//! handle of all that; `table` is what it is fed with.

mod accept;
mod admit;
mod body;
mod conn;
pub mod counters;
pub mod engine;
mod exchange;
pub mod guest_log;
pub mod node_counters;
mod observer;
pub mod plane;
mod reply;
pub mod revision;
mod run;
pub mod serve;
pub mod table;

pub use conn::ConnLimits;
