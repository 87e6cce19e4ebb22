//! Random numbers, and random counts from rates.

use operator_core::samples::{LATENCY_BOUNDS, LATENCY_BUCKETS};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Binomial, Distribution as _, Poisson};

/// Reproducible source of random numbers for one run.
#[derive(Debug)]
pub struct RandomSource(StdRng);

impl RandomSource {
    /// Creates a source that depends on the three numbers only.
    #[must_use]
    pub fn new(seed: u64, cell: u64, run: u64) -> Self {
        let mut bytes = [0; 32];
        for (slot, byte) in bytes
            .iter_mut()
            .zip([seed, cell, run].into_iter().flat_map(u64::to_le_bytes))
        {
            *slot = byte;
        }
        Self(StdRng::from_seed(bytes))
    }

    /// Returns how many of `n` events occur, each with probability `p`.
    pub fn of(&mut self, n: u64, p: f64) -> u64 {
        if n == 0 || p <= 0.0 {
            return 0;
        }
        if p >= 1.0 {
            return n;
        }
        if n == 1 {
            return u64::from(self.0.random::<f64>() < p);
        }
        Binomial::new(n, p).map_or(0, |d| d.sample(&mut self.0))
    }

    /// Returns a Poisson-distributed number of arrivals with mean `mean`.
    pub fn arrivals(&mut self, mean: f64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a Poisson number is whole and not negative"
        )]
        Poisson::new(mean).map_or(0, |d| d.sample(&mut self.0) as u64)
    }
}

/// Median and shape of a log-normal latency distribution.
const MEDIAN_SECONDS: f64 = 0.05;
const SIGMA: f64 = 0.8;
/// Bound below which no quantile of interest lies, so one bucket counts everything below it.
const FIRST_BOUND: f64 = 0.1;

/// Conditional probabilities of a latency distribution: for each bound, the probability that a request slower than
/// the previous bound is slower than this one.
#[derive(Debug, Clone)]
pub(super) struct Latency(Vec<(usize, f64)>);

impl Latency {
    pub(super) fn new() -> Self {
        let mut before = 1.0;
        Self(
            LATENCY_BOUNDS
                .iter()
                .enumerate()
                .filter(|(_, bound)| **bound >= FIRST_BOUND - 1e-9)
                .map(|(bucket, bound)| {
                    let slower = normal_tail((bound / MEDIAN_SECONDS).ln() / SIGMA);
                    let chain = (bucket, slower / before);
                    before = slower;
                    chain
                })
                .collect(),
        )
    }

    /// Adds `requests` with random latencies to the buckets.
    pub(super) fn draw(
        &self,
        random: &mut RandomSource,
        mut requests: u64,
        buckets: &mut [u64; LATENCY_BUCKETS],
    ) {
        for (bucket, slower) in &self.0 {
            if requests == 0 {
                return;
            }
            let rest = random.of(requests, *slower);
            if let Some(slot) = buckets.get_mut(*bucket) {
                *slot += requests - rest;
            }
            requests = rest;
        }
        if let Some(last) = buckets.last_mut() {
            *last += requests;
        }
    }
}

/// Returns P(Z > z) of a standard normal distribution for z ≥ 0, with an error of about 1e-7 (rational approximation
/// 26.2.17 of Abramowitz and Stegun).
fn normal_tail(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let polynomial = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ]
    .iter()
    .rev()
    .fold(0.0, |sum, c| (sum + c) * t);
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * polynomial
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_of_the_normal() {
        for (z, tail) in [(0.0, 0.5), (1.281_551_6, 0.1), (2.326_347_9, 0.01)] {
            assert!((normal_tail(z) - tail).abs() < 1e-6, "{z}");
        }
    }

    #[test]
    fn dice_are_reproducible_and_differ_between_runs() {
        let draw = |run| {
            let mut random = RandomSource::new(1, 2, run);
            (0..20).map(|_| random.of(1000, 0.3)).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
