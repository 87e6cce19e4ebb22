//! Buckets of the latency histograms. Nodes count into them, Prometheus carries them as `le`, and the operator judges by them.

/// Upper bounds of the buckets in seconds, ascending. The bucket after the last has no upper bound.
pub const LATENCY_BOUNDS: [f64; 32] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02,
    0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0,
    7.5, 10.0,
];

/// Number of buckets, with the one that has no upper bound.
pub const LATENCY_BUCKETS: usize = LATENCY_BOUNDS.len() + 1;

/// Index of the bucket that counts a request of this latency: the first whose bound is not exceeded.
#[must_use]
pub fn latency_bucket(seconds: f64) -> usize {
    LATENCY_BOUNDS.partition_point(|bound| *bound < seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        assert_eq!([0.0, 0.0001, 0.000_11].map(latency_bucket), [0, 0, 1]);
        assert_eq!([10.0, 10.1].map(latency_bucket), [31, 32]);
        assert_eq!(LATENCY_BUCKETS, 33);
    }
}
