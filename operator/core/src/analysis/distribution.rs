//! Whether latency changed at all, in whichever direction: shown to people, decides nothing.
//!
//! The other latency tests ask whether the tail got heavier than tolerated. A candidate that is faster, or slower only in the
//! middle, passes them, and still a person may want to know. Here both arms are compared class by class of the histogram:
//! each arm's shares are guessed from its earlier looks (Dirichlet means), and what the look brought is bet to follow them rather
//! than their mixture. While both arms have one distribution, whatever it is and however it drifts, the stake does not grow in the
//! mean: the mixture has the weights of the look's own requests, so by the inequality of the means no common distribution
//! favours the two guesses over it. No tolerance is in it, so with enough traffic any difference shows.

use crate::samples::{Histogram, LATENCY_BUCKETS};

/// What each class counts before anything was seen.
const PRIOR: f64 = 0.5;
/// What one look may earn at most, as a factor: it takes two to say anything.
const CAP: f64 = 20.0;

/// Requests of one look by latency class, weighted by how far each node's word counts.
pub(super) type Classes = [f64; LATENCY_BUCKETS];

/// The process, and what it knows of both arms.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Distribution {
    /// All earlier looks of the candidate, and of stable.
    pub(super) candidate: Histogram,
    pub(super) stable: Histogram,
    /// ln of the stake.
    pub(super) ln_evidence: f64,
}

impl Distribution {
    /// Bets on a look. Call [`Self::learn`] with the same look afterwards: what is guessed from must be older than what is bet on.
    /// A result that is not finite is left out.
    pub(super) fn look(&mut self, candidate: &Classes, stable: &Classes) {
        let (nc, ns): (f64, f64) = (candidate.iter().sum(), stable.iter().sum());
        // one arm alone is its own mixture
        if nc <= 0.0 || ns <= 0.0 {
            return;
        }
        let guesses = means(&self.candidate).zip(means(&self.stable));
        let mut ln_factor = 0.0;
        for ((pc, ps), (c, s)) in guesses.zip(candidate.iter().zip(stable)) {
            let mixture = (nc * pc + ns * ps) / (nc + ns);
            ln_factor += c * (pc / mixture).ln() + s * (ps / mixture).ln();
        }
        let after = self.ln_evidence + ln_factor.min(CAP.ln());
        if after.is_finite() {
            self.ln_evidence = after;
        }
    }

    /// What the next looks are guessed from.
    pub(super) fn learn(&mut self, candidate: &Histogram, stable: &Histogram) {
        self.candidate.add(candidate);
        self.stable.add(stable);
    }
}

/// Dirichlet means: shares of the classes, none of them zero.
fn means(seen: &Histogram) -> impl Iterator<Item = f64> + '_ {
    let counts = || seen.0.iter().map(|n| *n as f64 + PRIOR);
    let all: f64 = counts().sum();
    counts().map(move |n| n / all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(used: &[(usize, u64)]) -> Histogram {
        Histogram::from_sparse(used.iter().copied()).unwrap()
    }

    fn see(process: &mut Distribution, candidate: &Histogram, stable: &Histogram) {
        let classes = |of: &Histogram| of.0.map(|n| n as f64);
        process.look(&classes(candidate), &classes(stable));
        process.learn(candidate, stable);
    }

    /// Computed apart, as fractions with logarithms of 50 digits.
    #[test]
    fn vectors() {
        type Row = (&'static [(usize, u64)], &'static [(usize, u64)], f64);
        let rows: [Row; 6] = [
            (&[(3, 9), (5, 1)], &[(3, 88), (5, 12)], 0.0),
            (
                &[(3, 10), (5, 2)],
                &[(3, 85), (5, 15)],
                -2.372_346_670_728_226_5,
            ),
            (&[(4, 11)], &[(3, 93), (5, 7)], 0.623_385_602_825_764_5),
            (
                &[(4, 3), (5, 9)],
                &[(3, 80), (5, 20)],
                3.619_117_876_379_755_6,
            ),
            (&[(4, 10), (5, 1)], &[], 3.619_117_876_379_755_6),
            (
                &[(4, 10), (5, 1)],
                &[(3, 80), (5, 11)],
                6.614_850_149_933_746,
            ),
        ];
        let mut process = Distribution::default();
        for (look, (candidate, stable, expected)) in rows.into_iter().enumerate() {
            see(&mut process, &histogram(candidate), &histogram(stable));
            let off = process.ln_evidence - expected;
            assert!(off.abs() <= 1e-12, "look {look}: {}", process.ln_evidence);
        }
    }

    /// By hand: 16.5 pretended requests in 33 classes; ten and thirty real ones in class 7. Then two of the candidate and six of
    /// stable come, all in class 7: the mixture of 10.5/26.5 and 30.5/46.5 is 0.25 of the one and 0.75 of the other.
    #[test]
    fn one_look_by_hand() {
        let mut process = Distribution::default();
        process.learn(&histogram(&[(7, 10)]), &histogram(&[(7, 30)]));
        see(&mut process, &histogram(&[(7, 2)]), &histogram(&[(7, 6)]));
        let (pc, ps) = (21.0 / 53.0, 61.0 / 93.0);
        let mixture: f64 = 0.25 * pc + 0.75 * ps;
        let factor = (pc * pc * f64::powi(ps, 6)) / mixture.powi(8);
        assert!((process.ln_evidence - factor.ln()).abs() < 1e-12);
    }

    /// Numbers that look random and are the same in every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        }

        /// About log-normal: median in class 13, one in twenty three classes above it.
        fn requests(&mut self, count: usize, shift: f64) -> Histogram {
            let mut sum = Histogram::default();
            for _ in 0..count {
                let normal = (0..12).map(|_| self.roll()).sum::<f64>() - 6.0;
                let class = (13.5 + 1.8 * normal + shift).clamp(0.0, 32.0);
                sum.0[class as usize] += 1;
            }
            sum
        }
    }

    /// The largest stake in each of many rollouts: 10 requests of the candidate and 90 of stable in each of 100 looks.
    fn largest(shift: f64) -> Vec<f64> {
        (0..200)
            .map(|seed| {
                let mut dice = Dice(seed);
                let mut process = Distribution::default();
                let mut largest = 0.0_f64;
                for look in 0..100 {
                    // both get slower in the middle, and that alone is no difference between them
                    let both = if look > 50 { 2.0 } else { 0.0 };
                    let candidate = dice.requests(10, both + shift);
                    see(&mut process, &candidate, &dice.requests(90, both));
                    largest = largest.max(process.ln_evidence);
                }
                largest
            })
            .collect()
    }

    #[test]
    fn arms_alike_stay_below_the_limit_and_a_shift_crosses_it_either_way() {
        let limit = 100_f64.ln();
        let crossed = |runs: Vec<f64>| runs.iter().filter(|largest| **largest >= limit).count();
        let alike = crossed(largest(0.0));
        assert!(alike <= 2, "{alike} of 200 without a difference");
        for shift in [1.0, -1.0] {
            let found = crossed(largest(shift));
            assert!(found >= 195, "{found} of 200 with a shift of {shift} class");
        }
    }

    #[test]
    fn no_single_look_says_anything() {
        let mut process = Distribution::default();
        let (fast, slow) = (histogram(&[(2, 100_000)]), histogram(&[(30, 100_000)]));
        see(&mut process, &slow, &fast);
        see(&mut process, &slow, &fast);
        assert!((process.ln_evidence - 20_f64.ln()).abs() < 1e-12);
        see(&mut process, &slow, &fast);
        assert!(process.ln_evidence >= 100_f64.ln());
    }
}
