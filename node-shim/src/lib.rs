//! The node shim: pulls, verifies and compiles components, and serves them.
//!
//! One request goes `accept → gate → route → pick → admit → run → judge → count`: modules `accept`
//! and `conn` (sockets), `exchange` (the sentence from gate to run), `run` (the guest and its
//! clocks), `body` (what streams), `observer` and `counters` (what is left of it). `plane` is the
//! handle of all that; `table` is what it is fed with.
//!
//! What it is fed with comes by way of `supervisor`: `node_api` hears operators, `pull`, `verify`,
//! `compile`, `cache` and `load` bring a component to where it can run, `disk` keeps all that over
//! restarts, `admin` and `drain` are for the operator of the node, `cli` starts a role.
//!
//! Before a component is compiled, its size and digest are checked against what the operator recorded:
//!
//! ```
//! use std::io::Write;
//!
//! let path = std::env::temp_dir().join(format!("verify-{}", std::process::id()));
//! let mut file = std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
//! file.write_all(b"abc")?;
//! let digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
//! assert!(node_shim::verify::verify(&mut file, digest, 3).is_ok());
//!
//! file.write_all(b"d")?;
//! let failure = node_shim::verify::verify(&mut file, digest, 0).unwrap_err();
//! assert_eq!(failure.reason, "DigestMismatch");
//! # std::fs::remove_file(path)?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod accept;
pub mod admin;
mod admit;
mod body;
pub mod cache;
pub mod cli;
pub mod compile;
mod conn;
pub mod counters;
pub mod data_plane;
pub mod disk;
pub mod drain;
pub mod engine;
mod exchange;
pub mod guest_log;
pub mod load;
mod memory;
pub mod metrics;
pub mod node_api;
pub mod node_counters;
mod observer;
pub mod plane;
pub mod pull;
mod reply;
pub mod residency;
pub mod revision;
mod run;
pub mod serve;
mod shortage;
pub mod supervisor;
pub mod table;
pub mod value;
pub mod verify;

pub use conn::ConnLimits;

/// The engine's version, for the operator and for people.
pub const WASMTIME_VERSION: &str = "48.0.8";
