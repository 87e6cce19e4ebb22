//! Proves Selvage from outside, through the API server and HTTP only; owns the local cluster.

pub mod cluster;
pub mod image;
pub mod push;
