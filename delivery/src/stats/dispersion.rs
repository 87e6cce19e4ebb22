//! Dispersion: variation between the nodes of one revision, relative to the variation by chance.
//!
//! If events were independent, the events of a batch would be distributed over the nodes in proportion to their requests,
//! with the variance of a multinomial draw. Bursts on one process (a cold cache, a noisy neighbour) make the variance
//! larger. Every look of the test is divided by the ratio of the two. Failures that affect all nodes alike cancel, because
//! a batch is compared with itself.

/// Requests and events of one node in one look.
pub type Cell = (f64, f64);

/// Pseudo-counts that keep the ratio near its usual value while there are few events.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// Weight of the prior, in events.
    pub weight: f64,
    /// Ratio of the prior.
    pub ratio: f64,
}

impl Default for Prior {
    fn default() -> Self {
        Self {
            weight: 20.0,
            ratio: 1.0,
        }
    }
}

/// Lengths of the batches, in looks.
pub const BATCHES: [usize; 3] = [1, 6, 12];
/// Dispersion used when it cannot be measured: with one node, or without history.
pub const UNKNOWN: f64 = 2.0;

/// Returns the ratio for batches of `length` looks. `nodes` holds one row of looks per node.
#[must_use]
pub fn ratio(nodes: &[Vec<Cell>], length: usize, prior: Prior) -> f64 {
    let looks = nodes.iter().map(Vec::len).max().unwrap_or(0);
    let (mut observed, mut expected) = (prior.weight * prior.ratio, prior.weight);
    let mut start = 0;
    while length > 0 && start < looks {
        let batch: Vec<Cell> = nodes
            .iter()
            .map(|row| {
                row.iter()
                    .skip(start)
                    .take(length)
                    .fold((0.0, 0.0), |sum, cell| (sum.0 + cell.0, sum.1 + cell.1))
            })
            .collect();
        let requests: f64 = batch.iter().map(|c| c.0).sum();
        let events: f64 = batch.iter().map(|c| c.1).sum();
        if events > 0.0 && requests > 0.0 {
            for (node_requests, node_events) in batch {
                let share = node_requests / requests;
                observed += (node_events - events * share).powi(2);
                expected += events * share * (1.0 - share);
            }
        }
        start = start.saturating_add(length);
    }
    observed / expected
}

/// Returns φ, the largest ratio over all batch lengths and at least 1; [`UNKNOWN`] with fewer than two nodes.
///
/// ```
/// use delivery::stats::{UNKNOWN, dispersion};
/// let even = vec![(50.0, 1.0); 12]; // 12 looks: 50 requests, 1 event
/// assert_eq!(dispersion(&[even.clone()]), UNKNOWN);
/// assert_eq!(dispersion(&[even.clone(), even]), 1.0);
///
/// // all events on one of two nodes: a burst that chance does not explain
/// let (hit, spared) = (vec![(50.0, 8.0); 12], vec![(50.0, 0.0); 12]);
/// assert!(dispersion(&[hit, spared]) > 2.0);
/// ```
#[must_use]
pub fn dispersion(nodes: &[Vec<Cell>]) -> f64 {
    if nodes.len() < 2 {
        return UNKNOWN;
    }
    BATCHES
        .iter()
        .map(|length| ratio(nodes, *length, Prior::default()))
        .fold(1.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Vec<Cell> {
        text.split(' ')
            .map(|cell| {
                let (n, x) = cell.split_once('/').unwrap();
                (n.parse().unwrap(), x.parse().unwrap())
            })
            .collect()
    }

    #[test]
    fn three_nodes_twelve_looks() {
        let nodes = [
            row("50/1 48/0 52/0 51/4 49/0 50/0 47/0 53/1 50/0 51/0 49/2 50/0"),
            row("49/0 50/0 51/3 50/0 52/0 48/1 50/0 49/0 51/0 50/5 50/0 49/0"),
            row("51/0 52/1 49/0 50/0 50/0 51/0 52/2 50/0 48/0 50/0 51/0 50/1"),
        ];
        let expected = [1.818_553_65, 0.927_599_677, 1.009_650_40];
        for (length, expected) in BATCHES.iter().zip(expected) {
            let got = ratio(&nodes, *length, Prior::default());
            assert!((got - expected).abs() < 1e-8, "batches of {length}: {got}");
        }
        assert!((dispersion(&nodes) - 1.818_553_65).abs() < 1e-8);
    }

    #[test]
    fn one_node_is_unknown() {
        assert_eq!(dispersion(&[row("50/1 48/0")]), UNKNOWN);
    }
}
