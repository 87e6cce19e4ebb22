//! The node-shim: pulls, verifies and compiles components, and serves requests with them.
//!
//! A request passes through these modules: `listener` and `connection` (sockets and timeouts), `handler` (validate, route,
//! pick a revision, admit), `concurrency_limit` and `code_cache` (permits and mapped code), `instance` (the guest and its
//! limits), `body` (streaming), [`egress`] (its outbound requests), `observer` and `counters` (counting). If it is reported
//! on its own, `open_request` writes it to the [`access_log`] and to [`traces`]. Guests open the stores of [`key_value`].
//! [`data_plane`] has the threads that do this, is the handle of all of it, and serves the functions of a
//! [`routing_table`].
//!
//! The [`supervisor`] builds that table: [`node_api`] connects to the operator; [`load`] with [`pull`],
//! [`component_digest`], [`compile`], [`function_cache`] and [`native_cache`] turns a digest into code that can run; [`disk`]
//! keeps the state across restarts. [`admin`] and [`drain`] serve the kubelet, and [`cli`] starts a role. [`dev`] serves the
//! functions of a manifest while they are written.
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
//! assert!(node_shim::component_digest::verify(&mut file, digest, 3).is_ok());
//!
//! file.write_all(b"d")?;
//! let failure = node_shim::component_digest::verify(&mut file, digest, 0).unwrap_err();
//! assert_eq!(failure.reason().name(), "DigestMismatch");
//! # std::fs::remove_file(path)?;
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod access_log;
pub mod admin;
mod body;
pub mod cli;
mod clock;
pub mod code_cache;
pub mod compile;
pub mod component_digest;
mod component_world;
mod concurrency_limit;
pub mod config_value;
mod connection;
pub mod counters;
pub mod data_plane;
pub mod descriptors;
pub mod dev;
pub mod disk;
pub mod drain;
pub mod egress;
pub mod engine;
pub mod forward;
pub mod function_cache;
pub mod guest_log;
mod handler;
mod instance;
mod instance_budget;
pub mod key_value;
mod keyed_limit;
mod listener;
pub mod load;
mod local_code;
mod memory_pressure;
pub mod metrics;
pub mod native_cache;
pub mod node_api;
pub mod node_counters;
mod observer;
mod open_request;
pub mod pull;
mod report_args;
mod resource_exhaustion;
pub mod revision;
pub mod routing_table;
pub mod serve;
mod server_timing;
mod shim_response;
pub mod supervisor;
#[cfg(test)]
mod test_support;
pub mod tls;
pub mod traces;
mod user_cache;

pub use connection::ConnectionLimits;

/// Version of wasmtime, as reported to the operator.
pub const WASMTIME_VERSION: &str = "48.0.8";
