//! Computes exact one-sided confidence bounds of a rate.

/// Error probability of a bound: one minus its confidence.
const DOUBT: f64 = 0.001;

/// Returns ln C(n, k), with the gamma function by Stirling's series.
fn ln_choose(n: u32, k: u32) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

fn ln_factorial(n: u32) -> f64 {
    if n < 64 {
        return (2..=n).map(|i| f64::from(i).ln()).sum();
    }
    let x = f64::from(n) + 1.0;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + 1.0 / (12.0 * x)
        - 1.0 / (360.0 * x.powi(3))
}

/// Returns P(X >= k) of a binomial distribution.
fn at_least(k: u32, n: u32, p: f64) -> f64 {
    if k == 0 {
        return 1.0;
    }
    let tail = |range: std::ops::RangeInclusive<u32>| -> f64 {
        range
            .map(|x| {
                (ln_choose(n, x) + f64::from(x) * p.ln() + f64::from(n - x) * (-p).ln_1p()).exp()
            })
            .sum()
    };
    tail(k..=n)
}

fn bisect(mut low: f64, mut high: f64, too_low: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if too_low(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// Returns the lower bound of a rate with 99.9 % confidence, after `k` events in `n` runs.
#[must_use]
pub fn lower_bound(k: u32, n: u32) -> f64 {
    if k == 0 {
        return 0.0;
    }
    bisect(0.0, 1.0, |p| at_least(k, n, p) < DOUBT)
}

/// Returns the upper bound of a rate with 99.9 % confidence, after `k` events in `n` runs.
#[must_use]
pub fn upper_bound(k: u32, n: u32) -> f64 {
    if k >= n {
        return 1.0;
    }
    bisect(0.0, 1.0, |p| 1.0 - at_least(k + 1, n, p) > DOUBT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bounds() {
        // none of n: 1 - 0.001^(1/n)
        let none = 1.0 - 0.001_f64.powf(1.0 / 4000.0);
        assert!((upper_bound(0, 4000) - none).abs() < 1e-9);
        assert_eq!(lower_bound(0, 4000), 0.0);
        // all of n: 0.001^(1/n)
        assert!((lower_bound(500, 500) - 0.001_f64.powf(1.0 / 500.0)).abs() < 1e-9);
        // 5 of 10: the p at which five or more occur once in a thousand
        assert!(
            (lower_bound(5, 10) - 0.089_813).abs() < 5e-4,
            "{}",
            lower_bound(5, 10)
        );
        assert!((lower_bound(5, 10) + upper_bound(5, 10) - 1.0).abs() < 1e-9);
    }
}
