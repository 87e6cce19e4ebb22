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
//! * Every look is divided by the dispersion φ ([`dispersion`]), how much more than chance the nodes differ.
//! * Stable's rate, which the odds need, is guessed from earlier looks only ([`Guess`]).
//!
//! Evidence of several processes is *averaged* with weights, never multiplied: an average of stakes is a stake,
//! whatever depends on whatever.

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
