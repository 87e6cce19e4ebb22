//! Rollout decisions: computes the next state from a validated function, the current state, the evidence and the time.
//!
//! This crate has no access to Kubernetes, a network or a clock: functions take the time as an argument and return what
//! to do. The operator decides with it, `node-shim dev --rollout` plays rollouts with it on one computer, and
//! `kubectl selvage replay` plays them on recorded requests ([`playback`]).
//!
//! Start with [`stats`], the sequential test that compares two versions. It may be read after every request without
//! raising its error rate:
//!
//! ```
//! use delivery::stats::{Increment, EProcess, Settings, Side, Tolerance};
//!
//! // the candidate may fail as often as stable plus 0.5 percentage points; error rate 1 %
//! let tolerance = Tolerance { ratio: 1.0, delta: 0.005 };
//! let mut test = EProcess::new(Settings::new(Side::Rollback, tolerance, 1.0, 0.01, 1.0), &[0.01]);
//! // a tenth of the candidate's requests fails, a hundredth of stable's
//! for _ in 0..4 {
//!     test.look(&[Increment::new(50.0, 5.0, 950.0, 10.0)]);
//! }
//! assert!(test.reached(0.01), "roll back");
//! ```

#![forbid(unsafe_code)]

pub mod analysis;
pub mod evaluator;
pub mod function;
pub mod playback;
pub mod rollout;
pub mod samples;
pub mod stats;
