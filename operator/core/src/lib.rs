//! Decide: from a validated function, the rollout's state, evidence and `now`, what comes next.
//!
//! Nothing here knows Kubernetes, a network or a clock.

#![forbid(unsafe_code)]

pub mod analysis;
pub mod function;
pub mod judge;
pub mod resting;
pub mod rollout;
pub mod samples;
pub mod stats;
