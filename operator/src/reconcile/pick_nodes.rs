//! Picks the nodes that a function is placed on. Pure, and the same on every replica.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crds::function::Placement as Spec;
use k8s_openapi::api::core::v1::Node;
use sha2::{Digest, Sha256};

use crate::watch::ObjectKey;

/// A node that placement can pick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Name of the node.
    pub name: &'a str,
    /// Labels of the node.
    pub labels: &'a BTreeMap<String, String>,
    /// Whether a shim runs on it.
    pub has_shim: bool,
}

/// The nodes for `key`: all that match, or with `replicas` as many of those with a shim, spread over the
/// values of a label and otherwise by a hash, so that a node that joins moves as little as possible.
#[must_use]
pub fn pick(key: &ObjectKey, spec: &Spec, nodes: &[Candidate<'_>]) -> BTreeSet<String> {
    let matching = nodes.iter().filter(|node| {
        spec.node_selector
            .iter()
            .all(|(name, value)| node.labels.get(name) == Some(value))
    });
    let Some(replicas) = spec.replicas else {
        return matching.map(|node| node.name.to_owned()).collect();
    };
    let mut ranked: Vec<(u64, &Candidate<'_>)> = matching
        .filter(|node| node.has_shim)
        .map(|node| (rank(key, node.name), node))
        .collect();
    ranked.sort_by_key(|(rank, node)| (*rank, node.name));
    let mut taken: HashMap<&str, usize> = HashMap::new();
    let mut picked = BTreeSet::new();
    while picked.len() < replicas as usize {
        let zone = |node: &Candidate<'_>| {
            spec.spread
                .as_ref()
                .and_then(|label| node.labels.get(label))
                .map_or("", String::as_str)
                .to_owned()
        };
        let next = ranked
            .iter()
            .filter(|(_, node)| !picked.contains(node.name))
            .min_by_key(|(rank, node)| {
                (taken.get(zone(node).as_str()).copied().unwrap_or(0), *rank)
            });
        let Some((_, node)) = next else { break };
        picked.insert(node.name.to_owned());
        let label = spec
            .spread
            .as_ref()
            .and_then(|label| node.labels.get(label))
            .map_or("", String::as_str);
        *taken.entry(label).or_default() += 1;
    }
    picked
}

/// All nodes as candidates.
#[must_use]
pub fn candidates<'a>(
    nodes: &'a BTreeMap<ObjectKey, Arc<Node>>,
    none: &'a BTreeMap<String, String>,
    has_shim: impl Fn(&str) -> bool,
) -> Vec<Candidate<'a>> {
    nodes
        .iter()
        .map(|(key, node)| Candidate {
            name: &key.name,
            labels: node.metadata.labels.as_ref().unwrap_or(none),
            has_shim: has_shim(&key.name),
        })
        .collect()
}

fn rank(key: &ObjectKey, node: &str) -> u64 {
    let digest = Sha256::digest(format!("{key}\n{node}"));
    digest
        .iter()
        .take(8)
        .fold(0, |rank, byte| (rank << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(zone: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("zone".to_owned(), zone.to_owned())])
    }

    #[test]
    fn selectors_are_hard_and_replicas_spread() {
        let (a, b) = (labels("a"), labels("b"));
        let names: Vec<String> = (0..6).map(|n| format!("n{n}")).collect();
        let nodes: Vec<Candidate<'_>> = names
            .iter()
            .enumerate()
            .map(|(n, name)| Candidate {
                name,
                labels: if n < 4 { &a } else { &b },
                has_shim: n != 0,
            })
            .collect();
        let key = ObjectKey::new("shop", "checkout");
        let all = pick(
            &key,
            &Spec {
                node_selector: labels("a"),
                ..Spec::default()
            },
            &nodes,
        );
        assert_eq!(all.len(), 4);
        let spread = Spec {
            replicas: Some(2),
            spread: Some("zone".into()),
            ..Spec::default()
        };
        let two = pick(&key, &spread, &nodes);
        assert_eq!(
            two.iter()
                .filter(|name| ["n4", "n5"].contains(&name.as_str()))
                .count(),
            1
        );
        assert!(!two.contains("n0"));
        let many = pick(
            &key,
            &Spec {
                replicas: Some(99),
                ..Spec::default()
            },
            &nodes,
        );
        assert_eq!(many.len(), 5, "those with a shim");
        assert!(
            pick(
                &key,
                &Spec {
                    replicas: Some(0),
                    ..Spec::default()
                },
                &nodes
            )
            .is_empty()
        );
    }

    #[test]
    fn a_node_that_joins_replaces_at_most_one() {
        let none = BTreeMap::new();
        let names: Vec<String> = (0..20).map(|n| format!("n{n}")).collect();
        let nodes: Vec<Candidate<'_>> = names
            .iter()
            .map(|name| Candidate {
                name,
                labels: &none,
                has_shim: true,
            })
            .collect();
        let spec = Spec {
            replicas: Some(5),
            ..Spec::default()
        };
        let key = ObjectKey::new("a", "b");
        let before = pick(&key, &spec, &nodes[..19]);
        let after = pick(&key, &spec, &nodes);
        assert!(before.difference(&after).count() <= 1);
    }
}
