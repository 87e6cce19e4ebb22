//! Eviction policy of mapped native code. Each mapped component uses a file descriptor and memory
//! mappings, both of which the system limits. Above the maximum, the component that has been idle for
//! longest is unmapped; its native code stays on disk, and the next request maps it again.

use std::cmp::Reverse;
use std::time::Instant;

/// File descriptors of one mapped component.
const DESCRIPTORS: u64 = 1;
/// Memory mappings of one mapped component.
const MAPPINGS: u64 = 3;
/// Maximum number of memory mappings of one instance.
const INSTANCE_MAPPINGS: u64 = 4;

/// Limits of the process and the needs of its other parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingLimits {
    /// Maximum number of file descriptors of the process.
    pub descriptors: u64,
    /// Maximum number of connections, which use one descriptor each.
    pub connections: u64,
    /// Maximum number of memory mappings of the process.
    pub mappings: u64,
    /// Maximum number of concurrent instances.
    pub instances: u64,
}

impl MappingLimits {
    /// Returns the maximum number of mapped components: what 70 % of the limits leave after connections
    /// and instances, at least 1. When connections use most of a small descriptor limit, components get
    /// a quarter of the remaining descriptors.
    #[must_use]
    pub fn max_mapped(self) -> usize {
        let most = |limit: u64| (u128::from(limit) * 7 / 10).min(u128::from(u64::MAX)) as u64;
        let rest = self.descriptors.saturating_sub(self.connections);
        let descriptors = most(self.descriptors)
            .saturating_sub(self.connections)
            .max(rest / 4);
        let instances = self.instances.saturating_mul(INSTANCE_MAPPINGS);
        let mappings = most(self.mappings).saturating_sub(instances);
        let cap = (descriptors / DESCRIPTORS).min(mappings / MAPPINGS).max(1);
        usize::try_from(cap).unwrap_or(usize::MAX)
    }
}

/// State of a mapped component that decides whether it is unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedComponent {
    /// Whether requests run in it or wait for it, or it could not be mapped again.
    pub in_use: bool,
    /// Whether it is a candidate with traffic, whose evaluation a cold start would distort.
    pub serves_candidate: bool,
    /// End of the last request; `None` before the first one.
    pub last_used: Option<Instant>,
    /// Sequence number of the mapping. The most important components are mapped first.
    pub mapped_order: u64,
}

/// Returns the positions of the components to unmap so that at most `cap` are mapped after `coming` more
/// have been added. The component that has been idle for longest is unmapped first. Components that are
/// in use or serve a candidate stay mapped even above `cap`. Components that never had a request count as
/// idle for longest; among them the one mapped last is unmapped first.
#[must_use]
pub fn select_to_unmap(mapped: &[MappedComponent], coming: usize, cap: usize) -> Vec<usize> {
    let excess = mapped.len().saturating_add(coming).saturating_sub(cap);
    if excess == 0 {
        return Vec::new();
    }
    let mut idle: Vec<(usize, &MappedComponent)> = mapped
        .iter()
        .enumerate()
        .filter(|(_, one)| !one.in_use && !one.serves_candidate)
        .collect();
    idle.sort_unstable_by_key(|(_, one)| (one.last_used, Reverse(one.mapped_order)));
    idle.into_iter().take(excess).map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[allow(
        clippy::disallowed_methods,
        reason = "a test needs some instant to start from"
    )]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_maximum_leaves_room_for_connections_and_instances() {
        let allowance = |descriptors, connections, mappings, instances| MappingLimits {
            descriptors,
            connections,
            mappings,
            instances,
        };
        let table = [
            // bounded by the default mapping limit of Linux: (65,530 × 0.7 − 4,000) ÷ 3
            (allowance(1 << 20, 10_000, 65_530, 1_000), 13_957),
            // bounded by descriptors: 20,000 × 0.7 − 10,000
            (allowance(20_000, 10_000, 65_530, 1_000), 4_000),
            // connections use most descriptors: a quarter of the rest
            (allowance(4_096, 3_072, 65_530, 1_000), 256),
            (allowance(1_024, 512, 65_530, 1_000), 204),
            // instances use all mappings
            (allowance(1 << 20, 10_000, 1_000, 1_000), 1),
            // unlimited descriptors
            (allowance(u64::MAX, 10_000, 65_530, 1_000), 13_957),
            (allowance(0, 0, 0, 0), 1),
        ];
        for (allowance, cap) in table {
            assert_eq!(allowance.max_mapped(), cap, "{allowance:?}");
        }
    }

    fn used(start: Instant, seconds: u64, order: u64) -> MappedComponent {
        MappedComponent {
            in_use: false,
            serves_candidate: false,
            last_used: Some(start + Duration::from_secs(seconds)),
            mapped_order: order,
        }
    }

    #[test]
    fn the_longest_idle_is_unmapped_and_code_in_use_stays() {
        let start = origin();
        let used = |seconds, order| used(start, seconds, order);
        let busy = |one| MappedComponent {
            in_use: true,
            ..one
        };
        let trial = |one| MappedComponent {
            serves_candidate: true,
            ..one
        };
        let never = |order| MappedComponent {
            last_used: None,
            ..used(0, order)
        };
        type Row = (&'static str, Vec<MappedComponent>, usize, usize, Vec<usize>);
        let table: [Row; 9] = [
            ("below the maximum", vec![used(1, 1)], 1, 2, vec![]),
            (
                "the longest idle",
                vec![used(2, 1), used(1, 2)],
                1,
                2,
                vec![1],
            ),
            (
                "as many as exceed the maximum",
                vec![used(3, 1), used(1, 2), used(2, 3)],
                1,
                2,
                vec![1, 2],
            ),
            (
                "not in use",
                vec![busy(used(1, 1)), used(2, 2)],
                1,
                2,
                vec![1],
            ),
            (
                "not a candidate with traffic",
                vec![trial(used(1, 1)), used(2, 2)],
                1,
                2,
                vec![1],
            ),
            (
                "all in use",
                vec![busy(used(1, 1)), trial(used(2, 2))],
                1,
                2,
                vec![],
            ),
            (
                "never used before recently used",
                vec![used(1, 1), never(2)],
                1,
                2,
                vec![1],
            ),
            (
                "the newest of those never used",
                vec![never(1), never(3), never(2)],
                1,
                3,
                vec![1],
            ),
            (
                "the excess includes new components",
                vec![used(1, 1), used(2, 2)],
                9,
                4,
                vec![0, 1],
            ),
        ];
        for (what, mapped, coming, cap, expected) in table {
            assert_eq!(select_to_unmap(&mapped, coming, cap), expected, "{what}");
        }
    }

    prop_compose! {
        fn any_mapped()(
            in_use in any::<bool>(),
            serves_candidate in any::<bool>(),
            last_used in proptest::option::of(0u64..20),
            mapped_order in 0u64..1_000,
        ) -> (bool, bool, Option<u64>, u64) {
            (in_use, serves_candidate, last_used, mapped_order)
        }
    }

    proptest! {
        #[test]
        fn only_code_in_use_exceeds_the_maximum_and_the_order_is_kept(
            all in proptest::collection::vec(any_mapped(), 0..40),
            coming in 0usize..4,
            cap in 1usize..40,
        ) {
            let start = origin();
            let mapped: Vec<MappedComponent> = all
                .into_iter()
                .map(|(in_use, serves_candidate, last, mapped_order)| MappedComponent {
                    in_use,
                    serves_candidate,
                    last_used: last.map(|seconds| start + Duration::from_secs(seconds)),
                    mapped_order,
                })
                .collect();
            let gone = select_to_unmap(&mapped, coming, cap);
            let stays: Vec<&MappedComponent> = mapped
                .iter()
                .enumerate()
                .filter(|(at, _)| !gone.contains(at))
                .map(|(_, one)| one)
                .collect();
            prop_assert_eq!(stays.len() + gone.len(), mapped.len(), "each once");
            let idle = |one: &&&MappedComponent| !one.in_use && !one.serves_candidate;
            if stays.len() + coming > cap {
                prop_assert_eq!(stays.iter().filter(idle).count(), 0, "above the maximum with idle code");
            }
            prop_assert!(gone.is_empty() || stays.len() + coming >= cap, "more than needed");
            for at in &gone {
                let out = &mapped[*at];
                prop_assert!(!out.in_use && !out.serves_candidate, "in use");
                for kept in stays.iter().filter(idle) {
                    prop_assert!(out.last_used <= kept.last_used, "out of order");
                }
            }
        }
    }
}
