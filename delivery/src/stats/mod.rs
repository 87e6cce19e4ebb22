//! The sequential test. It takes and returns only numbers.
//!
//! # Overview
//!
//! The null hypothesis is "the candidate fails at most `R` times as often as stable, plus `δ`". The test bets against it,
//! starting with a wealth of 1. Each look (whatever was counted since the last one) is one round of betting. The odds
//! are such that, if the hypothesis is true, no strategy gains on average: the expected factor of a round is at most 1
//! ([`Tolerance::ln_factor`]). The wealth is then an *e-process* ([`EProcess`]), and it reaches 100 with a probability of at
//! most 1/100, however often and whenever it is read (Ville's inequality). If it does reach 100, the hypothesis is rejected: the
//! candidate is rolled back, and at most 1 % of harmless candidates suffer that. The wealth is the **evidence** E; everything
//! is kept as ln E.
//!
//! The effect size of a harmful candidate is not known, so the wealth is spread over ten effect sizes from "every request
//! fails" to "0.2 % more", and one part is not bet at all. The growing part dominates the sum, so the spreading costs a
//! factor only once. Each look redistributes a small part of the total, so that the alternatives still have wealth when a
//! candidate turns bad after a healthy day.
//!
//! The same test of the opposite hypothesis ("the candidate fails *more* than `R` times plus `δ`") gives the evidence that
//! a step may end: the **pass** side.
//!
//! Three precautions keep the guarantee, because each only makes a factor smaller or is fixed before the data arrive:
//!
//! * A cap on the factor of one look makes every verdict need at least two looks, so a single unlucky scrape decides nothing.
//! * Every look is divided by the dispersion φ ([`dispersion()`]), the variation between nodes relative to chance.
//! * Stable's rate, which the odds need, is estimated from earlier looks only ([`RateEstimate`]).
//!
//! Evidence of several e-processes is *averaged* with weights, never multiplied: an average of e-processes is an
//! e-process, even if they depend on each other.
//!
//! # The test by example
//!
//! The null hypothesis is that the candidate fails at most as often as stable plus 0.5 percentage points. The error rate
//! is 1 %, so the candidate is rolled back when the evidence reaches 100.
//!
//! ```
//! use delivery::stats::{Increment, Look, EProcess, Settings, Side, Tolerance};
//!
//! let tolerance = Tolerance { ratio: 1.0, delta: 0.005 };
//! let settings = Settings::new(Side::Rollback, tolerance, 1.0, 0.01, 1.0);
//! // one stratum, in which stable is expected to fail 1 % of its requests
//! let mut test = EProcess::new(settings, &[0.01]);
//! assert_eq!(test.ln_evidence(), 0.0); // the evidence is 1 before the first look
//!
//! // each look: 50 requests of the candidate, 5 of which failed, and 950 of stable, 10 of which failed
//! let look = [Increment::new(50.0, 5.0, 950.0, 10.0)];
//! assert_eq!(test.look(&look), Look::Bet);
//! assert!(!test.reached(0.01), "one look never decides");
//!
//! let mut looks = 1;
//! while !test.reached(0.01) {
//!     test.look(&look);
//!     looks += 1;
//! }
//! assert!(looks <= 4);
//! assert!(test.p() <= 0.01);
//! ```
//!
//! A candidate that fails as often as stable loses wealth instead. The evidence for the pass side grows, and it allows the
//! next step when it reaches 20 (an error rate of 5 %).
//!
//! ```
//! # use delivery::stats::{Increment, EProcess, Settings, Side, Tolerance};
//! let tolerance = Tolerance { ratio: 1.0, delta: 0.02 };
//! let mut worse = EProcess::new(Settings::new(Side::Rollback, tolerance, 1.0, 0.01, 1.0), &[0.01]);
//! let mut pass = EProcess::new(Settings::new(Side::Pass, tolerance, 1.0, 0.05, 1.0), &[0.01]);
//! for look in 0..40 {
//!     let failed = f64::from(look % 2); // 1 of 100 requests
//!     let increment = [Increment::new(50.0, failed, 950.0, 9.5)];
//!     worse.look(&increment);
//!     pass.look(&increment);
//!     assert!(!worse.reached(0.01), "a healthy candidate is not rolled back");
//! }
//! assert!(pass.reached(0.05));
//! ```

mod dispersion;
mod factor;
mod plan;
mod process;

pub use dispersion::{BATCHES, Cell, Prior, UNKNOWN, dispersion, ratio as dispersion_ratio};
pub use factor::{Increment, Tolerance};
pub use plan::{divergence, information};
pub use process::{
    EProcess, FULL_LOOK, Look, MEMORY_REQUESTS, PRIOR_REQUESTS, REDISTRIBUTION, RateEstimate,
    Settings, Side, ln_sum_exp,
};
