//! The sequential test, and nothing else: numbers in, numbers out.
//!
//! # In one page
//!
//! Somebody claims: "the candidate fails at most `R` times as often as stable, plus `δ`". We bet against the claim,
//! starting with a stake of 1. Each look (whatever was counted since the last one) is one round of betting. The odds
//! are such that, if the claim is true, no way of betting gains on average: the expected factor of a round is at most 1
//! ([`Tolerance::ln_factor`]). So if the claim is true the stake reaches 100 with probability at most 1/100, *ever*,
//! however often and whenever somebody looks (Ville's inequality). If it does reach 100, the claim is given up: the candidate is rolled
//! back, and at most 1 % of harmless candidates suffer that. The stake is the **evidence** E; everything is kept as ln E.
//!
//! We do not know how bad a bad candidate is, so the stake is spread over ten effect sizes from "every request fails" to
//! "0.2 % more", and one part stays cash ([`Process`]). What wins dominates the sum; the spreading costs a factor once.
//! After each look a little of the whole is spread anew, so that a candidate that turns bad after a healthy day
//! meets bets that still have money.
//!
//! The same machine with the claim turned round ("the candidate fails *more* than `R` times plus `δ`") gives the evidence that a
//! step may be left: the **pass** side.
//!
//! Three precautions, none of which costs the guarantee, because each only makes a factor smaller or is fixed before the data come:
//!
//! * A cap on what one look may earn makes every verdict rest on at least two looks. One scrape taken at the wrong moment decides nothing.
//! * Every look is divided by the dispersion φ ([`dispersion()`]), how much more than chance the nodes differ.
//! * Stable's rate, which the odds need, is guessed from earlier looks only ([`Guess`]).
//!
//! Evidence of several processes is *averaged* with weights, never multiplied: an average of stakes is a stake,
//! whatever depends on whatever.
//!
//! # The test by example
//!
//! The claim: the candidate fails at most as often as stable plus 0.5 percentage points. The error rate is 1 %, so the
//! candidate is rolled back when the evidence reaches 100.
//!
//! ```
//! use operator_core::stats::{Increment, Look, Process, Settings, Side, Tolerance};
//!
//! let tolerance = Tolerance { ratio: 1.0, delta: 0.005 };
//! let settings = Settings::new(Side::Rollback, tolerance, 1.0, 0.01, 1.0);
//! // one stratum, in which stable is expected to fail 1 % of its requests
//! let mut test = Process::new(settings, &[0.01]);
//! assert_eq!(test.ln_evidence(), 0.0); // the evidence is 1: nothing is known
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
//! # use operator_core::stats::{Increment, Process, Settings, Side, Tolerance};
//! let tolerance = Tolerance { ratio: 1.0, delta: 0.02 };
//! let mut worse = Process::new(Settings::new(Side::Rollback, tolerance, 1.0, 0.01, 1.0), &[0.01]);
//! let mut pass = Process::new(Settings::new(Side::Pass, tolerance, 1.0, 0.05, 1.0), &[0.01]);
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
    FULL_LOOK, Guess, Look, MEMORY_REQUESTS, PRIOR_REQUESTS, Process, REDISTRIBUTION, Settings,
    Side, ln_sum_exp,
};
