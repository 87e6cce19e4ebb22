//! Measurements that are too long for the tests.

pub mod monte_carlo;
