//! Which native code stays mapped. Each mapped component takes a descriptor and mappings of the
//! process, of which there are only so many; above a cap the component that has been idle longest is
//! unmapped. Its compiled form stays on disk, and a request brings it back.

use std::cmp::Reverse;
use std::time::Instant;

/// Descriptors of one mapped component.
const DESCRIPTORS: u64 = 1;
/// Mappings of one mapped component.
const MAPPINGS: u64 = 3;
/// Mappings of one live instance, at most.
const INSTANCE_MAPPINGS: u64 = 4;

/// What the process may have, and what others of it take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingLimits {
    /// Descriptors the process may open.
    pub descriptors: u64,
    /// Of them for connections, at most.
    pub connections: u64,
    /// Mappings the process may have.
    pub mappings: u64,
    /// Instances at once, at most.
    pub instances: u64,
}

impl MappingLimits {
    /// Components that may be mapped at once: what 70 % of the limits leave beside connections and
    /// instances. Connections may take most of a small limit; then components have a quarter of the
    /// rest. At least one.
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

/// One mapped component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedComponent {
    /// Requests run or wait for it, or it could not be mapped again.
    pub in_use: bool,
    /// It is a candidate that gets traffic: a cold start would be held against it.
    pub serves_candidate: bool,
    /// When its last request ended; `None` before its first.
    pub last_used: Option<Instant>,
    /// Rises with every component that is mapped; what matters most is mapped first.
    pub mapped_order: u64,
}

/// Positions of the components to unmap so that, with `coming` more, at most `cap` are mapped:
/// no more than that, the longest idle first, and never one in use or in trial, even if too many
/// stay. Those that never had a request have been idle longest; of these the newest goes first.
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

    #[allow(clippy::disallowed_methods, reason = "a test has to start somewhere")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_cap_leaves_room_for_connections_and_instances() {
        let allowance = |descriptors, connections, mappings, instances| MappingLimits {
            descriptors,
            connections,
            mappings,
            instances,
        };
        let table = [
            // the mappings of a usual kernel bound it: (65,530 × 0.7 − 4,000) ÷ 3
            (allowance(1 << 20, 10_000, 65_530, 1_000), 13_957),
            // descriptors bound it: 20,000 × 0.7 − 10,000
            (allowance(20_000, 10_000, 65_530, 1_000), 4_000),
            // connections take nearly all: a quarter of what they leave
            (allowance(4_096, 3_072, 65_530, 1_000), 256),
            (allowance(1_024, 512, 65_530, 1_000), 204),
            // instances take all mappings
            (allowance(1 << 20, 10_000, 1_000, 1_000), 1),
            // without a limit of descriptors
            (allowance(u64::MAX, 10_000, 65_530, 1_000), 13_957),
            (allowance(0, 0, 0, 0), 1),
        ];
        for (allowance, cap) in table {
            assert_eq!(allowance.max_mapped(), cap, "{allowance:?}");
        }
    }

    #[test]
    fn the_longest_idle_goes_and_what_serves_stays() {
        let start = origin();
        let used = |seconds: u64, order: u64| MappedComponent {
            in_use: false,
            serves_candidate: false,
            last_used: Some(start + Duration::from_secs(seconds)),
            mapped_order: order,
        };
        let busy = |one: MappedComponent| MappedComponent {
            in_use: true,
            ..one
        };
        let trial = |one: MappedComponent| MappedComponent {
            serves_candidate: true,
            ..one
        };
        let never = |order| MappedComponent {
            last_used: None,
            ..used(0, order)
        };
        type Row = (&'static str, Vec<MappedComponent>, usize, usize, Vec<usize>);
        let table: [Row; 9] = [
            ("room", vec![used(1, 1)], 1, 2, vec![]),
            (
                "the longest idle",
                vec![used(2, 1), used(1, 2)],
                1,
                2,
                vec![1],
            ),
            (
                "as many as are too many",
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
                "not in trial",
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
                "never used before used",
                vec![used(1, 1), never(2)],
                1,
                2,
                vec![1],
            ),
            (
                "of the never used the newest",
                vec![never(1), never(3), never(2)],
                1,
                3,
                vec![1],
            ),
            (
                "over by what is coming",
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
        fn never_above_the_cap_but_for_use_and_never_out_of_turn(
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
                prop_assert_eq!(stays.iter().filter(idle).count(), 0, "above the cap with idle code");
            }
            prop_assert!(gone.is_empty() || stays.len() + coming >= cap, "more than needed");
            for at in &gone {
                let out = &mapped[*at];
                prop_assert!(!out.in_use && !out.serves_candidate, "in use");
                for kept in stays.iter().filter(idle) {
                    prop_assert!(out.last_used <= kept.last_used, "out of turn");
                }
            }
        }
    }
}
