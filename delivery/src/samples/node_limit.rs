//! Limit of the influence of a single node.

/// Number of exposed nodes from which on the influence of each node is limited.
pub const LIMITED_FROM: usize = 20;
const SHARE_ALWAYS_ALLOWED: f64 = 0.05;
const ROUNDS: usize = 64;

/// Returns a factor per node, at most 1, that scales the node's counts of one evaluation so that its share of the candidate's
/// requests is at most 5 %, or twice its share of stable's requests. `nodes` holds `(candidate, stable)` requests.
///
/// The factors depend on request counts alone, never on the outcome of the requests, which keeps the test valid. One request
/// per evaluation is always allowed: with little traffic an evaluation has only a few requests, so a large share of a node
/// means nothing.
#[must_use]
pub fn limit_shares(nodes: &[(u64, u64)]) -> Vec<f64> {
    let mut factors = vec![1.0; nodes.len()];
    if nodes.len() < LIMITED_FROM {
        return factors;
    }
    let stable: f64 = nodes.iter().map(|n| n.1 as f64).sum();
    for _ in 0..ROUNDS {
        let total: f64 = nodes
            .iter()
            .zip(&factors)
            .map(|(node, factor)| node.0 as f64 * factor)
            .sum();
        let mut changed = false;
        for (node, factor) in nodes.iter().zip(factors.iter_mut()) {
            let share = if stable > 0.0 {
                node.1 as f64 / stable
            } else {
                0.0
            };
            let allowed = (SHARE_ALWAYS_ALLOWED.max(2.0 * share) * total).max(1.0);
            let limited = (allowed / node.0 as f64).min(*factor);
            if *factor - limited > 1e-9 {
                *factor = limited;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HK-5, FE-6: one node that reports most of the errors counts as a tenth.
    #[test]
    fn a_node_with_most_requests_among_twenty_is_scaled_down() {
        let mut nodes = vec![(10, 190); 19];
        nodes.push((9_000, 190));
        let factors = limit_shares(&nodes);
        let scaled = 9_000.0 * factors[19];
        assert!(scaled / (scaled + 190.0) <= 0.1 + 1e-6, "{scaled}");
        assert!(factors[..19].iter().all(|f| *f == 1.0));
    }

    #[test]
    fn a_node_with_much_traffic_of_stable_is_not_scaled() {
        let mut nodes = vec![(10, 190); 19];
        nodes.push((190, 3_600));
        assert_eq!(limit_shares(&nodes), vec![1.0; 20]);
    }

    #[test]
    fn one_request_per_evaluation_is_not_scaled() {
        let mut nodes = vec![(0, 5); 39];
        nodes.push((1, 4));
        assert_eq!(limit_shares(&nodes), vec![1.0; 40]);
    }

    #[test]
    fn below_twenty_nodes_nothing_is_scaled() {
        assert_eq!(limit_shares(&[(100, 1), (0, 100)]), vec![1.0, 1.0]);
    }
}
