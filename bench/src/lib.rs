//! Measurements that take too long for the tests.

pub mod monte_carlo;
