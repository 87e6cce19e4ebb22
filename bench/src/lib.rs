//! Measurements that take too long for the tests.
//!
//! A simulated rate misses its required bound only when its confidence bound contradicts it, so no run fails by chance:
//!
//! ```
//! use bench::monte_carlo::{lower_bound, upper_bound};
//!
//! // 14 false rollbacks in 1,000 runs: more than 1 %, but consistent with 1 %
//! assert!(lower_bound(14, 1_000) < 0.01);
//! assert!(upper_bound(14, 1_000) > 0.014);
//! assert!(lower_bound(40, 1_000) > 0.01);
//! ```

pub mod monte_carlo;
