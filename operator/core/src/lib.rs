//! Decisions of the operator: those of rollouts, from the crate `delivery`, and when the status of a function is written.
//!
//! This crate has no access to Kubernetes, a network or a clock: functions take the time as an argument and return what
//! to do.

#![forbid(unsafe_code)]

pub mod status_rate;
pub mod token_bucket;

pub use delivery::{analysis, evaluator, function, rollout, samples, stats};
