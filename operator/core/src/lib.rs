//! Decide: from a validated function, the rollout's state, evidence and `now`, what comes next.
//!
//! Nothing here knows Kubernetes, a network or a clock.

pub mod analysis;
pub mod function;
pub mod judge;
pub mod rollout;
pub mod samples;
pub mod stats;
pub mod status_rate;
