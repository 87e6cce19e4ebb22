//! Lower bounds on the number of requests that a decision needs.

/// Returns the Kullback–Leibler divergence of two Bernoulli rates, in nats per request; infinite if `q` is 0 or 1 and
/// `p` is not.
///
/// ```
/// use delivery::stats::divergence;
/// assert_eq!(divergence(0.01, 0.01), 0.0);
/// assert_eq!(divergence(0.5, 0.0), f64::INFINITY);
/// // requests needed at least to distinguish 1 % from 6 % at an error rate of 5 %
/// let requests = 20.0_f64.ln() / divergence(0.01, 0.06);
/// assert!((85.0..95.0).contains(&requests));
/// ```
#[must_use]
pub fn divergence(p: f64, q: f64) -> f64 {
    let term = |a: f64, b: f64| {
        if a <= 0.0 {
            0.0
        } else if b <= 0.0 {
            f64::INFINITY
        } else {
            a * (a / b).ln()
        }
    };
    term(p, q) + term(1.0 - p, 1.0 - q)
}

/// Returns the information, in nats per candidate request, that distinguishes the pair of rates from the nearest pair on the
/// line `candidate = ratio * stable + delta`, when the candidate gets the share `weight` (0 to 1) of the requests.
///
/// The value is convex in stable's rate on the line, so a golden-section search finds the minimum.
///
/// ```
/// use delivery::stats::information;
/// // stable fails 1 %, the tolerance is +0.5 points, the candidate has 5 % of the requests
/// let requests = |candidate| 100.0_f64.ln() / information(candidate, 0.01, 1.0, 0.005, 0.05);
/// assert!(requests(1.0) < 2.0); // fails always
/// assert!(requests(0.06) < 130.0); // fails 6 %
/// assert!(requests(0.02) > 6_000.0); // fails 2 %: close to the limit, so it takes long
/// ```
#[must_use]
pub fn information(candidate: f64, stable: f64, ratio: f64, delta: f64, weight: f64) -> f64 {
    if ratio <= 0.0 {
        return divergence(candidate, delta.min(1.0));
    }
    let others = (1.0 - weight) / weight;
    let at = |rate: f64| {
        let limit = (ratio * rate + delta).min(1.0);
        let value = divergence(candidate, limit) + others * divergence(stable, rate);
        if value.is_nan() { f64::INFINITY } else { value }
    };
    let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (0.0, ((1.0 - delta) / ratio).clamp(0.0, 1.0));
    for _ in 0..90 {
        let left = high - golden * (high - low);
        let right = low + golden * (high - low);
        // at the borders both are infinite: stable's true rate decides which half to keep
        let keep_left = match at(left).partial_cmp(&at(right)) {
            Some(std::cmp::Ordering::Equal) => stable < left,
            order => order == Some(std::cmp::Ordering::Less),
        };
        if keep_left {
            high = right;
        } else {
            low = left;
        }
    }
    at(f64::midpoint(low, high)).min(at(stable))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bounds at a weight of 5 %, α = 1 %.
    #[test]
    fn bounds_of_the_planning_table() {
        let rows = [
            (0.001, 0.005, [2772.0, 73.0, 1.2]),
            (0.01, 0.005, [6244.0, 125.0, 1.4]),
            (0.05, 0.005, [20660.0, 307.0, 1.8]),
            (0.01, 0.001, [1628.0, 94.0, 1.3]),
        ];
        for (stable, delta, bounds) in rows {
            for (candidate, expected) in [stable + 0.01, stable + 0.05, 1.0].iter().zip(bounds) {
                let got = 100.0_f64.ln() / information(*candidate, stable, 1.0, delta, 0.05);
                let slack = f64::max(0.01 * expected, 0.051);
                assert!(
                    (got - expected).abs() < slack,
                    "{stable} {delta} {candidate}: {got} not {expected}"
                );
            }
        }
    }

    /// Requests a healthy candidate needs to pass, without the cost of the mixture.
    #[test]
    fn requests_to_pass() {
        let rows = [
            (0.001, [30.0, 63.0, 175.0, 391.0, 930.0]),
            (0.01, [37.0, 90.0, 325.0, 960.0, 3127.0]),
            (0.05, [59.0, 179.0, 884.0, 3197.0, 12094.0]),
        ];
        for (rate, requests) in rows {
            for (margin, expected) in [0.1, 0.05, 0.02, 0.01, 0.005].iter().zip(requests) {
                let got = 20.0_f64.ln() / divergence(rate, rate + margin);
                assert!(
                    (got - expected).abs() < 0.01 * expected + 0.6,
                    "{rate} {margin}: {got}"
                );
            }
        }
    }
}
