//! Rules of ARCHITECTURE.md and CONTRIBUTING.md that no other tool checks. The others are checked by `make lint`:
//! clippy and rustc (`[workspace.lints]` in Cargo.toml), rustdoc, and cargo-deny (the `deny.toml` of each crate).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test ends at the first surprise, and so do its helpers"
)]

mod commands;
mod examples;
mod language;
mod manifests;
mod messages;
mod metrics;
mod modules;
mod pages;
mod queries;
mod reference;
mod rust;
mod tree;
mod unsafe_code;
