//! Random numbers from a seed, so that the same seed gives the same play.

/// A generator of random numbers (SplitMix64). It decides which recorded requests are played, and nothing that must be secret.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Number of heads among `count` throws of a fair coin.
    fn heads(&mut self, count: u64) -> u64 {
        let mut heads = 0;
        for _ in 0..count / 64 {
            heads += u64::from(self.next().count_ones());
        }
        match count % 64 {
            0 => heads,
            rest => heads + u64::from((self.next() >> (64 - rest)).count_ones()),
        }
    }

    /// Number of requests, of `count`, that are chosen when each is chosen with `probability` (0 to 1) by itself.
    ///
    /// A request is chosen if a random binary fraction is below the probability. All fractions are drawn together, digit by
    /// digit, and the half that each digit settles is not drawn further. So the number is exact, and a million requests
    /// need some thousand random numbers.
    pub(super) fn chosen(&mut self, count: u64, probability: f64) -> u64 {
        if probability >= 1.0 {
            return count;
        }
        if probability.is_nan() || probability <= 0.0 {
            return 0;
        }
        let (mut undecided, mut chosen, mut rest) = (count, 0, probability);
        while undecided > 0 && rest > 0.0 {
            rest *= 2.0;
            let ones = self.heads(undecided);
            if rest >= 1.0 {
                rest -= 1.0;
                chosen += undecided - ones;
                undecided = ones;
            } else {
                undecided -= ones;
            }
        }
        chosen
    }

    /// Number of marked requests among `chosen` ones, of `total` requests of which `marked` are marked.
    pub(super) fn marked(&mut self, total: u64, marked: u64, chosen: u64) -> u64 {
        let (marked, chosen) = (marked.min(total), chosen.min(total));
        if marked > total / 2 {
            return chosen - self.marked(total, total - marked, chosen);
        }
        if chosen > total / 2 {
            return marked - self.marked(total, marked, total - chosen);
        }
        let (draws, mut left) = (marked.min(chosen), marked.max(chosen));
        let mut hits = 0;
        for drawn in 0..draws {
            if self.below(total - drawn) < left {
                hits += 1;
                left -= 1;
            }
        }
        hits
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(end);
        u64::try_from(product >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = |seed| {
            let mut dice = Dice::new(seed);
            [0; 8].map(|_| dice.chosen(1_000, 0.3))
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }

    #[test]
    fn all_or_none_are_chosen_at_the_ends() {
        let mut dice = Dice::new(1);
        assert_eq!(dice.chosen(1_000, 1.0), 1_000);
        assert_eq!(dice.chosen(1_000, 0.0), 0);
        assert_eq!(dice.chosen(1_000, f64::NAN), 0);
        assert_eq!(dice.chosen(0, 0.5), 0);
    }

    #[test]
    fn marked_requests_are_chosen_as_often_as_others() {
        let mut dice = Dice::new(3);
        for (total, marked, chosen) in [(100, 10, 30), (100, 90, 30), (100, 40, 80), (100, 70, 90)]
        {
            let draws = 5_000;
            let sum: u64 = (0..draws).map(|_| dice.marked(total, marked, chosen)).sum();
            let mean = sum as f64 / draws as f64;
            let expected = (marked * chosen) as f64 / total as f64;
            assert!((mean - expected).abs() < 0.25, "{mean} {expected}");
        }
        assert_eq!(dice.marked(10, 10, 4), 4);
        assert_eq!(dice.marked(10, 0, 4), 0);
        assert_eq!(dice.marked(0, 0, 0), 0);
    }

    /// Mean and variance are those of the binomial distribution. The sample is large enough that a right generator fails in
    /// fewer than one of 10^9 seeds, and the seed is fixed.
    #[test]
    fn mean_and_variance_are_those_of_single_choices() {
        for probability in [0.01, 0.05, 0.5, 0.93] {
            let mut dice = Dice::new(42);
            let (draws, count) = (20_000, 500_u64);
            let expected = count as f64 * probability;
            let variance = expected * (1.0 - probability);
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..draws {
                let off = dice.chosen(count, probability) as f64 - expected;
                sum += off;
                squares += off * off;
            }
            let (mean, found) = (sum / f64::from(draws), squares / f64::from(draws));
            let error = (variance / f64::from(draws)).sqrt();
            assert!(
                mean.abs() < 6.0 * error,
                "{probability}: mean off by {mean}"
            );
            assert!(
                (found / variance - 1.0).abs() < 0.08,
                "{probability}: variance {found} instead of {variance}"
            );
        }
    }
}
