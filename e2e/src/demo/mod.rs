//! The demo on a real cluster: a function is served, a good version is promoted, and bad versions are rolled back.

mod context;
mod evidence_metrics;
mod follow;
mod live;
mod outcome;
mod platform;
mod processes;
mod rollout;
mod screen;
mod story;

pub use story::{INTERRUPTED, Options, play};
