//! Computes the mean factor of one evaluation exactly, by enumerating every outcome.

use operator_core::stats::{Increment, Tolerance};

use super::report::Row;

const CANDIDATE_MAX: u32 = 6;
const STABLE_MAX: u32 = 11;
const RATIOS: [f64; 5] = [0.5, 0.8, 1.0, 1.5, 2.0];
const DELTAS: [f64; 5] = [0.0, 0.005, 0.02, 0.1, 0.2];
const RATES: [f64; 7] = [0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 1.0];
const GUESSES: [f64; 4] = [0.001, 0.05, 0.3, 0.7];
const EFFECTS: [f64; 4] = [0.9, 0.5, 0.1, 0.01];

fn choose(n: u32, k: u32) -> f64 {
    (0..k).fold(1.0, |product, i| {
        product * f64::from(n - i) / f64::from(i + 1)
    })
}

fn binomial(n: u32, k: u32, p: f64) -> f64 {
    // 0^0 = 1, which is right here
    choose(n, k) * p.powi(k.cast_signed()) * (1.0 - p).powi((n - k).cast_signed())
}

fn factor(tolerance: Tolerance, counts: [u32; 4], guess: f64, alternative: f64) -> f64 {
    let [nc, xc, ns, xs] = counts.map(f64::from);
    tolerance
        .ln_factor(&Increment::new(nc, xc, ns, xs), guess, alternative)
        .exp()
}

/// Returns the largest mean factor with independent outcomes, over all sizes, tolerances, guesses, alternatives of
/// both sides, and rates under the null hypothesis.
#[must_use]
pub fn largest_mean_factor() -> f64 {
    let mut largest: f64 = 0.0;
    for_each_bet(|tolerance, guess, alternative, is_pass| {
        for stable in RATES {
            let limit = tolerance.limit(stable);
            // the boundary of the null hypothesis, and points inside it
            let inside = RATES.iter().copied().filter(|rate| {
                if is_pass {
                    *rate >= limit
                } else {
                    *rate <= limit
                }
            });
            for candidate in inside.chain((limit <= 1.0).then_some(limit)) {
                for nc in 1..=CANDIDATE_MAX {
                    for ns in (1..=STABLE_MAX).step_by(2) {
                        let sum = mean_over_outcomes(nc, ns, |xc, xs| {
                            binomial(nc, xc, candidate)
                                * binomial(ns, xs, stable)
                                * factor(tolerance, [nc, xc, ns, xs], guess, alternative)
                        });
                        largest = largest.max(sum);
                    }
                }
            }
        }
    });
    largest
}

/// Returns the largest mean factor when outcomes are fixed and only the routing is random (rollback side, R ≥ 1).
#[must_use]
pub(super) fn largest_mean_factor_of_routing() -> f64 {
    let mut largest: f64 = 0.0;
    for_each_bet(|tolerance, guess, alternative, is_pass| {
        if is_pass || tolerance.ratio < 1.0 {
            return;
        }
        for nc in 1..=CANDIDATE_MAX {
            for ns in 1..=STABLE_MAX {
                let all = nc + ns;
                for events in 0..=all {
                    let sum = (events.saturating_sub(ns)..=events.min(nc))
                        .map(|xc| {
                            choose(events, xc) * choose(all - events, nc - xc) / choose(all, nc)
                                * factor(tolerance, [nc, xc, ns, events - xc], guess, alternative)
                        })
                        .sum::<f64>();
                    largest = largest.max(sum);
                }
            }
        }
    });
    largest
}

fn mean_over_outcomes(nc: u32, ns: u32, term: impl Fn(u32, u32) -> f64) -> f64 {
    (0..=nc)
        .flat_map(|xc| (0..=ns).map(move |xs| (xc, xs)))
        .map(|(xc, xs)| term(xc, xs))
        .sum()
}

fn for_each_bet(mut bet: impl FnMut(Tolerance, f64, f64, bool)) {
    for ratio in RATIOS {
        for delta in DELTAS {
            let tolerance = Tolerance { ratio, delta };
            for guess in GUESSES {
                let limit = tolerance.limit(guess);
                for effect in EFFECTS {
                    if limit < 1.0 {
                        bet(tolerance, guess, limit + (1.0 - limit) * effect, false);
                        bet(tolerance, guess, limit * effect, true);
                    }
                }
            }
        }
    }
}

pub(super) fn rows() -> Vec<Row> {
    [
        ("both sides, independent outcomes", largest_mean_factor()),
        (
            "rollback side, R ≥ 1, fixed outcomes, random routing",
            largest_mean_factor_of_routing(),
        ),
    ]
    .map(|(cell, largest)| Row {
        property: "M1",
        cell: cell.to_owned(),
        runs: 0,
        measured: format!("max E[f] = 1 {:+.1e}", largest - 1.0),
        reference: "1.000000".to_owned(),
        bar: "≤ 1 + 1e-9".to_owned(),
        bounds: None,
        ok: largest <= 1.0 + 1e-9,
    })
    .to_vec()
}
